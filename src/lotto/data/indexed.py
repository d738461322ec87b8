"""A data set that gives any example by its number, such as one of torch's or Hugging Face's, and a collate function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from lotto.core import fingerprint as key
from lotto.core.check import Bounds, checked
from lotto.core.errors import UsageError, text
from lotto.data.batch import Batch, as_batch
from lotto.data.collation import Collate, collated, split
from lotto.data.contents import content, is_huggingface
from lotto.data.held_out import HoldsOut
from lotto.data.order import batches_of
from lotto.data.seeded import Key, Making
from lotto.data.source import DataSource, Split

READ_AHEAD = 4
"""Fewer batches than that are not worth starting workers for."""


@checked
class Indexed(HoldsOut, DataSource):
    """Examples by number, put together by a collate function, in a new order every epoch.

    The batch of any (seed, step) is found at once, so trainings are resumed, forked and rewound to the bit. What the
    data set or the collate function draw, from torch, random or numpy.random, is a function of (seed, step) as well.

    Args:
        train: the training set: anything with ``len(...)`` and ``[index]``, such as `torch.utils.data.Dataset` or
            `datasets.Dataset`.
        test: the test set.
        validation: a validation set, if there is one.
        collate: from a list of examples to a batch, see `Batch`: a pair (inputs, targets), or a mapping, of which the
            targets are taken out. None = `torch.utils.data.default_collate`.
        target: the name of the targets in a mapping; None = ``labels``, ``label``, ``targets``, ``target`` or ``y``.
        workers: processes that read ahead; the batches are the same whatever their number.
        fingerprint: what tells this content from any other, such as a version; None = it is read and hashed.
        classes: number of classes, for a network by name.
        batch_size: the only one that a recipe may have; None = any.
        name: what tables and logs call the set.

    Raises:
        UsageError: if a set is empty, or cannot be asked for examples by number.

    >>> from torch.utils.data import TensorDataset
    >>> x, y = torch.randn(60, 8), torch.arange(60) % 3
    >>> data = Indexed(TensorDataset(x[:40], y[:40]), TensorDataset(x[40:], y[40:]), classes=3)
    >>> lotto.train(lotto.Recipe("mlp-16", data, lotto.SGD(0.1), batch_size=10, steps="5ep")).steps
    (0, 20)
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        *,
        validation: Any = None,
        collate: Callable[[list[Any]], Any] | None = None,
        target: str | None = None,
        workers: Annotated[int, Bounds(0, 1024)] = 0,
        fingerprint: str | None = None,
        classes: int | None = None,
        batch_size: int | None = None,
        name: str = "data",
    ) -> None:
        given = {"train": train, "test": test, **({} if validation is None else {"validation": validation})}
        self.sets: dict[str, Any] = {split: _numbers_shown(data, collate) for split, data in given.items()}
        for which, data in self.sets.items():
            if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
                raise UsageError(
                    f"The {which} set gives examples by number: it has len(...) and [index]; got {text(data)}. One "
                    "that only gives them one after the other is a lotto.data.Stream."
                )
            if not len(data):
                raise UsageError(f"The {which} set of {name} has no examples.")
        self.collate: Collate = collate or collated
        self.target, self.workers, self.stated = target, workers, fingerprint
        self._classes, self.batch_size, self.name = classes, batch_size, name
        self._known: dict[int, tuple[Any, Any]] = {}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(data)} {which}" for which, data in self.sets.items())
        return f"{type(self).__name__}({self.name!r}: {sizes}, any example by its number)"

    advice = (
        "its data set or collate= is not the same twice. Draw from torch, random or numpy.random, whose generators are "
        "seeded for every batch, and change nothing that is there at the next"
    )

    @property
    def classes(self) -> int | None:
        """Number of classes, if it was stated."""
        return self._classes

    def size(self, split: Split = "train") -> int:
        """Number of examples in a split."""
        if self._held is not None and self._kept is not None and split in ("train", "validation"):
            return len(self._kept if split == "train" else self._held)
        return len(self.sets[split]) if split in self.sets else 0

    @property
    def fingerprint(self) -> Any:
        """Of the content, and of the code that makes batches of it."""
        how = {"collate": key.record(self.collate, "collate", files=self.stated is not None), "target": self.target}
        if self.stated is not None:
            kinds = [key.record(type(data), "the data set", files=True) for _, data in sorted(self.sets.items())]
            return {"stated": self.stated, "kinds": kinds, **how}
        sets = {which: content(data, f"the {which} set", self._known) for which, data in sorted(self.sets.items())}
        return {"sets": sets, **how}

    @property
    def states_content(self) -> bool:
        """Whether the user has stated it."""
        return self.stated is not None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}}  # by ids of this process

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`; an epoch's incomplete last batch is dropped."""
        steps = batches_of(seed, start, stop, batch_size, self.size())
        keys = (Key(self._rows("train", chosen)[1], seed, "batch", step) for step, chosen in steps)
        return self._read("train", keys, stop - start)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`; what it draws depends on the number of a batch's first example."""
        firsts, size = range(0, self.size(split), batch_size), self.size(split)
        which, rows = self._rows(split, range(size))
        keys = (Key(rows[i : i + batch_size], 0, f"batch of {split}", i) for i in firsts)
        return self._read(which, keys, len(firsts))

    def _read(self, which: str, keys: Iterator[Key], count: int) -> Iterator[Batch]:
        making = Making(self.sets[which], self.collate)
        for value in making.read(keys, self.workers if count >= READ_AHEAD else 0):
            yield as_batch(split(value, self.target, self.name), self.name)


def _numbers_shown(data: Any, collate: Any) -> Any:
    """A set of Hugging Face's shows lists unless it is told otherwise; torch's collate function takes tensors."""
    plain = collate is None and is_huggingface(data) and data.format["type"] is None
    return data.with_format("torch") if plain else data
