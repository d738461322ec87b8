"""What is said of a convolutional network: which layers of known kinds read what, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from lotto.training.learners.activations import Activation
from lotto.training.learners.batch_innermost import Pair, Pooling, Shape


@dataclass(frozen=True)
class Convolve:
    """A convolution by its module's name, of the value ``x``."""

    x: int
    name: str


@dataclass(frozen=True)
class Normalise:
    """BatchNorm by its module's name, of the value ``x``."""

    x: int
    name: str


@dataclass(frozen=True)
class Add:
    """``x + other``, two values of one shape."""

    x: int
    other: int


@dataclass(frozen=True)
class Activate:
    """An activation of the value ``x``."""

    x: int
    activation: Activation


@dataclass(frozen=True)
class Pool:
    """Pooling of the value ``x``."""

    x: int
    pooling: Pooling


Node = Convolve | Normalise | Add | Activate | Pool


class Description(NamedTuple):
    """A network.

    Attributes:
        nodes: the i-th gives value i + 1, of values before; value 0 are the inputs. All lead to the last one.
        flat: whether linear layers read all places of the last value; else the mean over them.
        linear: the linear layers, one after another.
        before: what each of them reads its inputs through, or None.
    """

    nodes: tuple[Node, ...]
    flat: bool
    linear: tuple[str, ...]
    before: tuple[Activation | None, ...]

    @property
    def layers(self) -> list[str]:
        """The names of all layers."""
        return [*(node.name for node in self.nodes if isinstance(node, Convolve | Normalise)), *self.linear]

    @property
    def trained(self) -> set[int]:
        """The values that depend on parameters, so that gradients with respect to them are asked for."""
        found: set[int] = set()
        for value, node in enumerate(self.nodes, 1):
            if isinstance(node, Convolve | Normalise) or found & {*inputs_of(node)}:
                found.add(value)
        return found


def inputs_of(node: Node) -> tuple[int, ...]:
    """The values that a node reads."""
    return (node.x, node.other) if isinstance(node, Add) else (node.x,)


class Layer(NamedTuple):
    """A convolution with what follows it, as it is timed.

    Attributes:
        shape: of the kernel.
        inputs, outputs: channels.
        size: height and width of the inputs.
        first: whether nobody asks for the inputs' gradient.
        norm: whether BatchNorm follows; else a bias is timed.
        groups: of inputs and outputs.
    """

    shape: Shape
    inputs: int
    outputs: int
    size: Pair
    first: bool
    norm: bool
    groups: int = 1


class LinearLayer(NamedTuple):
    """A linear layer, as it is timed.

    Attributes:
        inputs, outputs: features.
    """

    inputs: int
    outputs: int


def linear_layers_of(module: nn.Module, found: Description) -> dict[str, LinearLayer]:
    """The linear layers of a network by name."""
    layers: dict[str, Any] = {name: module.get_submodule(name) for name in found.linear}
    return {name: LinearLayer(layer.in_features, layer.out_features) for name, layer in layers.items()}


def channels_and_size(shape: Sequence[int]) -> tuple[int, Pair]:
    """Of inputs (positions,), (channels, positions) or (channels, height, width): channels, and (height, width)."""
    channels, *size = shape if len(shape) > 1 else (1, *shape)
    return channels, ((size[0] if len(size) == 2 else 1), size[-1])


def shape_of(layer: Any) -> Shape:
    """Of a convolution of one or two dimensions."""
    return Shape(*(_pair(getattr(layer, what), fill) for what, fill in _SHAPE))


_SHAPE = (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))


def _pair(sizes: Sequence[int], fill: int) -> Pair:
    """Height and width; what has one dimension has the height ``fill``."""
    return (sizes[-2] if len(sizes) == 2 else fill), sizes[-1]


def last_size(module: nn.Module, found: Description, shape: Sequence[int]) -> Pair:
    """Height and width of the last activations for inputs of a shape."""
    return sizes(module, found, shape)[-1]


def layers_of(module: nn.Module, found: Description, shape: Sequence[int]) -> dict[str, Layer]:
    """The convolutions of a network by name, for inputs of a shape."""
    layers, size, trained = {}, sizes(module, found, shape), found.trained
    normalised = {node.x for node in found.nodes if isinstance(node, Normalise)}
    for value, node in enumerate(found.nodes, 1):
        if isinstance(node, Convolve):
            layer: Any = module.get_submodule(node.name)
            about = (node.x not in trained, value in normalised, layer.groups)
            layers[node.name] = Layer(shape_of(layer), layer.in_channels, layer.out_channels, size[node.x], *about)
    return layers


def sizes(module: nn.Module, found: Description, shape: Sequence[int]) -> list[Pair]:
    """Heights and widths of all values."""
    known = [channels_and_size(shape)[1]]
    for node in found.nodes:
        size = known[node.x]
        if isinstance(node, Convolve):
            size = shape_of(module.get_submodule(node.name)).outputs(size)
        known.append(node.pooling.outputs(size) if isinstance(node, Pool) else size)
    return known


def is_simple(convolution: Any) -> bool:
    """Whether a convolution pads with zeros, by so many places: `shape_of` says all of it."""
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def of_images(module: nn.Module) -> bool:
    """Whether a network has convolutions of two dimensions."""
    return any(isinstance(layer, nn.Conv2d) for layer in module.modules())
