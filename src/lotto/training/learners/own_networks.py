"""Networks of ours as descriptions: as their classes' code says, for modules that nobody has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lotto.models.conv import Conv, Conv1d
from lotto.models.norm_relu import NormReLU
from lotto.models.plain import is_plain
from lotto.models.resnet import Block, ResNet
from lotto.models.resnet1d import Block1d, ResNet1d
from lotto.models.vgg import VGG
from lotto.training.learners.batch_innermost import Pooling
from lotto.training.learners.descriptions import BlockNames, Description, UnitNames, is_simple


def own_description(module: nn.Module) -> Description | None:
    """What a network of ours computes; None for any other, for one that someone has changed, or not in float32."""
    kind = type(module)
    if kind not in _KINDS:
        return None
    parts, describe = _KINDS[kind]
    if not is_plain(module, {kind, nn.Identity, nn.Sequential, nn.Linear, *parts}):
        return None
    found = describe(module)
    return found if found is not None and _is_as_described(module, found) else None


def _is_as_described(module: nn.Module, found: Description) -> bool:
    """Whether all layers are there, of the kinds that ours are made with, and no others have parameters."""
    names = {name for unit in found.units for name in (unit.convolution, unit.norm) if name} | {*found.linear}
    layers = dict(module.named_modules())
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    return (
        names <= layers.keys()
        and {name.rpartition(".")[0] for name, _ in module.named_parameters()} == names
        and all(_is_unit(layers[unit.convolution], layers.get(unit.norm or "")) for unit in found.units)
        and all(type(layers[name]) is nn.Linear and layers[name].bias is not None for name in found.linear)
        and all(tensor.dtype == torch.float32 for tensor in tensors)
    )


def _is_unit(layer: Any, norm: Any) -> bool:
    """Whether a convolution and what follows are of the kind that ours are made with."""
    if type(layer) not in (nn.Conv1d, nn.Conv2d):
        return False
    plain = is_simple(layer) and layer.groups == 1
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):  # the module itself: there is none
        return plain and layer.bias is not None
    known = norm.affine and norm.track_running_stats and norm.momentum is not None
    return bool(plain and layer.bias is None and known)


def _resnet(net: Any) -> Description | None:
    """A stem, blocks, the mean; the norms with a ReLU of their own are where their class puts them."""
    block, norm, other = (Block, NormReLU, nn.BatchNorm2d) if type(net) is ResNet else _ONE_DIMENSION
    if type(net.blocks) is not nn.Sequential or type(net.bn) is not norm:
        return None
    parts: list[UnitNames | BlockNames | Pooling] = [UnitNames("conv", "bn")]
    for i, part in enumerate(net.blocks):
        at, shortcut = f"blocks.{i}.", None
        if type(part) is not block or type(part.bn1) is not norm or type(part.bn2) is not norm:
            return None
        if isinstance(part.shortcut, nn.Sequential):
            changes = part.conv1.stride[-1] > 1 or part.conv1.in_channels != part.conv2.out_channels
            if not changes or [type(layer) for layer in part.shortcut][1:] != [other]:
                return None
            shortcut = UnitNames(at + "shortcut.0", at + "shortcut.1", relu=False)
        elif type(part.shortcut) is not nn.Identity:
            return None
        parts.append(BlockNames((UnitNames(at + "conv1", at + "bn1"), UnitNames(at + "conv2", at + "bn2")), shortcut))
    return Description(parts, False, ["fc"])


def _vgg(net: Any) -> Description | None:
    """Convolutions with their norms, each with an identity after it; pooling between."""
    if type(net.features) is not nn.Sequential:
        return None
    parts: list[UnitNames | BlockNames | Pooling] = []
    layers, kinds = list(net.features), [type(layer) for layer in net.features]
    i = 0
    while i < len(layers):
        if kinds[i : i + 3] == [nn.Conv2d, NormReLU, nn.Identity]:
            parts.append(UnitNames(f"features.{i}", f"features.{i + 1}"))
            i += 3
        elif parts and kinds[i] is nn.MaxPool2d and _is_halving(layers[i]):
            parts.append(Pooling((2, 2)))
            i += 1
        else:
            return None
    return Description(parts, False, ["fc"])


def _is_halving(layer: Any) -> bool:
    plain = (layer.padding, layer.dilation, layer.return_indices, layer.ceil_mode) == (0, 1, False, False)
    return plain and (layer.kernel_size, layer.stride) == (2, 2)


def _conv(net: Any) -> Description | None:
    """Pairs of convolutions with biases, each with pooling after it, and three linear layers."""
    parts: list[UnitNames | BlockNames | Pooling] = []
    for i in range(1, net.depth + 1):
        parts.append(UnitNames(f"conv{i}"))
        if i % 2 == 0:
            parts.append(Pooling((2, 2)))
    return Description(parts, True, ["fc1", "fc2", "fc3"])


def _conv1d(net: Any) -> Description | None:
    return Description([UnitNames(f"conv{i}") for i in (1, 2, 3)], True, ["fc"])


_ONE_DIMENSION = (Block1d, nn.BatchNorm1d, nn.BatchNorm1d)
_KINDS: dict[type[nn.Module], tuple[tuple[type[nn.Module], ...], Callable[[Any], Description | None]]] = {
    ResNet1d: ((Block1d, nn.Conv1d, nn.BatchNorm1d), _resnet),
    ResNet: ((Block, nn.Conv2d, NormReLU, nn.BatchNorm2d), _resnet),
    VGG: ((nn.Conv2d, NormReLU, nn.MaxPool2d), _vgg),
    Conv: ((nn.Conv2d,), _conv),
    Conv1d: ((nn.Conv1d,), _conv1d),
}
"""Networks: the types of their layers, and what describes them."""
