"""Architectures of torchvision, which is an optional extra and imported only when one is built."""

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
