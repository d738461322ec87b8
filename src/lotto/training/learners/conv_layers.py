"""Layers over activations with the batch innermost: convolutions, BatchNorm with a sum and ReLU, blocks of a ResNet.

A layer has its parameters and their gradients as arrays that somebody else holds; what a batch needs lies in its
`Plane`s, which are made once for a size of batch.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lotto.training.learners import batchnorm_kernels, conv_kernels
from lotto.training.learners.batch_innermost import LANES, TOGETHER, Entries, Pair, Plane, Shape, entries

DENSE, SPARSE = TOGETHER, 1
"""Rows of a block."""


class Part(NamedTuple):
    """Inputs whose gradients are sums over the same weights, one in every ``stride``.

    Attributes:
        first: row and column of the first.
        entries: which weights.
    """

    first: Pair
    entries: Entries


class Convolution:
    """A convolution without bias.

    Args:
        shape: of the kernel.
        weight, gradient: flat views of the parameter and its gradient; where ``mask`` is False the gradient is never
            written.
        mask: shape (outputs, inputs, height, width).
        rows: `DENSE` or `SPARSE`.
    """

    def __init__(self, shape: Shape, weight: np.ndarray, gradient: np.ndarray, mask: np.ndarray, rows: int) -> None:
        self.shape, self.weight, self.gradient, self.mask, self.rows = shape, weight, gradient, mask, rows
        self.outputs, self.inputs = mask.shape[:2]
        self.places = np.arange(mask.size).reshape(mask.shape)

    def forward_entries(self, x: Plane) -> Entries:
        """For outputs of inputs."""
        taps = [h * self.shape.dilation[0] * x.row + w * self.shape.dilation[1] * x.column for h, w in self.shape.taps]
        offsets = np.add.outer(np.arange(self.inputs) * x.channel, taps).reshape(-1)
        flat = (self.outputs, -1)
        return entries(self.mask.reshape(flat), self.places.reshape(flat), offsets, self.rows)

    def backward_entries(self, g: Plane) -> list[Part]:
        """For inputs' gradients of outputs' gradients: which weights meet an input depends on its place."""
        shape, parts = self.shape, []
        for first in np.ndindex(*shape.stride):
            taps, places = [], []
            for i, tap in enumerate(shape.taps):
                found = [
                    divmod(first[d] + shape.padding[d] - tap[d] * shape.dilation[d], shape.stride[d]) for d in range(2)
                ]
                if not any(rest for _, rest in found):
                    taps.append(found[0][0] * g.row + found[1][0] * g.column)
                    places.append(i)
            offsets = np.add.outer(np.arange(self.outputs) * g.channel, np.array(taps, np.int64)).reshape(-1)
            flat = (self.inputs, len(offsets))  # perhaps none
            kept, at = (
                a.reshape(self.outputs, self.inputs, -1)[:, :, places].transpose(1, 0, 2).reshape(flat)
                for a in (self.mask, self.places)
            )
            parts.append(Part((first[0], first[1]), entries(kept, at, offsets, self.rows)))
        return parts


class ConvolutionPass:
    """A convolution for one size of inputs.

    Args:
        layer: the convolution.
        x: the inputs.
        out: the outputs.
        given: the outputs' gradient, with as many zeros around as `Shape.back_reach` says.
        back: the inputs' gradient; None = nobody asks for it.
    """

    def __init__(self, layer: Convolution, x: Plane, out: Plane, given: Plane, back: Plane | None) -> None:
        self.layer, self.x, self.out, self.given, self.back = layer, x, out, given, back
        self.forward_list = layer.forward_entries(x)
        self.parts = [] if back is None else layer.backward_entries(given)
        largest = max(len(e.places) for e in (self.forward_list, *(part.entries for part in self.parts)))
        self.packed = np.zeros(largest, np.float32)
        self.vectors = out.column // LANES
        stride, padding = layer.shape.stride, layer.shape.padding
        self.read = (x.start - padding[0] * x.row - padding[1] * x.column, stride[0] * x.row, stride[1] * x.column)

    def forward(self) -> None:
        """Set the outputs."""
        written = (self.out.start, self.out.row, self.out.column, self.out.channel)
        geometry = (*self.out.size, self.vectors, *self.read, *written)
        self._correlate(self.x, self.out, self.forward_list, geometry, False)

    def weight_gradient(self) -> None:
        """Set the weight's gradient."""
        read = (self.given.start, self.given.row, self.given.column, self.given.channel)
        geometry, list_ = (*self.out.size, self.vectors, *self.read, *read), self.forward_list
        conv_kernels.products(self.x.memory, self.given.memory, self.packed, *list_[:3], list_.rows, geometry)
        conv_kernels.unpack(self.packed, list_.places, self.layer.gradient)

    def input_gradient(self, more: bool) -> None:
        """Set the inputs' gradient, or add to it."""
        assert self.back is not None
        stride, back, given = self.layer.shape.stride, self.back, self.given
        for (h, w), list_ in self.parts:
            height, width = (
                -(-(size - first) // step) for size, first, step in zip(back.size, (h, w), stride, strict=True)
            )
            if height <= 0 or width <= 0 or (more and not len(list_.offsets)):
                continue
            written = (back.start + h * back.row + w * back.column, stride[0] * back.row, stride[1] * back.column)
            read = (given.start, given.row, given.column)
            geometry = (height, width, self.vectors, *read, *written, back.channel)
            self._correlate(given, back, list_, geometry, more)

    def _correlate(self, x: Plane, out: Plane, list_: Entries, geometry: tuple[int, ...], more: bool) -> None:
        conv_kernels.pack(self.layer.weight, list_.places, self.packed)
        conv_kernels.correlate(x.memory, out.memory, self.packed, *list_[:3], list_.rows, geometry, more)


class Norm:
    """BatchNorm's parameters, their gradients, and running statistics; arrays of shape (channels,)."""

    def __init__(
        self,
        affine: tuple[np.ndarray, np.ndarray],
        gradients: tuple[np.ndarray, np.ndarray],
        running: tuple[np.ndarray, np.ndarray],
        momentum: float,
        eps: float,
    ) -> None:
        self.affine, self.gradients, self.running = affine, gradients, running
        self.momentum, self.eps = momentum, eps


class NormPass:
    """``relu(BatchNorm(x) + added)`` for one size of inputs.

    Args:
        layer: BatchNorm.
        x, added, out: see above; ``added`` may be None.
        back: the gradient of ``x``.
        relu: whether ReLU follows.
    """

    def __init__(self, layer: Norm, x: Plane, added: Plane | None, out: Plane, back: Plane, relu: bool) -> None:
        self.layer, self.x, self.added, self.out, self.back, self.relu = layer, x, added, out, back, relu
        self.moments = np.zeros((2, x.channels))

    def forward(self) -> None:
        """Set the outputs; move the running statistics."""
        layer, x, out, added = self.layer, self.x, self.out, self.added or self.x
        how = (layer.momentum, layer.eps, self.added is not None, self.relu)
        batchnorm_kernels.normalise(
            x.memory, x.layout, added.memory, added.layout, out.memory, out.layout, x.runs,
            layer.affine, layer.running, self.moments, how,
        )  # fmt: skip

    def backward(self, given: Plane) -> None:
        """Set all gradients; with ReLU, that of the outputs becomes that of what was added."""
        x, out, back = self.x, self.out, self.back
        batchnorm_kernels.normalise_back(
            x.memory, x.layout, out.memory, out.layout, given.memory, given.layout, back.memory, back.layout, x.runs,
            self.layer.affine[0], self.layer.gradients, self.moments, self.relu,
        )  # fmt: skip
