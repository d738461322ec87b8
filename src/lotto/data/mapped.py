"""Arrays in files, larger than memory: rows are read when a batch needs them, and nothing else is."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import DataError, UsageError
from lotto.data.batch import Batch
from lotto.data.convert import check_examples, check_splits, inputs_from, own_tensor, targets_from
from lotto.data.file_digests import file_digests
from lotto.data.held_out import HoldsOut
from lotto.data.in_memory import normalisation, statistics_of
from lotto.data.normalise import normalised
from lotto.data.order import batches_of
from lotto.data.source import DataSource, Split

PIECE = 1 << 20
"""Bytes that are read at once where all are."""


@dataclass(frozen=True)
class Rows:
    """The examples of an array in a file, one after the other.

    They are read and not mapped: pages of a mapping that were touched would stay, and count as this process's memory.

    Attributes:
        path: the file.
        dtype: of a number, in words of NumPy's.
        shape: (examples, ...).
        offset: bytes before the first example.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, array: np.memmap[Any, Any], name: str) -> Rows:
        """The rows of a `numpy.memmap`, or of some examples of one in a row.

        Raises:
            UsageError: if it is not what is in the file, or not in rows.
        """
        if array.mode == "c" or array.filename is None:
            raise UsageError(f"{name} may differ from its file: open it with mode='r'.")
        if not array.ndim or not array.flags.c_contiguous or array.dtype.hasobject:
            raise UsageError(
                f"{name} is no run of whole examples of its file, such as x[:1000]: choose every so manieth, or other "
                "axes, before it is written."
            )
        if array.mode != "r":
            array.flush()
        mapped: Any = array._mmap  # type: ignore[attr-defined]
        begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        within = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
        return cls(Path(array.filename).absolute(), array.dtype.str, array.shape, begin + within)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Sequence[int]) -> np.ndarray:
        """Some examples, shape (len(indices), ...)."""
        size = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        block, at = bytearray(size * len(indices)), 0
        whole = memoryview(block)
        with self.path.open("rb", buffering=0) as file:
            for first, last in _runs(indices):
                file.seek(self.offset + first * size)
                wanted = whole[at : at + (last - first) * size]
                if file.readinto(wanted) != len(wanted):
                    raise DataError(f"{self.path} ends before example {last - 1}: it is shorter than it was.")
                at += len(wanted)
        return np.frombuffer(block, self.dtype).reshape(len(indices), *self.shape[1:])

    def content_digest(self) -> Any:
        """Of the file and of where in it."""
        return [file_digests([self.path])[self.path], self.dtype, list(self.shape), self.offset]


@dataclass(frozen=True)
class Held:
    """Examples in memory, such as labels beside inputs in a file."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (examples, ...)."""
        return tuple(self.tensor.shape)

    def __len__(self) -> int:
        return len(self.tensor)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Some examples."""
        return self.tensor[torch.as_tensor(indices)]

    def content_digest(self) -> Any:
        """Of the numbers."""
        digest = hashlib.blake2b(self.tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, digest_size=16)
        return [digest.hexdigest(), str(self.tensor.dtype), list(self.shape)]


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours together: (first, one after the last) of each run."""
    first = last = -1
    for index in indices:
        if index != last:
            if last > first:
                yield first, last
            first = index
        last = index + 1
    if last > first:
        yield first, last


