"""Architectures of torchvision and of timm, which are optional extras and imported only when one is built."""

from __future__ import annotations

from torch import nn

from lotto.core.errors import UsageError, unknown

AUXILIARY = ("inception_v3", "googlenet")
"""Networks with auxiliary outputs during training, which are left out: the loss is that of the main output."""


def torchvision_model(name: str, classes: int) -> nn.Module:
    """Build ``name`` (``resnet50``, ``inception_v3``, ``squeezenet1_0``, ...) with untrained weights.

    Raises:
        UsageError: if torchvision cannot be imported, or has no such model.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"The model 'torchvision/{name}' needs torchvision, which cannot be imported here "
            f"({str(error).splitlines()[0]}). Install the build that goes with your torch: "
            "pip install 'lotto-tickets[vision]'."
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("model of torchvision", name, known)
    more = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
    built: nn.Module = models.get_model(name, weights=None, num_classes=classes, **more)
    return built


def timm_model(name: str, channels: int, classes: int) -> nn.Module:
    """Build ``name`` of timm (``resnet10t``, ``vit_tiny_patch16_224``, ...) with untrained weights.

    Raises:
        UsageError: if timm cannot be imported, or has no such model.
    """
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"The model 'timm/{name}' needs timm, which cannot be imported here ({str(error).splitlines()[0]}). "
            "Install it and the torchvision that goes with your torch: pip install timm."
        ) from error
    if not timm.is_model(name):
        raise unknown("model of timm", name, timm.list_models())
    built: nn.Module = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=classes)
    return built
