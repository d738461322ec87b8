"""What the mistakes of two networks on one test set say, example by example."""

from __future__ import annotations

from typing import Any

import numpy as np

from lotto.core.check import Whole, checked
from lotto.core.errors import UsageError


@checked
def mcnemar(first_only: Whole, second_only: Whole) -> float:
    """The two-sided p-value of McNemar's exact test that two networks err equally often.

    Args:
        first_only: how many examples the first network gets wrong and the second right.
        second_only: the opposite. Those that both get wrong, or both right, say nothing of a difference.

    Source: McNemar 1947, Psychometrika 12; the exact binomial form.

    >>> round(mcnemar(2, 9), 4)
    0.0654
    """
    from scipy.special import bdtr

    n = first_only + second_only
    return min(1.0, 2 * float(bdtr(min(first_only, second_only), n, 0.5))) if n else 1.0


def discordant(first: Any, second: Any) -> tuple[int, int]:
    """How many examples only the first, and only the second, gets wrong: the arguments of `mcnemar`.

    Args:
        first, second: one truth value per test example, true where it is a mistake; arrays or tensors of one length.

    >>> discordant([True, True, False], [True, False, False])
    (1, 0)
    """
    one, two = _mistakes(first, second)
    return int((one & ~two).sum()), int((two & ~one).sum())


def sampling_variance(first: Any, second: Any) -> np.ndarray:
    """The part of a paired gap's variance that the choice of the test examples makes, as a fraction squared.

    The gap of the error rates is a mean over N examples of differences -1, 0 or 1; that mean has the variance of the
    differences (with N - 1) divided by N. Times 100² for gaps in percentage points.

    Args:
        first, second: truth values of the shape (N,), or (replicates, N): true where it is a mistake.

    Returns:
        One variance, without axes, or one per replicate.

    >>> float(sampling_variance([True, False, False, False], [False, False, False, False]))
    0.0625
    """
    one, two = _mistakes(first, second)
    if one.shape[-1] < 2:
        raise UsageError(f"A variance over test examples needs two or more; got {one.shape[-1]}.")
    differences = one.astype(float) - two.astype(float)
    return np.asarray(differences.var(axis=-1, ddof=1) / differences.shape[-1])


def _mistakes(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape:
        raise UsageError(f"Mistakes are compared on the same test examples; got shapes {one.shape} and {two.shape}.")
    return one, two
