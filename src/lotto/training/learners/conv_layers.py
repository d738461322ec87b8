"""Convolutions over activations with the batch innermost.

A layer knows where its parameters stand in the vector of all; a pass is a layer with the places of its activations, for
one size of batch, and gives the instructions (see `program`) that compute it.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lotto.training.learners import program
from lotto.training.learners.batch_innermost import TOGETHER, Entries, Pair, Plane, Shape, Workspace, entries

DENSE, SPARSE = TOGETHER, 1
"""Rows of a block."""
GROUP, MANY, FEW = 64, 32, 128
"""Channels that are summed over at a time, so that what is read for many outputs stays in the near memory: of dense
layers, and of lists with more and with less than `DENSITY` of the weights."""
DENSITY = 0.1


class Part(NamedTuple):
    """Inputs whose gradients are sums over the same weights, one in every ``stride``.

    Attributes:
        first: row and column of the first.
        entries: which weights, group by group.
    """

    first: Pair
    entries: list[Entries]


class Convolution:
    """A convolution; its bias is a layer of its own.

    Args:
        shape: of the kernel.
        weight: where the parameter begins in the vector of all.
        mask: shape (outputs, inputs of a group, height, width); where it is False the gradient is never written.
        rows: `DENSE` or `SPARSE`; outputs of several groups are not summed together.
        groups: of inputs and outputs.
    """

    def __init__(self, shape: Shape, weight: int, mask: np.ndarray, rows: int, groups: int = 1) -> None:
        self.shape, self.weight, self.size = shape, weight, mask.size
        self.outputs, self.inputs = len(mask), mask.shape[1] * groups
        self.rows = rows if groups == 1 or not self.outputs // groups % TOGETHER else SPARSE
        self.mask, self.places = (_spread(a, groups) for a in (mask, np.arange(mask.size).reshape(mask.shape)))

    def forward_entries(self, x: Plane) -> list[Entries]:
        """For outputs of inputs, group by group."""
        taps = [h * self.shape.dilation[0] * x.row + w * self.shape.dilation[1] * x.column for h, w in self.shape.taps]
        offsets = np.add.outer(np.arange(self.inputs) * x.channel, taps).reshape(-1)
        flat = (self.outputs, -1)
        return self._groups(self.mask.reshape(flat), self.places.reshape(flat), offsets, len(taps))

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
            parts.append(Part((first[0], first[1]), self._groups(kept, at, offsets, len(taps))))
        return parts

    def _groups(self, kept: np.ndarray, places: np.ndarray, offsets: np.ndarray, taps: int) -> list[Entries]:
        return grouped(kept, places, offsets, taps, self.rows, float(self.mask.mean()))


def grouped(
    kept: np.ndarray, places: np.ndarray, offsets: np.ndarray, taps: int, rows: int, density: float
) -> list[Entries]:
    """Lists for `GROUP` channels of ``taps`` offsets at a time; one where there is nothing.

    Args:
        kept, places, offsets, rows: see `entries`.
        taps: offsets of a channel.
        density: of the layer's weights.
    """
    channels = GROUP if rows == DENSE else MANY if density > DENSITY else FEW
    step = max(1, channels * taps)
    return [
        entries(kept[:, i : i + step], places[:, i : i + step], offsets[i : i + step], rows)
        for i in range(0, max(1, len(offsets)), step)
    ]


def _spread(array: np.ndarray, groups: int) -> np.ndarray:
    """What stands at weights of a group's inputs, at those of all inputs, 0 at those of other groups'."""
    if groups == 1:
        return array
    outputs, inputs, *kernel = array.shape
    spread = np.zeros((groups, outputs // groups, groups, inputs, *kernel), array.dtype)
    for group, part in enumerate(array.reshape(groups, -1, inputs, *kernel)):
        spread[group, :, group] = part
    return spread.reshape(outputs, groups * inputs, *kernel)


class ConvolutionPass:
    """A convolution for one size of inputs.

    Args:
        layer: the convolution.
        workspace: of all planes.
        x: the inputs.
        out: the outputs.
        given: the outputs' gradient, with as many zeros around as `Shape.back_reach` says; None = there are none.
        back: the inputs' gradient; None = nobody asks for it.
    """

    def __init__(
        self, layer: Convolution, workspace: Workspace, x: Plane, out: Plane, given: Plane | None, back: Plane | None
    ) -> None:
        self.layer, self.x, self.out, self.given, self.back = layer, x, out, given or out, back
        self.vectors = out.column // workspace.lanes
        self.lists = [self._numbers(list_, workspace) for list_ in layer.forward_entries(x)]
        parts = [] if back is None else layer.backward_entries(self.given)
        self.parts = [(part.first, [self._numbers(list_, workspace) for list_ in part.entries]) for part in parts]

    @property
    def _read(self) -> tuple[int, int, int]:
        """Where the first output reads, and from there the distances of rows and columns."""
        x, stride, padding = self.x, self.layer.shape.stride, self.layer.shape.padding
        return x.start - padding[0] * x.row - padding[1] * x.column, stride[0] * x.row, stride[1] * x.column

    def _numbers(self, list_: Entries, workspace: Workspace) -> tuple[int, ...]:
        """The part of an instruction that says which weights."""
        weight = (self.layer.weight, self.layer.weight + self.layer.size)
        return (list_.rows, len(list_.begins), len(list_.places), *workspace.add(list_), *weight)

    def forward(self, more: bool = False) -> Iterator[np.ndarray]:
        """Set the outputs, or add to them."""
        out = self.out
        geometry = (*out.size, self.vectors, *self._read, out.start, out.row, out.column, out.channel)
        for i, list_ in enumerate(self.lists):
            yield program.row(program.CORRELATE, *geometry, *list_, more or i > 0)

    def weight_gradient(self, more: bool = False) -> Iterator[np.ndarray]:
        """Set the weight's gradient, or add to it."""
        g = self.given
        geometry = (*self.out.size, self.vectors, *self._read, g.start, g.row, g.column, g.channel)
        for list_ in self.lists:
            yield program.row(program.PRODUCTS, *geometry, *list_, more)

    def input_gradient(self, more: bool) -> Iterator[np.ndarray]:
        """Set the inputs' gradient, or add to it."""
        assert self.back is not None
        stride, back, given = self.layer.shape.stride, self.back, self.given
        for (h, w), lists in self.parts:
            height, width = (
                -(-(size - first) // step) for size, first, step in zip(back.size, (h, w), stride, strict=True)
            )
            if height <= 0 or width <= 0:
                continue
            written = (back.start + h * back.row + w * back.column, stride[0] * back.row, stride[1] * back.column)
            read = (given.start, given.row, given.column)
            geometry = (height, width, self.vectors, *read, *written, back.channel)
            for i, list_ in enumerate(lists):
                if list_[2] or not (more or i):
                    yield program.row(program.CORRELATE, *geometry, *list_, more or i > 0)
