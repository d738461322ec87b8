"""Layers beside convolutions: BatchNorm or a bias, sums, activations, pooling; the batch is innermost.

A layer knows where its parameters stand in the vector of all; a pass is a layer with the places of its activations, for
one size of batch, and gives the instructions (see `program`) that compute it.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lotto.training.learners import program
from lotto.training.learners.activations import NOTHING, Activation
from lotto.training.learners.batch_innermost import Plane, Pooling, Workspace


class Norm(NamedTuple):
    """BatchNorm: where its parameters and running statistics begin in the vectors of all.

    Attributes:
        channels: of the inputs.
        weight, bias: in the vector of parameters.
        mean, variance: in that of running statistics.
        number: the row of its momentum and eps.
    """

    channels: int
    weight: int
    bias: int
    mean: int
    variance: int
    number: int


class NormPass:
    """``act(BatchNorm(x) + added)`` for one size of inputs.

    Args:
        layer: BatchNorm.
        workspace: of all planes.
        x, added, out: see above; ``added`` may be None.
        activation: what follows, or None.
        frozen: whether it is by the running statistics.
    """

    def __init__(
        self,
        layer: Norm,
        workspace: Workspace,
        x: Plane,
        added: Plane | None,
        out: Plane,
        activation: Activation | None,
        frozen: bool = False,
    ) -> None:
        self.layer, self.x, self.added, self.out = layer, x, added, out
        self.activation, self.frozen = activation, frozen
        self.moments = workspace.take_moments(layer.channels)

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs; move the running statistics."""
        yield self._row(program.NORMALISE, self.out, self.out, False)

    def backward(self, given: Plane, back: Plane, more: bool = False) -> Iterator[np.ndarray]:
        """Set all gradients, or add to that of the inputs, ``back``; ``given`` becomes that of what was added."""
        yield self._row(program.NORMALISE_BACK, given, back, more)

    def _row(self, what: int, given: Plane, back: Plane, more: bool) -> np.ndarray:
        layer, x, added = self.layer, self.x, self.added or self.x
        layouts = [number for plane in (x, added, self.out, given, back) for number in plane.layout]
        parameters = (layer.weight, layer.bias, layer.mean, layer.variance, self.moments, layer.number)
        flags = (self.added is not None, self.frozen, more)
        return program.row(what, *x.runs, layer.channels, *layouts, *parameters, *flags, *_numbers(self.activation))


class Bias(NamedTuple):
    """A number for each channel: where they begin in the vector of parameters."""

    channels: int
    place: int


class ShiftPass:
    """``act(x + bias + added)`` for one size of inputs.

    Args:
        layer: the bias, or None.
        x, added, out: see above; ``added`` may be None, ``out`` may be ``x``.
        activation: what follows, or None.
    """

    def __init__(
        self, layer: Bias | None, x: Plane, added: Plane | None, out: Plane, activation: Activation | None
    ) -> None:
        self.layer, self.x, self.added, self.out, self.activation = layer, x, added, out, activation

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs."""
        yield self._row(program.SHIFT, self.x, self.added or self.x, self.added is not None)

    def backward(self, given: Plane, back: Plane, more: bool = False) -> Iterator[np.ndarray]:
        """Set the gradients of the bias and of what it was added to, or add to the latter, ``back``.

        Without ``more`` that may be ``given``.
        """
        yield self._row(program.SHIFT_BACK, given, back, more)

    def _row(self, what: int, read: Plane, second: Plane, flag: bool) -> np.ndarray:
        layouts = [number for plane in (read, second, self.out) for number in plane.layout]
        bias = (0, 0) if self.layer is None else (self.layer.place, self.layer.place + self.layer.channels)
        return program.row(what, *self.x.runs, self.x.channels, *layouts, *bias, flag, *_numbers(self.activation))


def _numbers(activation: Activation | None) -> tuple[int, int, int, int]:
    return NOTHING if activation is None else activation.numbers


class PoolingPass:
    """Pooling for one size of inputs.

    Args:
        layer: the pooling.
        x, out: inputs and outputs.
    """

    def __init__(self, layer: Pooling, x: Plane, out: Plane) -> None:
        self.layer, self.x, self.out = layer, x, out

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs."""
        yield self._row(program.AVERAGE if self.layer.average else program.GREATEST, self.out, self.x, False)

    def backward(self, given: Plane, back: Plane, more: bool = False) -> Iterator[np.ndarray]:
        """Set the inputs' gradient, or add to it."""
        yield self._row(program.AVERAGE_BACK if self.layer.average else program.GREATEST_BACK, given, back, more)

    def _row(self, what: int, given: Plane, back: Plane, more: bool) -> np.ndarray:
        layouts = [number for plane in (self.x, self.out, given, back) for number in plane.layout]
        layer = self.layer
        block = (*layer.size, *layer.step, *layer.padding)
        return program.row(what, *self.out.places, self.x.channels, *layouts, *self.x.size, *block, more)
