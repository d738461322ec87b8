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
from lotto.training.learners.activations import RELU
from lotto.training.learners.batch_innermost import Pooling
from lotto.training.learners.descriptions import (
    Activate,
    Add,
    Convolve,
    Description,
    Node,
    Normalise,
    Pool,
    is_simple,
)


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
    layers = dict(module.named_modules())
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    normalised = {node.x for node in found.nodes if isinstance(node, Normalise)}
    convolutions = [(node.name, v in normalised) for v, node in enumerate(found.nodes, 1) if isinstance(node, Convolve)]
    return (
        {*found.layers} <= layers.keys()
        and {name.rpartition(".")[0] for name, _ in module.named_parameters()} == {*found.layers}
        and all(_is_convolution(layers[name], norm) for name, norm in convolutions)
        and all(_is_norm(layers[node.name]) for node in found.nodes if isinstance(node, Normalise))
        and all(type(layers[name]) is nn.Linear and layers[name].bias is not None for name in found.linear)
        and all(tensor.dtype == torch.float32 for tensor in tensors)
    )


def _is_convolution(layer: Any, normalised: bool) -> bool:
    """Whether a convolution is of the kind that ours are made with: with a bias where no BatchNorm follows."""
    kind = type(layer) in (nn.Conv1d, nn.Conv2d)
    return kind and is_simple(layer) and layer.groups == 1 and (layer.bias is None) == normalised


def _is_norm(layer: Any) -> bool:
    known = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    return known and layer.affine and layer.track_running_stats and layer.momentum is not None


class _Nodes:
    """Nodes one after another; each method adds some and gives the last one's value."""

    def __init__(self) -> None:
        self.all: list[Node] = []

    def add(self, node: Node) -> int:
        self.all.append(node)
        return len(self.all)

    def relu(self, x: int) -> int:
        return self.add(Activate(x, RELU))

    def unit(self, x: int, convolution: str, norm: str | None = None, relu: bool = True) -> int:
        x = self.add(Convolve(x, convolution))
        x = x if norm is None else self.add(Normalise(x, norm))
        return self.relu(x) if relu else x

    def described(self, flat: bool, *linear: str) -> Description:
        return Description(tuple(self.all), flat, linear, (None, *[RELU] * (len(linear) - 1)))


def _resnet(net: Any) -> Description | None:
    """A stem, blocks, the mean; the norms with a ReLU of their own are where their class puts them."""
    block, norm, other = (Block, NormReLU, nn.BatchNorm2d) if type(net) is ResNet else _ONE_DIMENSION
    if not isinstance(net.blocks, nn.Sequential) or type(net.bn) is not norm:
        return None
    nodes = _Nodes()
    x = nodes.unit(0, "conv", "bn")
    for i, part in enumerate(net.blocks.children()):
        if type(part) is not block or type(part.bn1) is not norm or type(part.bn2) is not norm:
            return None
        projected = type(part.shortcut) is nn.Sequential
        if projected and [type(layer) for layer in part.shortcut.children()][1:] != [other]:
            return None
        if not (projected or type(part.shortcut) is nn.Identity):
            return None
        x = _block(nodes, x, f"blocks.{i}.", projected, shortcut_first=type(net) is ResNet)
    return nodes.described(False, "fc")


def _block(nodes: _Nodes, x: int, at: str, projected: bool, shortcut_first: bool) -> int:
    """Two units, the shortcut before the second one's BatchNorm or after it, as the block's class has it."""

    def shortcut() -> int:
        return nodes.unit(x, at + "shortcut.0", at + "shortcut.1", relu=False) if projected else x

    out = nodes.unit(nodes.unit(x, at + "conv1", at + "bn1"), at + "conv2", relu=False)
    if shortcut_first:
        other = shortcut()
        out = nodes.add(Normalise(out, at + "bn2"))
    else:
        out = nodes.add(Normalise(out, at + "bn2"))
        other = shortcut()
    return nodes.relu(nodes.add(Add(out, other)))


def _vgg(net: Any) -> Description | None:
    """Convolutions with their norms, each with an identity after it; pooling between."""
    if type(net.features) is not nn.Sequential:
        return None
    nodes, layers, kinds = _Nodes(), list(net.features.children()), [type(layer) for layer in net.features.children()]
    i = x = 0
    while i < len(layers):
        if kinds[i : i + 3] == [nn.Conv2d, NormReLU, nn.Identity]:
            x = nodes.unit(x, f"features.{i}", f"features.{i + 1}")
            i += 3
        elif x and kinds[i] is nn.MaxPool2d and _is_halving(layers[i]):
            x = nodes.add(Pool(x, Pooling((2, 2))))
            i += 1
        else:
            return None
    return nodes.described(False, "fc")


def _is_halving(layer: Any) -> bool:
    plain = (layer.padding, layer.dilation, layer.return_indices, layer.ceil_mode) == (0, 1, False, False)
    return plain and (layer.kernel_size, layer.stride) == (2, 2)


def _conv(net: Any) -> Description | None:
    """Pairs of convolutions with biases, each with pooling after it, and three linear layers."""
    nodes, x = _Nodes(), 0
    for i in range(1, net.depth + 1):
        x = nodes.unit(x, f"conv{i}")
        if i % 2 == 0:
            x = nodes.add(Pool(x, Pooling((2, 2))))
    return nodes.described(True, "fc1", "fc2", "fc3")


def _conv1d(net: Any) -> Description | None:
    nodes, x = _Nodes(), 0
    for i in (1, 2, 3):
        x = nodes.unit(x, f"conv{i}")
    return nodes.described(True, "fc")


_ONE_DIMENSION = (Block1d, nn.BatchNorm1d, nn.BatchNorm1d)
_KINDS: dict[type[nn.Module], tuple[tuple[type[nn.Module], ...], Callable[[Any], Description | None]]] = {
    ResNet1d: ((Block1d, nn.Conv1d, nn.BatchNorm1d), _resnet),
    ResNet: ((Block, nn.Conv2d, NormReLU, nn.BatchNorm2d), _resnet),
    VGG: ((nn.Conv2d, NormReLU, nn.MaxPool2d), _vgg),
    Conv: ((nn.Conv2d,), _conv),
    Conv1d: ((nn.Conv1d,), _conv1d),
}
"""Networks: the types of their layers, and what describes them."""
