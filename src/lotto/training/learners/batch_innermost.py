"""Activations with the batch innermost, and convolutions over them as lists of offsets; plain numbers and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LANES = 16
"""Numbers of a vector, of bfloat16 twice as many: the batch is filled up with zeros to a multiple of it."""
TOGETHER = 4
"""Outputs of a dense block; channels are filled up with zeros to a multiple of it. Offsets come in as many, too."""

Pair = tuple[int, int]
Reach = tuple[Pair, Pair]
"""Rows and columns before an activation, and after it."""
NOWHERE: Reach = ((0, 0), (0, 0))


def rounded_up(number: int, to: int) -> int:
    """The next multiple."""
    return -(-number // to) * to


class Workspace:
    """Memory and tables of a network for one size of batch: first everything is given its place, then they are made.

    Args:
        batch: its size.
        half: whether activations and their gradients lie there as bfloat16; see `storage`.
    """

    def __init__(self, batch: int, half: bool = False) -> None:
        self.batch, self.half = batch, half
        self.lanes = 2 * LANES if half else LANES
        self.size = self.scratch = self.mean_size = self.moments = self.list_size = self.place_size = 0
        self._lists: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._shared: dict[object, Plane] = {}

    def take(self, count: int) -> int:
        """The place of so many numbers."""
        self.size += rounded_up(count, self.lanes)
        return self.size - rounded_up(count, self.lanes)

    def take_means(self, count: int) -> int:
        """The place of so many means of channels."""
        self.mean_size += count
        return self.mean_size - count

    def take_moments(self, channels: int) -> int:
        """The place of a layer's mean and deviation."""
        self.moments += channels
        return self.moments - channels

    def plane(self, channels: int, size: Pair, reach: Reach = NOWHERE) -> Plane:
        """Memory of an activation, see `Plane`."""
        return Plane(self, channels, size, self.batch, *reach)

    def shared(self, what: str, channels: int, size: Pair, reach: Reach = NOWHERE) -> Plane:
        """The same one for the same arguments: memory of gradients, which the layers have in turn."""
        key = (what, channels, size, reach)
        if key not in self._shared:
            self._shared[key] = self.plane(channels, size, reach)
        return self._shared[key]

    def add(self, list_: Entries) -> tuple[int, int, int]:
        """Places of the offsets, of begins and ends after these, and of the weights' places."""
        first, place = self.list_size, self.place_size
        self._lists += [list_.offsets, list_.begins, list_.ends]
        self._places.append(list_.places)
        self.list_size += len(list_.offsets) + 2 * len(list_.begins)
        self.place_size += len(list_.places)
        self.scratch = max(self.scratch, len(list_.places))
        return first, first + len(list_.offsets), place

    @cached_property
    def packed(self) -> np.ndarray:
        """Where weights are packed."""
        return np.zeros(rounded_up(self.scratch, LANES), np.float32)

    @cached_property
    def means(self) -> Tensor:
        """Of channels, over places."""
        return torch.zeros(self.mean_size)

    @cached_property
    def memory(self) -> Tensor:
        """All activations and their gradients."""
        return torch.zeros(self.size, dtype=torch.bfloat16 if self.half else torch.float32)

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Memory, moments, lists and places, as `program.runner`'s functions take them."""
        lists, places = (
            np.concatenate([np.zeros(0, a), *b]) for a, b in ((np.int64, self._lists), (np.int32, self._places))
        )
        memory = (self.memory.view(torch.uint16) if self.half else self.memory).numpy()
        return memory, np.zeros((2, self.moments)), lists, places


class Plane:
    """Place of an activation in memory: channel × height × width × batch, with zeros around it.

    Args:
        workspace: of the memory.
        channels, size, batch: of the activation; ``size`` is (height, width).
        before, after: rows and columns of zeros.
    """

    def __init__(
        self, workspace: Workspace, channels: int, size: Pair, batch: int, before: Pair = (0, 0), after: Pair = (0, 0)
    ) -> None:
        self.workspace, self.channels, self.size, self.batch = workspace, channels, size, batch
        height, width = (sum(parts) for parts in zip(before, size, after, strict=True))
        self.column = rounded_up(batch, workspace.lanes)
        self.row = width * self.column
        self.channel = height * self.row
        first = workspace.take(rounded_up(channels, TOGETHER) * self.channel)
        self.start = first + before[0] * self.row + before[1] * self.column

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
        return self.workspace.memory.as_strided(size, (self.channel, self.row, self.column, 1), self.start)


class Pooling(NamedTuple):
    """The greatest number of each block, or the mean; what is left over at the end is not read.

    Attributes:
        size: rows and columns of a block.
        stride: from one block to the next; None = they are side by side.
        padding: rows and columns around the inputs, which are never the greatest and 0 in a mean.
        average: whether it is the mean.
    """

    size: Pair
    stride: Pair | None = None
    padding: Pair = (0, 0)
    average: bool = False

    @property
    def step(self) -> Pair:
        """From one block to the next."""
        return self.stride or self.size

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        found = [(size[i] + 2 * self.padding[i] - self.size[i]) // self.step[i] + 1 for i in range(2)]
        return found[0], found[1]


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

    def reach(self, size: Pair) -> Reach:
        """How many rows and columns before and after inputs are read."""
        out = self.outputs(size)
        last = [
            (out[i] - 1) * self.stride[i] - self.padding[i] + self.dilation[i] * (self.kernel[i] - 1) for i in range(2)
        ]
        after = [max(0, last[i] - size[i] + 1) for i in range(2)]
        return self.padding, (after[0], after[1])

    def back_reach(self, size: Pair) -> Reach:
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
