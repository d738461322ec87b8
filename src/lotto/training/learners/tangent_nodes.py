"""The steps of a network, in evaluation mode, as sums of convolutions: what `tangent_pass` knows how to move.

Importing this module needs numba.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lotto.training.learners.activations import RELU
from lotto.training.learners.after_layers import Bias, Norm
from lotto.training.learners.batch_innermost import Pair, Pooling
from lotto.training.learners.conv_layers import Convolution
from lotto.training.learners.steps import AfterStep, ConvolutionStep, PoolingStep, Step


@dataclass
class Way:
    """A convolution to a sum: its weights, the direction's, and the number of the activation that it reads."""

    weights: Convolution
    direction: Convolution
    source: int

    @property
    def is_directed(self) -> bool:
        """Whether the direction has any weight here."""
        return bool(self.direction.mask.any())


@dataclass
class Activation:
    """The inputs, a sum of convolutions and perhaps of another activation, with a bias and perhaps ReLU, or pooling.

    Attributes:
        channels, size: its own.
        ways: the convolutions; of pooling none.
        bias: where it begins in the vector of all numbers.
        added: the number of the activation that is added.
        relu: whether ReLU follows.
        pooling: of which activation, and how.
        moves: whether it depends on what the direction moves.
    """

    channels: int
    size: Pair
    ways: list[Way] = field(default_factory=list)
    bias: int = 0
    added: int | None = None
    relu: bool = False
    pooling: tuple[Pooling, int] | None = None
    moves: bool = False

    @property
    def sources(self) -> list[int]:
        """The numbers of the activations that it is computed from."""
        read = [way.source for way in self.ways] if self.pooling is None else [self.pooling[1]]
        return read if self.added is None else [*read, self.added]


class Unit(NamedTuple):
    """A convolution, and the bias and BatchNorm that follow it."""

    convolution: Convolution
    bias: Bias | None = None
    norm: Norm | None = None


class Unsuited(Exception):
    """A network that is no such sums."""


class _Sum(NamedTuple):
    """What no activation has been made of yet: units with the direction's convolutions and what they read, and more."""

    units: tuple[Unit, ...] = ()
    directions: tuple[Convolution, ...] = ()
    sources: tuple[int, ...] = ()
    added: tuple[int, ...] = ()

    def plus(self, other: _Sum) -> _Sum:
        """Both."""
        units, directions = self.units + other.units, self.directions + other.directions
        return _Sum(units, directions, self.sources + other.sources, self.added + other.added)


def activations(
    steps: Sequence[Step], directions: Sequence[Step], channels: int, size: Pair, bias: Callable[[Sequence[Unit]], int]
) -> list[Activation]:
    """A network's activations in the order in which they are computed.

    Args:
        steps, directions: see `network_pass.Network`, with the weights and with the direction.
        channels, size: of the inputs.
        bias: the place of the bias of a sum of units.

    Raises:
        Unsuited: if it is none of convolutions, BatchNorms after them, biases, ReLU, sums and pooling.
    """
    made = _Reader(steps, channels, size, bias)
    for step, direction in zip(steps, directions, strict=True):
        made.read(step, direction)
    made.number(steps[-1].out)
    made.check()
    return made.found


class _Reader:
    def __init__(self, steps: Sequence[Step], channels: int, size: Pair, bias: Callable[[Sequence[Unit]], int]) -> None:
        self.found, self.bias = [Activation(channels, size)], bias
        self.readers = Counter(v for s in steps for v in (s.x, getattr(s, "added", None)) if v is not None)
        self.values: dict[int, int | _Sum] = {0: 0}

    def read(self, step: Step, direction: Step) -> None:
        """Add what a step gives."""
        if isinstance(step, ConvolutionStep):
            assert isinstance(direction, ConvolutionStep)
            self.values[step.out] = _Sum((Unit(step.layer),), (direction.layer,), (self.number(step.x),))
        elif isinstance(step, PoolingStep):
            source = self.number(step.x)
            x = self.found[source]
            self._append(step.out, Activation(x.channels, step.pooling.outputs(x.size), pooling=(step.pooling, source)))
        else:
            self._after(step)

    def _after(self, step: AfterStep) -> None:
        total = self._sum(step.x)
        if step.layer is not None:
            if len(total.units) != 1 or total.added or total.units[0].norm is not None:
                raise Unsuited("a BatchNorm or bias that follows no convolution")
            (unit,) = total.units
            unit = unit._replace(norm=step.layer) if isinstance(step.layer, Norm) else unit._replace(bias=step.layer)
            total = total._replace(units=(unit,))
        if step.added is not None:
            total = total.plus(self._sum(step.added))
        if step.activation not in (None, RELU):
            raise Unsuited("an activation other than ReLU")
        if step.activation is None and not (len(total.added) > 1 or not total.units):
            self.values[step.out] = total
        else:
            self._settle(step.out, total, step.activation is not None)

    def _sum(self, value: int) -> _Sum:
        """A value as a sum; what others read, too, is computed once."""
        if self.readers[value] > 1:
            self.number(value)
        found = self.values[value]
        return found if isinstance(found, _Sum) else _Sum(added=(found,))

    def number(self, value: int) -> int:
        """The number of the activation that a value is."""
        found = self.values[value]
        if isinstance(found, _Sum):
            self._settle(value, found, relu=False)
        number = self.values[value]
        assert isinstance(number, int)
        return number

    def _settle(self, value: int, total: _Sum, relu: bool) -> None:
        if not total.units or len(total.added) > 1:
            raise Unsuited("a sum of other things than convolutions and one activation")
        ways = [Way(u.convolution, d, i) for u, d, i in zip(total.units, total.directions, total.sources, strict=True)]
        layer, source = ways[0].weights, self.found[ways[0].source]
        made = Activation(layer.outputs, layer.shape.outputs(source.size), ways)
        made.bias, made.added, made.relu = self.bias(total.units), next(iter(total.added), None), relu
        self._append(value, made)

    def _append(self, value: int, made: Activation) -> None:
        made.moves = any(way.is_directed for way in made.ways) or any(self.found[i].moves for i in made.sources)
        self.found.append(made)
        self.values[value] = len(self.found) - 1

    def check(self) -> None:
        """That gradients come to each activation as the passes expect it.

        Raises:
            Unsuited: if they do not.
        """
        added = Counter(node.added for node in self.found if node.added is not None)
        pooled = [node.pooling[1] for node in self.found if node.pooling is not None]
        ways = Counter(way.source for node in self.found for way in node.ways)
        for i in range(len(self.found) - 1):
            if added[i] > 1 or not (ways[i] or i in pooled):
                raise Unsuited("an activation that is only added, or to several sums")
            if i in pooled and (pooled.count(i) > 1 or ways[i] or added[i]):
                raise Unsuited("pooling of what others read, too")
