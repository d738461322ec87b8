"""Batches that come one after the other: an iterable data set, or a loader with a sampler of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from lotto.core import fingerprint as key
from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.rng import torch_seed
from lotto.data.batch import Batch, as_batch, count
from lotto.data.collation import split
from lotto.data.seeded import Guard
from lotto.data.source import DataSource, Split

_END = object()


@checked
class Stream(DataSource):
    """Batches in the order in which somebody else's loader gives them, epoch after epoch.

    A training that begins at step k, from a rewind point or a checkpoint, reads the k batches before and drops them:
    bits are the same, time is lost. There are no epochs here: steps are iterations. What the loader, its sampler and
    its data set draw, from torch, random, numpy.random or a `torch.Generator` of theirs, is seeded by (seed, batch),
    and ``set_epoch(...)`` of the sampler or the data set is called; what they keep count of otherwise is refused.

    Args:
        train: a `torch.utils.data.DataLoader` or any other iterable of batches that can be read again and again, or a
            function (seed, epoch) that gives the batches of an epoch.
        test: an iterable of test batches that has an end.
        validation: likewise, if there is one.
        target: the name of the targets in a batch that is a mapping, see `Indexed`.
        fingerprint: what tells this content from any other, such as a version; None = its runs are not remembered.
        classes: number of classes, for a network by name.
        batch_size: the only one that a recipe may have, smaller batches are then left out in training; None = the
            batches are as they are.
        name: what tables and logs call it.

    Raises:
        UsageError: for what can be read only once.

    >>> batches = [(torch.randn(4, 8), torch.arange(4) % 3) for _ in range(5)]
    >>> data = Stream(batches, batches[:2], classes=3)
    >>> data.size("train"), data.size("test")
    (None, 8)
    """

    random_access = False

    def __init__(
        self,
        train: Any,
        test: Any,
        *,
        validation: Any = None,
        target: str | None = None,
        fingerprint: str | None = None,
        classes: int | None = None,
        batch_size: int | None = None,
        name: str = "stream",
    ) -> None:
        self.given = {"train": train, "test": test, **({} if validation is None else {"validation": validation})}
        for which, batches in self.given.items():
            if not hasattr(batches, "__iter__") and not (which == "train" and callable(batches)):
                raise UsageError(f"The {which} batches are a loader or another iterable; got {text(batches)}.")
            if hasattr(batches, "__next__"):
                raise UsageError(
                    f"The {which} batches of {name} can be read only once: give a list or a loader"
                    + (", or a function (seed, epoch) that gives them anew." if which == "train" else ".")
                )
        self.target, self.stated = target, fingerprint
        self._classes, self.batch_size, self.name = classes, batch_size, name
        self._sizes: dict[str, int] = {}

    advice = (
        "what gives them is not the same twice. Draw from torch, random or numpy.random, whose generators are seeded "
        "for every batch, and keep no count from one reading to the next; or give a function (seed, epoch)"
    )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}: batches one after the other)"

    @property
    def classes(self) -> int | None:
        """Number of classes, if it was stated."""
        return self._classes

    def size(self, split: Split = "train") -> int | None:
        """None for training; else counted by reading the split once."""
        if split == "train" or split not in self.given:
            return None if split == "train" else 0
        if split not in self._sizes:
            self._sizes[split] = sum(count(batch) for batch in self._read(split, 0))
        return self._sizes[split]

    @property
    def fingerprint(self) -> Any:
        """What the user has stated, and the code of a function that gives the batches."""
        if self.stated is None:
            return None
        train = self.given["train"]
        code = None if hasattr(train, "__iter__") else key.record(train, "the function of batches", files=True)
        return {"stated": self.stated, "code": code, "target": self.target, "batch_size": self.batch_size}

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: it reads all steps from 0 on."""
        return itertools.islice(self._read("train", seed), start, stop)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: batches of a split as they come; of training, those of the data order 0."""
        return self._read(split, 0)

    def _read(self, which: str, seed: int) -> Iterator[Batch]:
        guard, numbers = Guard(), itertools.count()
        for epoch in itertools.count() if which == "train" else (0,):
            made: list[Iterator[Any]] = []  # begun with its first batch, so that the guard sees what both draw
            found = 0
            for number in numbers:
                chance = torch_seed(seed, f"stream of {which}", number)
                value = guard(partial(self._next, made, which, seed, epoch, chance), partial(int, chance))
                if value is _END:
                    break
                batch = as_batch(split(value, self.target, self.name), self.name)
                found += 1
                if which == "train" and self.batch_size and count(batch) < self.batch_size:
                    continue  # the last of an epoch
                yield batch
            if not found:
                return

    def _next(self, made: list[Iterator[Any]], which: str, seed: int, epoch: int, chance: int) -> Any:
        if not made:
            made.append(self._begun(self.given[which], seed, epoch, chance))
        return next(made[0], _END)

    def _begun(self, batches: Any, seed: int, epoch: int, chance: int) -> Iterator[Any]:
        if not hasattr(batches, "__iter__"):
            return iter(batches(seed, epoch))
        parts = (batches, *(getattr(batches, part, None) for part in ("batch_sampler", "sampler", "dataset")))
        for part in parts:
            if isinstance(drawn := getattr(part, "generator", None), torch.Generator):
                drawn.manual_seed(chance)
            if callable(tell := getattr(part, "set_epoch", None)):
                tell(epoch)
        return iter(batches)