@checked
class MappedArrays(HoldsOut, DataSource):
    """A data set in files, `numpy.memmap` or ``numpy.load(..., mmap_mode="r")``, whatever its size.

    Batches are those that `Arrays` would give for the same numbers, to the bit. Each split is read once when the set is
    made, some megabytes at a time: for its statistics, the number of classes and numbers that are not finite.

    Args:
        x_train, y_train, x_test, y_test: see `Arrays`. Any of them may be an array in memory.
        mean, std: see `Arrays`.
        name: what tables and logs call the set.

    Raises:
        UsageError: see `Arrays`; for a mapping that is not what is in its file.

    >>> np.save("x.npy", np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8))
    >>> x, y = np.load("x.npy", mmap_mode="r"), np.arange(60) % 3
    >>> data = MappedArrays(x[:40], y[:40], x[40:], y[40:])
    >>> data.classes, data.size("test"), next(data.train_batches(0, 0, 1, 4)).inputs.dtype
    (3, 20, torch.float32)
    """

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "arrays in files",
    ) -> None:
        self.name = name
        self.x = {"train": _rows(x_train, "x_train"), "test": _rows(x_test, "x_test")}
        self.y = {"train": _rows(y_train, "y_train"), "test": _rows(y_test, "y_test")}
        check_splits({split: len(x) for split, x in self.x.items()}, {split: len(y) for split, y in self.y.items()})
        first = {split: inputs_from(rows.take([0]), f"x_{split}") for split, rows in self.x.items()}
        check_examples(first, {split: targets_from(rows.take([0]), f"y_{split}") for split, rows in self.y.items()})
        self._classes = self._read_once()
        self._scale: Tensor | None
        self._shift: Tensor | None
        self._scale, self._shift = normalisation(
            first["train"], mean, std, lambda: statistics_of(_pieces(self.x["train"], "x_train"))
        )

    def _read_once(self) -> int:
        """Look at all numbers that may be none, and count the classes."""
        highest: list[float] = []
        for which in ("train", "test"):
            for targets in _pieces(self.y[which], f"y_{which}", targets_from):
                highest.append(math.inf if targets.is_floating_point() else float(targets.max()))
            if inputs_from(self.x[which].take([0]), f"x_{which}").is_floating_point():
                for _ in _pieces(self.x[which], f"x_{which}"):
                    pass
        most = max(highest)
        return math.prod(self.y["train"].shape[1:]) if math.isinf(most) else int(most) + 1

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(x)} {which}" for which, x in self.x.items())
        return f"{type(self).__name__}({self.name!r}: {sizes}, inputs {'×'.join(map(str, self.x['train'].shape[1:]))})"

    @property
    def classes(self) -> int:
        """Number of classes, or of outputs when the targets are not integer classes."""
        return self._classes

    @property
    def states_content(self) -> bool:
        """The files are read and hashed, so that reading them is no reason to forget a run."""
        return True

    @property
    def fingerprint(self) -> Any:
        """Hashes of the files; one whose size and times are what they were is not read again."""
        parts = {f"{p}.{s}": rows.content_digest() for p in ("x", "y") for s, rows in getattr(self, p).items()}
        scale = [None if t is None else t.tolist() for t in (self._scale, self._shift)]
        return {**parts, "normalisation": scale}

    def size(self, split: Split = "train") -> int:
        """Number of examples in a split."""
        if self._held is not None and self._kept is not None and split in ("train", "validation"):
            return len(self._kept if split == "train" else self._held)
        return len(self.y[split]) if split in self.y else 0

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`; an epoch's incomplete last batch is dropped."""
        for _, chosen in batches_of(seed, start, stop, batch_size, self.size()):
            yield self._batch("train", chosen.tolist())

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`."""
        for first in range(0, self.size(split), batch_size):
            yield self._batch(split, range(first, min(first + batch_size, self.size(split))))

    def _batch(self, split: str, indices: Sequence[int]) -> Batch:
        which, indices = self._rows(split, indices)
        x = inputs_from(self.x[which].take(indices), f"x_{which}")
        if self._scale is not None and self._shift is not None:
            x = normalised(x, self._scale, self._shift)
        return Batch(x, targets_from(self.y[which].take(indices), f"y_{which}"))


def _rows(value: Any, name: str) -> Rows | Held:
    return Rows.of(value, name) if isinstance(value, np.memmap) else Held(own_tensor(value, name))


def _pieces(rows: Rows | Held, name: str, convert: Any = inputs_from) -> Iterator[Tensor]:
    """All examples, some megabytes at a time.

    Raises:
        UsageError: if any is no number.
    """
    count = max(1, PIECE // max(1, rows.take([0]).nbytes))
    for first in range(0, len(rows), count):
        last = min(first + count, len(rows))
        try:
            yield convert(rows.take(range(first, last)), name)
        except UsageError as error:
            raise UsageError(f"Of the examples {first} to {last - 1} alone: {error}") from error
