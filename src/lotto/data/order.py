"""Which examples each training batch has: a function of the data order's seed and the step, for whatever holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lotto.core.errors import UsageError
from lotto.core.rng import stream


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which epoch ``epoch`` of the data order ``seed`` visits ``size`` examples."""
    return stream(seed, "order", epoch).permutation(size)


def check_batch_size(batch_size: int, size: int) -> None:
    """Raise ``UsageError`` unless a batch fits into the training set."""
    if not 1 <= batch_size <= size:
        raise UsageError(f"The batch size must be between 1 and the {size} training examples; got {batch_size}.")


def batches_of(
    seed: int, start: int, stop: int, batch_size: int, size: int, held: Callable[[np.ndarray], Any] = np.asarray
) -> Iterator[tuple[int, Any]]:
    """Steps ``start`` to ``stop - 1`` with the indices of their examples; an epoch's incomplete last batch is dropped.

    Args:
        seed: of the data order.
        start, stop: see there.
        batch_size: examples of a batch.
        size: examples of the training set.
        held: what an epoch's order is held as, of which batches are slices.
    """
    check_batch_size(batch_size, size)
    per_epoch = size // batch_size
    epoch, order = -1, held(np.zeros(0, np.int64))
    for step in range(start, stop):
        at, within = divmod(step, per_epoch)
        if at != epoch:
            epoch, order = at, held(permutation(seed, at, size))
        yield step, order[within * batch_size : (within + 1) * batch_size]
