"""Activations with the batch innermost, and convolutions over them as lists of offsets; plain numbers and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LANES = 16
"""Numbers of a vector: the batch is filled up with zeros to a multiple of it."""
TOGETHER = 4
"""Outputs of a dense block; channels are filled up with zeros to a multiple of it. Offsets come in as many, too."""

Pair = tuple[int, int]


def rounded_up(number: int, to: int) -> int:
    """The next multiple."""
    return -(-number // to) * to


class Plane:
    """Memory of an activation: channel × height × width × batch, with zeros around it.

    Args:
        channels, size, batch: of the activation; ``size`` is (height, width).
        before, after: rows and columns of zeros.
    """

    def __init__(self, channels: int, size: Pair, batch: int, before: Pair = (0, 0), after: Pair = (0, 0)) -> None:
        self.channels, self.size, self.batch = channels, size, batch
        self.before, self.after = before, after
        height, width = (sum(parts) for parts in zip(before, size, after, strict=True))
        self.column = rounded_up(batch, LANES)
        self.row = width * self.column
        self.channel = height * self.row
        self.start = before[0] * self.row + before[1] * self.column
        self.tensor = torch.zeros(rounded_up(channels, TOGETHER) * self.channel)
        self.memory = self.tensor.numpy()

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """Where the first number is, and from there the distances between channels, rows and columns."""
        return self.start, self.channel, self.row, self.column

    @property
    def runs(self) -> tuple[int, int, int]:
        """(rows, columns, run): an activation's runs of contiguous numbers, of which the fillings are no part."""
        height, width = self.size
        return (height, 1, width * self.batch) if self.batch == self.column else (height, width, self.batch)

    @property
    def places(self) -> tuple[int, int, int]:
        """(height, width, batch)."""
        return (*self.size, self.batch)

    def view(self) -> Tensor:
        """The activation itself, shape (channels, height, width, batch)."""
        size = (self.channels, *self.size, self.batch)
        return self.tensor.as_strided(size, (self.channel, self.row, self.column, 1), self.start)


@dataclass(frozen=True)
class Shape:
    """Of a convolution: one of one dimension has the height 1.

    Attributes:
        kernel, stride, padding, dilation: (height, width) of each.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        found = [
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in range(2)
        ]
        return found[0], found[1]

    @property
    def taps(self) -> list[Pair]:
        """Where a weight stands in its kernel, in the order of memory."""
        return list(product(range(self.kernel[0]), range(self.kernel[1])))

    def reach(self, size: Pair) -> tuple[Pair, Pair]:
        """How many rows and columns before and after inputs are read."""
        out = self.outputs(size)
        last = [
            (out[i] - 1) * self.stride[i] - self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) for i in range(2)
        ]
        after = [max(0, last[i] - size[i] + 1) for i in range(2)]
        return self.padding, (after[0], after[1])

    def back_reach(self, size: Pair) -> tuple[Pair, Pair]:
        """How many rows and columns before and after the outputs' gradient are read for the inputs'."""
        out, before, after = self.outputs(size), [0, 0], [0, 0]
        for i in range(2):
            for place in range(size[i]):
                for tap in range(self.kernel[i]):
                    at, rest = divmod(place + self.padding[i] - tap * self.dilation[i], self.stride[i])
                    if not rest:
                        before[i], after[i] = max(before[i], -at), max(after[i], at - out[i] + 1)
        return (before[0], before[1]), (after[0], after[1])


class Entries(NamedTuple):
    """Which weights a block of outputs sums over, for the kernels.

    Attributes:
        offsets: where an input lies, from an output's place; those of a block are filled up to a multiple of four.
        begins, ends: of each block.
        places: of each weight in the whole tensor, ``rows`` for each offset; -1 where there is none.
        rows: outputs of a block.
    """

    offsets: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    places: np.ndarray
    rows: int


def entries(kept: np.ndarray, places: np.ndarray, offsets: np.ndarray, rows: int) -> Entries:
    """Lists for blocks of ``rows`` outputs: an offset that no weight of a block has is not in them.

    Args:
        kept: shape (outputs, offsets), whether there is a weight.
        places: the same shape, where it stands in the whole tensor.
        offsets: shape (offsets,).
        rows: see `Entries`.
    """
    outputs = rounded_up(len(kept), TOGETHER)
    missing = ((0, outputs - len(kept)), (0, 0))
    where = np.pad(np.where(kept, places, -1), missing, constant_values=-1).reshape(outputs // rows, rows, len(offsets))
    block, column = (where >= 0).any(1).nonzero()
    counts = np.bincount(block, minlength=len(where))
    begins = np.concatenate([[0], np.cumsum(rounded(counts))])
    at = begins[block] + np.arange(len(block)) - np.repeat(np.cumsum(counts) - counts, counts)
    found, numbers = np.zeros(begins[-1], np.int64), np.full((begins[-1], rows), -1, np.int32)
    found[at], numbers[at] = offsets[column], where[block, :, column]
    ends = begins[:-1] + counts
    for b in counts.nonzero()[0]:
        found[ends[b] : begins[b + 1]] = found[ends[b] - 1]
    return Entries(found, begins[:-1].astype(np.int64), ends.astype(np.int64), numbers.reshape(-1), rows)


def rounded(counts: np.ndarray) -> np.ndarray:
    """Each count, to the next multiple of four."""
    return -(-counts // TOGETHER) * TOGETHER
