"""Layers after convolutions, over activations with the batch innermost: BatchNorm or a bias, a sum, ReLU, pooling.

A layer knows where its parameters stand in the vector of all; a pass is a layer with the places of its activations, for
one size of batch, and gives the instructions (see `program`) that compute it.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lotto.training.learners import program
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
    """``relu(BatchNorm(x) + added)`` for one size of inputs.

    Args:
        layer: BatchNorm.
        workspace: of all planes.
        x, added, out: see above; ``added`` may be None.
        back: the gradient of ``x``.
        relu: whether ReLU follows.
        frozen: whether it is by the running statistics.
    """

    def __init__(
        self,
        layer: Norm,
        workspace: Workspace,
        x: Plane,
        added: Plane | None,
        out: Plane,
        back: Plane | None,
        relu: bool,
        frozen: bool = False,
    ) -> None:
        self.layer, self.x, self.added, self.out = layer, x, added, out
        self.back, self.relu, self.frozen = back or x, relu, frozen
        self.moments = workspace.take_moments(layer.channels)

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs; move the running statistics."""
        yield self._row(program.NORMALISE, self.back)

    def backward(self, given: Plane) -> Iterator[np.ndarray]:
        """Set all gradients; with ReLU, that of the outputs becomes that of what was added."""
        yield self._row(program.NORMALISE_BACK, given)

    def _row(self, what: int, given: Plane) -> np.ndarray:
        layer, x, added = self.layer, self.x, self.added or self.x
        layouts = [number for plane in (x, added, self.out, given, self.back) for number in plane.layout]
        parameters = (layer.weight, layer.bias, layer.mean, layer.variance, self.moments, layer.number)
        flags = (self.added is not None, self.relu, self.frozen)
        return program.row(what, *x.runs, layer.channels, *layouts, *parameters, *flags)


class Bias(NamedTuple):
    """A number for each channel: where they begin in the vector of parameters."""

    channels: int
    place: int


class BiasPass:
    """``x + bias`` for one size of inputs, with ReLU or without.

    Args:
        layer: the bias.
        x, out: inputs and outputs; without ReLU they may be the same.
        back: the gradient of ``x``; without ReLU it may be that of ``out``.
        relu: whether ReLU follows.
    """

    def __init__(self, layer: Bias, x: Plane, out: Plane, back: Plane | None, relu: bool = True) -> None:
        self.layer, self.x, self.out, self.back, self.relu = layer, x, out, back or x, relu

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs."""
        yield self._row(program.SHIFT, self.x, self.out)

    def backward(self, given: Plane) -> Iterator[np.ndarray]:
        """Set the gradients of inputs and bias."""
        yield self._row(program.SHIFT_BACK, given, self.back)

    def _row(self, what: int, read: Plane, written: Plane) -> np.ndarray:
        layouts = [number for plane in (read, written, self.out) for number in plane.layout]
        return program.row(what, *self.x.runs, self.layer.channels, *layouts, self.layer.place, self.relu)


class PoolingPass:
    """Pooling for one size of inputs.

    Args:
        layer: the pooling.
        x, out: inputs and outputs.
        given, back: the gradients of outputs and inputs; None = they are not asked for.
    """

    def __init__(
        self, layer: Pooling, x: Plane, out: Plane, given: Plane | None = None, back: Plane | None = None
    ) -> None:
        self.layer, self.x, self.out, self.given, self.back = layer, x, out, given or out, back or x

    def forward(self) -> Iterator[np.ndarray]:
        """Set the outputs."""
        yield self._row(program.AVERAGE if self.layer.average else program.GREATEST)

    def backward(self) -> Iterator[np.ndarray]:
        """Set the inputs' gradient."""
        yield self._row(program.AVERAGE_BACK if self.layer.average else program.GREATEST_BACK)

    def _row(self, what: int) -> np.ndarray:
        layouts = [number for plane in (self.x, self.out, self.given, self.back) for number in plane.layout]
        layer = self.layer
        block = (*layer.size, *layer.step, *layer.padding)
        return program.row(what, *self.out.places, self.x.channels, *layouts, *self.x.size, *block)
