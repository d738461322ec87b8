"""What is said of a convolutional network: which layers of known kinds stand in which order, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from lotto.training.learners.batch_innermost import Pair, Pooling, Shape


class UnitNames(NamedTuple):
    """A convolution, with or without a bias, and perhaps its BatchNorm and ReLU.

    Attributes:
        convolution, norm: names of the modules.
        relu: whether ReLU follows; that of a block's last one follows the sum.
    """

    convolution: str
    norm: str | None = None
    relu: bool = True


class BlockNames(NamedTuple):
    """Units one after another, and one of the shortcut or None; see `network_pass.Block`."""

    main: tuple[UnitNames, ...]
    shortcut: UnitNames | None


class Description(NamedTuple):
    """A network.

    Attributes:
        parts: what inputs go through.
        flat: whether linear layers read all places; else the mean over them.
        linear: the linear layers, with ReLU between them.
    """

    parts: Sequence[UnitNames | BlockNames | Pooling]
    flat: bool
    linear: Sequence[str]

    @property
    def units(self) -> list[UnitNames]:
        """All units, those of shortcuts last."""
        blocks = [part for part in self.parts if isinstance(part, BlockNames)]
        plain = [part for part in self.parts if isinstance(part, UnitNames)]
        inner = [unit for block in blocks for unit in block.main]
        return [*plain, *inner, *(block.shortcut for block in blocks if block.shortcut is not None)]


class Layer(NamedTuple):
    """A convolution with what follows it, as it is timed.

    Attributes:
        shape: of the kernel.
        inputs, outputs: channels.
        size: height and width of the inputs.
        first: whether nobody asks for the inputs' gradient.
        norm: whether BatchNorm follows; else a bias.
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
    return _sized(module, found, shape)[1]


def layers_of(module: nn.Module, found: Description, shape: Sequence[int]) -> dict[str, Layer]:
    """The convolutions of a network by name, for inputs of a shape."""
    layers = {}
    for i, (unit, size) in enumerate(_sized(module, found, shape)[0]):
        layer: Any = module.get_submodule(unit.convolution)
        channels = (layer.in_channels, layer.out_channels)
        layers[unit.convolution] = Layer(shape_of(layer), *channels, size, i == 0, unit.norm is not None, layer.groups)
    return layers


def _sized(module: nn.Module, found: Description, shape: Sequence[int]) -> tuple[list[tuple[UnitNames, Pair]], Pair]:
    """All units with the height and width of their inputs, and of the last activations."""
    _, size = channels_and_size(shape)
    sized: list[tuple[UnitNames, Pair]] = []

    def add(unit: UnitNames, size: Pair) -> Pair:
        sized.append((unit, size))
        return shape_of(module.get_submodule(unit.convolution)).outputs(size)

    for part in found.parts:
        if isinstance(part, Pooling):
            size = part.outputs(size)
        elif isinstance(part, UnitNames):
            size = add(part, size)
        else:
            if part.shortcut is not None:
                add(part.shortcut, size)
            for unit in part.main:
                size = add(unit, size)
    return sized, size


def is_simple(convolution: Any) -> bool:
    """Whether a convolution pads with zeros, by so many places: `shape_of` says all of it."""
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def of_images(module: nn.Module) -> bool:
    """Whether a network has convolutions of two dimensions."""
    return any(isinstance(layer, nn.Conv2d) for layer in module.modules())
