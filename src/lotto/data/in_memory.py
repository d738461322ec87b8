"""A data set in memory as tensors; the batch of (order seed, step) is found by index."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.core.weights import raw_bytes
from lotto.data.augment import Augmentation, changed, is_own
from lotto.data.batch import Batch
from lotto.data.convert import check_examples, check_splits, inputs_from, targets_from
from lotto.data.normalise import Picker, normalised, picker, supports
from lotto.data.order import batches_of
from lotto.data.source import PROBES, DataSource, Split
from lotto.data.upload import uploaded

if TYPE_CHECKING:
    from typing_extensions import Self


def held_out(count: int, size: int, what: str = "examples") -> np.ndarray:
    """Which of ``size`` training examples are set aside to validate: always the same ones."""
    if not 0 < count < size:
        raise UsageError(f"Can hold out 1 to {size - 1} {what} for validation; got {count}.")
    return stream(0, "validation").permutation(size)[:count]


class Sized(Protocol):
    """What both kinds of data sets are: named, with a size for each split."""

    name: str

    def size(self, split: Split = "train") -> int:
        """Number of examples in a split."""


def check_split(data: Sized, split: Split) -> None:
    """Raise ``UsageError`` if a split is empty."""
    if not data.size(split):
        raise UsageError(f"The data set {data.name!r} has no {split} split; set validation=N in the recipe.")


_DERIVED = ("_moved", "_hashed", "classes")
_OWN = ("name", "x", "y", "_scale", "_shift", *_DERIVED)


@checked
class Arrays(DataSource):
    """A data set in memory.

    Training drops the incomplete last batch of an epoch; every epoch has a new order, so all examples
    are used.

    Args:
        x_train: training inputs, shape (examples, ...): an array, a tensor or nested lists. ``uint8`` images are
            scaled to [0, 1] and normalised per batch; floating inputs of any width are used as float32, booleans as 0
            and 1, other integers as int64 (tokens).
        y_train: training targets: integer classes, or anything the recipe's loss understands. Integers of any width
            and booleans become int64, floating numbers float32.
        x_test: test inputs.
        y_test: test targets.
        mean: per-channel mean of uint8 images in [0, 1]; default: that of the training images.
        std: per-channel standard deviation, likewise.
        name: what tables and logs call the set.

    Raises:
        UsageError: on mismatched lengths or shapes, an empty set, NaN, or what is no array of numbers (text labels,
            dicts, tuples of arrays, complex numbers).

    >>> x, y = np.zeros((6, 3, 8, 8), dtype=np.uint8), [0, 1, 2, 0, 1, 2]
    >>> data = Arrays(x[:4], y[:4], x[4:], y[4:], mean=[0.5] * 3, std=[0.25] * 3)
    >>> data.shape, data.classes, data.size("test")
    ((3, 8, 8), 3, 2)
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
        name: str = "arrays",
    ) -> None:
        self.name = name
        self.x: dict[str, Tensor] = {
            "train": inputs_from(x_train, "x_train"), "test": inputs_from(x_test, "x_test")
        }  # fmt: skip
        self.y: dict[str, Tensor] = {
            "train": targets_from(y_train, "y_train"), "test": targets_from(y_test, "y_test")
        }  # fmt: skip
        check_splits({split: len(x) for split, x in self.x.items()}, {split: len(y) for split, y in self.y.items()})
        check_examples(self.x, self.y)
        self._scale: Tensor | None
        self._shift: Tensor | None
        x = self.x["train"]
        self._scale, self._shift = normalisation(x, mean, std, lambda: image_statistics(x))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(x)} {split}" for split, x in self.x.items())
        return f"{type(self).__name__}({self.name!r}: {sizes}, inputs {'×'.join(map(str, self.shape))})"

    has_tensors = True
    """Inputs and targets are one tensor each."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x["train"].shape[1:])

    @property
    def example(self) -> Batch:
        """Shapes and types of two examples, on the meta device."""
        x = self.normalise(self.x["train"][:PROBES])
        return Batch(x.to("meta"), self.y["train"][:PROBES].to("meta"))

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: `batches`, not augmented."""
        return self.batches(seed, start, stop, batch_size)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """See `DataSource`: `evaluation`."""
        return self.evaluation(split, batch_size)

    @cached_property
    def classes(self) -> int:
        """Number of classes, or of outputs when the targets are not integer classes."""
        y = self.y["train"]
        if y.is_floating_point():
            return int(y[0].numel())
        return int(max(y.max(), self.y["test"].max())) + 1

    @property
    def class_targets(self) -> bool:
        """Whether the targets are integer classes."""
        return not self.y["train"].is_floating_point()

    def size(self, split: Split = "train") -> int:
        """Number of examples in a split."""
        return len(self.y[split]) if split in self.y else 0

    def class_labels(self, split: Split = "train") -> Tensor:
        """The class of every example, where targets are classes."""
        return self.y[split]

    @property
    def fingerprint(self) -> str:
        """Hash of the content, so that a run is remembered for exactly this data; what is edited has another one."""
        edition = self._edition()
        if self.__dict__.get("_hashed", (None,))[0] != edition:
            self.__dict__["_hashed"] = (edition, self._hash())
            self.__dict__.pop("_moved", None)  # copies on other devices of what it was before
        return str(self.__dict__["_hashed"][1])

    def _edition(self) -> tuple[Any, ...]:
        """What tells an edited set from the former one, many times as fast as a hash of all."""
        parts = [(p, s, t) for p in ("x", "y") for s, t in sorted(getattr(self, p).items())]
        return tuple((p, s, t.dtype, tuple(t.shape), str(t.device), zlib.crc32(raw_bytes(t))) for p, s, t in parts)

    def _hash(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in ("x", "y"):
            for split, tensor in sorted(getattr(self, part).items()):
                digest.update(f"{part}.{split}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
                digest.update(raw_bytes(tensor))
        for tensor_ in (self._scale, self._shift):
            digest.update(b"-" if tensor_ is None else tensor_.cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def additions(self) -> dict[str, Any]:
        """What a subclass holds besides the arrays."""
        return {k: v for k, v in sorted(vars(self).items()) if k not in _OWN}

    def _like(self, cached: Mapping[str, Any]) -> Self:
        """A set of the same class that holds the same, but for what is derived from the arrays."""
        other = object.__new__(type(self))
        other.__dict__.update({k: v for k, v in vars(self).items() if k not in _DERIVED}, **cached)
        return other

    @checked
    def hold_out(self, count: int) -> Self:
        """The same set with ``count`` training examples, always the same ones, set aside to validate."""
        if count == 0:
            return self
        chosen = torch.from_numpy(np.sort(held_out(count, self.size())))
        rest = torch.ones(self.size(), dtype=torch.bool)
        rest[chosen] = False
        other = self._like({"classes": self.classes})  # even if the last example of a class is held out
        for part in ("x", "y"):
            old = getattr(self, part)
            new = {**old, "train": old["train"][rest], "validation": old["train"][chosen]}
            setattr(other, part, new)
        return other

    def mirrored(self) -> Self:
        """The same set with every input backwards along its last axis: images are exchanged left and right."""
        other = self._like({"classes": self.classes})
        other.name, other.x = f"{self.name}, mirrored", {split: x.flip(-1) for split, x in self.x.items()}
        return other

    def to(self, device: torch.device) -> Self:
        """The same set on another device, moved there once."""
        if self.x["train"].device == device:
            return self
        moved: dict[Any, Self] = self.__dict__.setdefault("_moved", {})
        # What torch has edited is moved anew; what NumPy has, once the fingerprint has noticed it.
        edition = (device, *((id(t), t._version) for part in (self.x, self.y) for t in part.values()))
        if edition in moved:
            return moved[edition]
        moved.clear()
        other = moved[edition] = self._like({"classes": self.classes})
        other.x = {k: v.to(device) for k, v in self.x.items()}
        other.y = {k: v.to(device) for k, v in self.y.items()}
        if self._scale is not None and self._shift is not None:
            other._scale, other._shift = self._scale.to(device), self._shift.to(device)
        return other

    def normalise(self, x: Tensor) -> Tensor:
        """Scale and shift uint8 images to float32; floating inputs pass unchanged."""
        if self._scale is None or self._shift is None:
            return x
        return normalised(x, self._scale, self._shift)

    @checked
    def batches(
        self,
        seed: int,
        start: int,
        stop: int,
        batch_size: int,
        augment: Augmentation | None = None,
        feature_major: bool = False,
    ) -> Iterator[Batch]:
        """The training batches of steps ``start`` to ``stop - 1`` in the data order ``seed``.

        Inputs have the batch first; with ``feature_major`` the shape (features, batch).
        """
        if is_own(augment):
            yield from changed(self.batches(seed, start, stop, batch_size), augment, seed, start, feature_major)
            return
        x, y = self.x["train"], self.y["train"]
        picked: Picker | None = None
        if augment is None and self._scale is not None and self._shift is not None and supports(x):
            picked = picker(x, self._scale, self._shift, feature_major)
        for step, chosen in batches_of(
            seed, start, stop, batch_size, self.size(), lambda order: uploaded(torch.from_numpy(order), x.device)
        ):
            targets = y.index_select(0, chosen)
            if picked is not None:
                yield Batch(picked(chosen), targets)
                continue
            inputs = x.index_select(0, chosen)
            inputs = self.normalise(inputs if augment is None else augment(inputs, seed, step))
            yield Batch(inputs.flatten(1).t().contiguous() if feature_major else inputs, targets)

    @checked
    def evaluation(self, split: Split, batch_size: Count, stride: Count = 1) -> Iterator[Batch]:
        """All examples of a split, or every so manieth, in their own order, not augmented."""
        check_split(self, split)
        x, y = self.x[split][::stride], self.y[split][::stride]
        for i in range(0, len(y), batch_size):
            yield Batch(self.normalise(x[i : i + batch_size]), y[i : i + batch_size])


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def normalisation(
    x: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None, statistics: Callable[[], Statistics]
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Factor and summand that bytes become normalised floats with, of the shape of channels; None for other inputs.

    Args:
        x: some of the training inputs.
        mean, std: of [0, 1]; None = those of the training inputs.
        statistics: gives these.

    Raises:
        UsageError: if there is not one number, or one for each channel.
    """
    if x.dtype != torch.uint8:
        if mean is not None or std is not None:
            raise UsageError("mean and std are for uint8 images; floating inputs are used as they are.")
        return None, None
    own_mean, own_std = statistics() if mean is None or std is None else ((), ())
    values = []
    for what, given, own in (("mean", mean, own_mean), ("std", std, own_std)):
        chosen = own if given is None else tuple(given)
        if len(chosen) not in (1, x.shape[1]):
            raise UsageError(f"{what} has one value for each of the {x.shape[1]} channels, or one; got {len(chosen)}.")
        if what == "std" and min(chosen) <= 0:
            raise UsageError(f"std is greater than 0; got {chosen}.")
        shape = (-1, *[1] * (x.dim() - 2)) if x.dim() > 2 else (-1,)
        values.append(torch.tensor(chosen, device=x.device).view(shape))
    mean_, std_ = (t.contiguous() for t in torch.broadcast_tensors(*values))
    return 1.0 / (255.0 * std_), -mean_ / std_


def image_statistics(x: Tensor) -> Statistics:
    """Mean and standard deviation of uint8 inputs scaled to [0, 1].

    By channel for images (examples, channels, height, width, ...); one pair for anything of fewer dimensions.
    """
    return statistics_of([x])


def statistics_of(pieces: Iterable[Tensor]) -> Statistics:
    """The same of inputs whose examples come in pieces."""
    counted: list[Tensor] = []
    for x in pieces:
        channels: list[Any] = [*range(x.shape[1])] if x.dim() >= 4 else [slice(None)]
        found = [torch.bincount(x[:, channel].flatten().int(), minlength=256) for channel in channels]
        counted = [a + b for a, b in zip(counted, found, strict=True)] if counted else found
    mean, std = [], []
    for counts in counted:
        levels = torch.arange(256, dtype=torch.float64, device=counts.device) / 255
        fraction = counts.double() / counts.double().sum()
        m = float(fraction.dot(levels))
        mean.append(m)
        std.append(float(fraction.dot((levels - m) ** 2)) ** 0.5 or 1.0)  # a constant channel stays constant
    return tuple(mean), tuple(std)
