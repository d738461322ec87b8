"""Data of any kind: what a source states, and how the loops read one that is not of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from lotto.core import fingerprint as key
from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.core.weights import digest
from lotto.data.augment import Augmentation, changed, is_own
from lotto.data.batch import Batch, as_batch, count, examples, labelled, mapped, moved

Split = Literal["train", "validation", "test"]
ENDLESS = 10**18
"""Examples of a stream, for those who take the smaller of two numbers."""
PROBES = 2


class DataSource(ABC):
    """Where batches come from. A subclass says how many examples there are, and gives batches; that is all.

    Attributes:
        name: what tables and logs call it.
        random_access: whether ``train_batches`` begins at any step at once. Else a training that begins later, from a
            rewind point or a checkpoint, reads all steps before and drops them, which is said before training.

    >>> class Noise(DataSource):
    ...     fingerprint = "noise-1"
    ...     def size(self, split):
    ...         return {"train": 64, "test": 32}.get(split, 0)
    ...     def train_batches(self, seed, start, stop, batch_size):
    ...         for step in range(start, stop):
    ...             x = torch.randn(batch_size, 4, generator=torch.Generator().manual_seed(1000 * seed + step))
    ...             yield Batch({"x": x}, x.sum(1))
    ...     def eval_batches(self, split, batch_size):
    ...         yield Batch({"x": torch.ones(self.size(split), 4)}, torch.full((self.size(split),), 4.0))
    >>> Noise().example.inputs["x"].shape
    torch.Size([2, 4])
    """

    name: str = "data"
    random_access: bool = True
    batch_size: int | None = None
    """The only one that a recipe may have, where the source has settled it; None = any."""
    advice: str = (
        "draw what is random from a generator of the seed and the step, such as "
        "torch.Generator().manual_seed(1_000_003 * seed + step), and shuffle by it"
    )
    """What to do about batches that are not the same twice."""

    @property
    def fingerprint(self) -> Any:
        """What tells this data from any other, such as a hash of the files; None = its runs are not remembered.

        It stands for the content; the class's own code, and texts and numbers that an object of it holds, are always
        part of a run's key.
        """
        return None

    @property
    def states_content(self) -> bool:
        """Whether the fingerprint is somebody's word for the content, files that are read included."""
        return self.fingerprint is not None

    @property
    def classes(self) -> int | None:
        """Number of classes, for a model by name; None = not classes, or not known."""
        return None

    @abstractmethod
    def size(self, split: Split = "train") -> int | None:
        """Number of examples; 0 = there is no such split. None, for training only: a stream without an end."""

    @abstractmethod
    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterable[Any]:
        """The batches of steps ``start`` to ``stop - 1`` in the data order ``seed``: a function of these alone."""

    @abstractmethod
    def eval_batches(self, split: Split, batch_size: int) -> Iterable[Any]:
        """All examples of a split in one order, about ``batch_size`` at once, not augmented."""

    @property
    def example(self) -> Batch:
        """A batch of two examples; only shapes and types are looked at."""
        found = next(iter(self.train_batches(0, 0, 1, PROBES)), None)
        if found is None:
            raise UsageError(f"{self.name} gives no training batch.")
        batch = as_batch(found, self.name)
        return Batch(*(examples(part, 0, PROBES) for part in batch))


