"""Architectures by name; plain modules that know nothing of masks, data or training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from lotto.core.errors import UsageError, unknown
from lotto.core.errors import text as _text
from lotto.models.bert import Bert
from lotto.models.conv import Conv, Conv1d
from lotto.models.from_transformers import transformers_model
from lotto.models.fully_connected import mlp
from lotto.models.gru import Gru
from lotto.models.resnet import ResNet
from lotto.models.resnet1d import ResNet1d
from lotto.models.vgg import PLANS, VGG
from lotto.models.vision import timm_model, torchvision_model

NAMES = (
    "lenet-300-100",
    "lenet-A-B",
    "mlp-A-B-...",
    "conv-2",
    "conv-4",
    "conv-6",
    "conv1d",
    "resnet-20",
    "resnet-N",
    "resnet-N-wW",
    "vgg-11",
    "vgg-13",
    "vgg-16",
    "vgg-19",
    "gru-N",
    "minilm-l6",
    "minilm-l6-tN",
    "torchvision/NAME",
    "timm/NAME",
    "transformers/FOLDER",
)
"""The names that a recipe understands; capital letters stand for whole numbers, NAME for a model of the package, FOLDER
for where `save_pretrained` of transformers has written one."""


def _resnet(depth: str, width: str | None, shape: Sequence[int], classes: int) -> nn.Module:
    if int(depth) < 8 or (int(depth) - 2) % 6:
        raise UsageError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, 32, ...); got {depth}.")
    if len(shape) < 3:
        return ResNet1d(int(depth), shape[0] if len(shape) == 2 else 1, classes, int(width or 16))
    return ResNet(int(depth), shape[0], classes, int(width or 16))


def build(name: str, shape: Sequence[int], classes: int) -> nn.Module:
    """Build the named architecture for inputs of ``shape`` (without the batch axis).

    Raises:
        UsageError: if the name is unknown (lists the choices) or it cannot read such inputs.

    >>> build("lenet-300-100", (1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    shape = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if not isinstance(name, str) or not all(
        type(size) is int and 0 < size < 2**31 for size in (*(shape or ("",)), classes)
    ):
        raise UsageError(
            "An architecture is built from its name, the shape of an input and a number of outputs, such as "
            f"build('lenet-300-100', (1, 28, 28), 10); got {_text(name)}, {_text(shape)}, {_text(classes)}."
        )
    images = len(shape) == 3
    patterns: list[tuple[str, bool, Callable[[re.Match[str]], nn.Module]]] = [
        (
            r"(?:lenet|mlp)((?:-\d+)+)",
            True,
            lambda m: mlp([int(w) for w in m[1].split("-")[1:]], shape, classes),
        ),
        (r"conv-([246])", images, lambda m: Conv(int(m[1]), shape, classes)),
        (r"conv1d", len(shape) in (1, 2), lambda m: Conv1d(shape[-1], classes)),
        (r"resnet-(\d+)(?:-w(\d+))?", len(shape) in (1, 2, 3), lambda m: _resnet(m[1], m[2], shape, classes)),
        (
            rf"vgg-({'|'.join(map(str, PLANS))})",
            images,
            lambda m: VGG(int(m[1]), shape[0], classes),
        ),
        (r"gru-(\d+)", len(shape) == 2 and shape[0] > 1, lambda m: Gru(shape[0], classes, int(m[1]))),
        (r"minilm-l6(?:-t(\d+))?", len(shape) == 1, lambda m: Bert(classes, reads=int(m[1]) if m[1] else None)),
        (r"torchvision/(\w+)", images, lambda m: torchvision_model(m[1], classes)),
        (r"timm/([\w.-]+)", images, lambda m: timm_model(m[1], shape[0], classes)),
        (r"transformers/(.+)", True, lambda m: transformers_model(m[1])()),
    ]
    for pattern, supported, make in patterns:
        if match := re.fullmatch(pattern, name):
            if not supported:
                raise UsageError(f"The model {name!r} cannot read inputs of shape {tuple(shape)}.")
            return make(match)
    raise unknown("model", name, NAMES)
