"""Augmentation as batched tensor operations from a counter-based generator, or by a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotto.core.check import checked, whole_number
from lotto.core.errors import UsageError, text
from lotto.core.rng import stream, torch_seed
from lotto.data.batch import Batch, as_batch
from lotto.data.upload import uploaded


class Rows(NamedTuple):
    """Some examples of a batch.

    Attributes:
        chosen: their numbers.
        of: how many the batch has.
    """

    chosen: np.ndarray
    of: int


@checked
@dataclass(frozen=True)
class Augment:
    """Random shift by up to ``crop`` pixels (pad with black, then crop) and random horizontal flip.

    Attributes:
        crop: padding in pixels on every side; 0 for none. CIFAR's usual value is 4.
        flip: whether to mirror each image with probability one half.

    >>> images = torch.arange(32.0).reshape(2, 1, 4, 4)
    >>> augmented = Augment(crop=1, flip=True)(images, seed=0, step=7)
    >>> torch.equal(augmented, Augment(crop=1, flip=True)(images, seed=0, step=7))
    True
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.crop, int) or not isinstance(self.flip, bool) or self.crop < 0:
            raise UsageError(f"Augmentation pads by 0 or more pixels; got crop={self.crop!r}, flip={self.flip!r}.")

    def __call__(self, x: Tensor, seed: int, step: int, rows: Rows | None = None) -> Tensor:
        """Augment a batch of images, shape (batch, channels, height, width), for (seed, step).

        With ``rows`` the images are those of a larger batch, as they would be augmented there.
        """
        if not isinstance(x, Tensor) or x.dim() != 4:
            raise UsageError(f"Augmentation needs images of shape (channels, height, width); got {text(x)}.")
        generator = stream(
            seed if type(seed) is int and abs(seed) < 2**63 else whole_number(seed, "seed"),
            "augment",
            whole_number(step, "step"),
        )
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        whole, chosen = (batch, slice(None)) if rows is None else (rows.of, rows.chosen)
        if self.crop:
            top, left = _drawn(generator.integers(0, 2 * self.crop + 1, (2, whole))[:, chosen], x.device)
            windows = F.pad(x, [self.crop] * 4).unfold(2, height, 1).unfold(3, width, 1)
            x = windows[torch.arange(batch, device=x.device), :, top, left]
        if self.flip:
            flipped = _drawn(generator.integers(0, 2, whole).astype(bool)[chosen], x.device)
            x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        return x


def _drawn(numbers: np.ndarray, device: torch.device) -> Tensor:
    return uploaded(torch.from_numpy(numbers), device)


if TYPE_CHECKING:
    from typing_extensions import TypeIs

Augmentation = Augment | Callable[[Batch, torch.Generator], Any]
"""Of ours, or a function of a batch and a generator that returns a batch."""


def is_own(augment: Augmentation | None) -> TypeIs[Callable[[Batch, torch.Generator], Any]]:
    """Whether batches are changed by a function of the user's."""
    return augment is not None and not isinstance(augment, Augment)


def changed(
    batches: Iterable[Batch],
    change: Callable[[Batch, torch.Generator], Any],
    seed: int,
    first: int,
    feature_major: bool = False,
) -> Iterator[Batch]:
    """Training batches by a function of the user's, with a generator of (seed, step) on the CPU for each.

    Args:
        batches: as a network is given them, normalised.
        change: see `Augmentation`.
        seed: the data order.
        first: the step of the first batch.
        feature_major: whether inputs are to have the shape (features, batch).
    """
    if isinstance(change, type) or not _takes_two(change):
        raise UsageError(
            f"augment is a function (batch, generator) -> batch, or lotto.data.Augment; got {text(change)}."
        )
    for step, batch in enumerate(batches, first):
        generator = torch.Generator().manual_seed(torch_seed(seed, "augment", step))
        inputs, targets = as_batch(change(batch, generator), "augment")
        yield Batch(inputs.flatten(1).t().contiguous() if feature_major else inputs, targets)


def _takes_two(change: Callable[..., Any]) -> bool:
    """Whether a function can be called with two arguments, as far as it says what it takes."""
    try:
        inspect.signature(change.forward if isinstance(change, nn.Module) else change).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a built-in that says nothing
        return True
    return True