class Adapted:
    """A source of somebody else's with the face that `Arrays` has, so that the loops read one kind of data.

    Batches are checked, moved to the device and counted; whatever a source cannot say is refused in a sentence.

    Args:
        source: a data source.
        device: where its batches are delivered.
        labels: whether inputs carry the targets, for a network that computes its own loss.
    """

    def __init__(self, source: DataSource, device: torch.device | None = None, labels: bool = False) -> None:
        self.source, self.device, self.labels = source, device or torch.device("cpu"), labels
        self.name = source.name if source.name != DataSource.name else type(source).__name__
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            size = source.size(split)
            stream = size is None and split == "train"
            if not stream and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
                raise UsageError(
                    f"{self.name}.size({split!r}) is the number of examples, 1 or more"
                    + (", or None for a stream" if split == "train" else "")
                    + f"; got {size!r}."
                )

    def __repr__(self) -> str:
        return f"{self.name}: {type(self.source).__name__}"

    @property
    def random_access(self) -> bool:
        """See `DataSource`."""
        return bool(self.source.random_access)

    @cached_property
    def example(self) -> Batch:
        """Shapes and types of two examples, on the meta device."""
        batch = as_batch(self.source.example, self.name)
        return Batch(*(mapped(part, lambda leaf: leaf.to("meta")) for part in batch))

    @cached_property
    def tests_classes(self) -> bool:
        """Whether test targets are one tensor of integers, which those of training may not be (soft targets)."""
        targets = next(self.evaluation("test", PROBES)).targets
        return isinstance(targets, Tensor) and not targets.is_floating_point()

    @property
    def has_tensors(self) -> bool:
        """Whether inputs and targets are one tensor each, and that is all a network is given."""
        return not self.labels and all(isinstance(part, Tensor) for part in self.example)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input; () if it is not one tensor."""
        return tuple(self.example.inputs.shape[1:]) if isinstance(self.example.inputs, Tensor) else ()

    @property
    def class_targets(self) -> bool:
        """Whether targets are one tensor of integers."""
        targets = self.example.targets
        return isinstance(targets, Tensor) and not targets.is_floating_point()

    @property
    def classes(self) -> int:
        """Number of classes, or of outputs for floating targets.

        Raises:
            UsageError: if the source does not say.
        """
        if self.source.classes is not None:
            return int(self.source.classes)
        targets = self.example.targets
        if isinstance(targets, Tensor) and targets.is_floating_point():
            return max(1, targets[0].numel())
        raise UsageError(f"{self.name} does not say how many classes there are: set its attribute `classes`.")

    def size(self, split: Split = "train") -> int:
        """Number of examples; `ENDLESS` of a stream."""
        found = self.source.size(split)
        return ENDLESS if found is None else int(found)

    def class_labels(self, split: Split = "train") -> Tensor | None:
        """The classes of all examples are not known before they are read."""
        return None

    @property
    def fingerprint(self) -> str:
        """Of the content, as the source states it, of the code that reads it, and of its texts and numbers."""
        if (stated := self.source.fingerprint) is None:
            raise key.NotCacheableError(f"the data source {self.name} states no fingerprint")
        if not key.is_users(self.source):
            return key.digest({"content": stated, "kind": key.kind(self.source), "more": {}})
        more = {n: v for n, v in vars(self.source).items() if isinstance(v, str | int | float)}
        kind = key.record(type(self.source), self.name, files=self.states_content)
        return key.digest({"content": stated, "kind": kind, "more": more})

    @property
    def states_content(self) -> bool:
        """See `DataSource`."""
        return self.source.states_content

    def check_batch_size(self, batch_size: int) -> None:
        """Raise ``UsageError`` if the source has batches of another size."""
        if self.source.batch_size not in (None, batch_size):
            raise UsageError(
                f"{self.name} has batch_size={self.source.batch_size} and the recipe {batch_size}: give "
                f"the recipe batch_size={self.source.batch_size}."
            )

    def hold_out(self, count: int) -> Adapted:
        """The same with training examples set aside to validate, of a source that has its examples by number.

        Raises:
            UsageError: if examples are to be held out of another one.
        """
        if count and hasattr(self.source, "hold_out"):
            return Adapted(self.source.hold_out(count), self.device, self.labels)
        if count:
            raise UsageError(
                f"validation={count} holds examples out of data that gives them by number; {self.name} does not: let "
                "size('validation') and eval_batches('validation', ...) give one."
            )
        return self

    def to(self, device: torch.device) -> Adapted:
        """The same source, delivered to another device."""
        return self if device == self.device else Adapted(self.source, device, self.labels)

    def batches(
        self, seed: int, start: int, stop: int, batch_size: int, augment: Augmentation | None = None
    ) -> Iterator[Batch]:
        """The training batches of steps ``start`` to ``stop - 1``; see `DataSource.train_batches`.

        Raises:
            UsageError: if the source ends before, or gives no batch.
        """
        found = self._unlabelled(seed, start, stop, batch_size, augment)
        yield from map(labelled, found) if self.labels else found

    def _unlabelled(
        self, seed: int, start: int, stop: int, batch_size: int, augment: Augmentation | None
    ) -> Iterator[Batch]:
        if is_own(augment):
            yield from changed(self._unlabelled(seed, start, stop, batch_size, None), augment, seed, start)
            return
        if augment is not None:
            raise UsageError(
                f"lotto.data.Augment is for lotto.data.Arrays and ImageFolder; {self.name} changes its own batches, or "
                "give augment= a function of (batch, generator)."
            )
        first = start if self.random_access else 0
        given = islice(self.source.train_batches(seed, first, stop, batch_size), start - first, stop - first)
        step = start
        for value in given:
            step += 1
            yield moved(as_batch(value, self.name), self.device)
        if step < stop:
            raise UsageError(
                f"{self.name} ended at step {step} of a training that goes to {stop}: train_batches gives one batch "
                "for every step, epoch after epoch."
            )

    def evaluation(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """All examples of a split, in one order.

        Raises:
            UsageError: if the split is empty, or gives another number of examples than it says.
        """
        if not (size := self.size(split)):
            raise UsageError(f"{self.name} has no {split} split: its size({split!r}) is 0.")
        found = 0
        for value in self.source.eval_batches(split, batch_size):
            batch = as_batch(value, self.name)
            found += count(batch)
            if found > size:
                break
            batch = moved(batch, self.device)
            yield labelled(batch) if self.labels else batch
        if found != size and size != ENDLESS:
            raise UsageError(
                f"{self.name} gives {'more' if found > size else 'only ' + str(found)} of the {size} {split} examples "
                f"that size({split!r}) says."
            )

    def check_repeatable(self, batch_size: int, steps: int) -> None:
        """Read the first batches of so many steps twice, and the last of them alone.

        Raises:
            UsageError: if batches of one (seed, step) differ.
        """
        last = steps - 1
        first, again, alone = (list(self.batches(0, begin, steps, batch_size)) for begin in (0, 0, last))
        for step, (one, two) in enumerate(zip(first, again, strict=True)):
            self._check_same(one, two, f"another batch for (seed 0, step {step}) when it is read again")
        self._check_same(first[last], alone[0], f"another batch for (seed 0, step {last}) if training begins there")
        one, two = (next(self.evaluation("test", batch_size)) for _ in range(2))
        self._check_same(one, two, "another first test batch when it is read again")

    def ignores_seed(self, batch_size: int) -> bool:
        """Whether the data orders 0 and 1 begin with the same batch."""
        one, two = (next(self.batches(seed, 0, 1, batch_size)) for seed in (0, 1))
        return same(one, two)

    def _check_same(self, one: Batch, two: Batch, what: str) -> None:
        if not same(one, two):
            raise UsageError(f"{self.name} gives {what}: {self.source.advice}.")


def same(one: Batch, two: Batch) -> bool:
    """Whether two batches are equal to the bit."""
    leaves = [{str(i): leaf for i, leaf in enumerate(flatten(b)) if isinstance(leaf, Tensor)} for b in (one, two)]
    return [*leaves[0]] == [*leaves[1]] and digest(leaves[0]) == digest(leaves[1])
