"""How far two masks agree, and how far random ones of the same layer densities would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.shown import shown
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike

SPREADS, LEAST = 10.0, 40
"""How far from its mean a number of common weights is followed: so many standard deviations, and so many weights more.
What is left out has a probability below 1e-20."""


@dataclass(frozen=True)
class Overlap:
    """How many weights two masks have in common.

    Attributes:
        common: weights that both leave.
        either: weights that one of them leaves, or both.
        expected: the mean Jaccard index of two independent random masks with the same number of weights left in every
            layer, each such mask equally likely; exact but for rounding. NaN where both are empty.

    >>> a = {"fc.weight": torch.tensor([True, True, False, False])}
    >>> b = {"fc.weight": torch.tensor([True, False, True, False])}
    >>> found = lotto.pruning.overlap(a, b)
    >>> found.common, found.either, round(found.jaccard, 3), round(found.expected, 3)
    (1, 3, 0.333, 0.389)
    """

    common: int
    either: int
    expected: float

    @property
    def jaccard(self) -> float:
        """``common / either``: 1 for equal masks, 0 for disjoint ones; NaN where both are empty."""
        return self.common / self.either if self.either else math.nan

    __repr__ = shown


@checked
def overlap(a: MaskLike, b: MaskLike) -> Overlap:
    """Compare two masks over the same weights; of nested ones the Jaccard index is the ratio of their densities.

    Args:
        a, b: with the same names and shapes.

    Raises:
        UsageError: if names or shapes differ.

    >>> lotto.pruning.overlap(mask, mask).jaccard
    1.0
    """
    masks.check_fits(a, b)
    masks.check_fits(b, a)
    common = sum(int(torch.logical_and(keep.cpu(), b[name].cpu()).sum()) for name, keep in a.items())
    layers = [(keep.numel(), int(keep.sum()), int(b[name].sum())) for name, keep in a.items()]
    return Overlap(common, masks.count(a) + masks.count(b) - common, expected_jaccard(layers))


def expected_jaccard(layers: Sequence[tuple[int, int, int]]) -> float:
    """The mean Jaccard index of two independent random masks.

    In a layer of n weights of which they leave a and b, the number X of common ones is hypergeometric; the index is
    ``X / (A + B - X)`` for the sums over layers. It is no linear function of X, so its mean is taken over the
    distribution of the sum, the convolution of those of the layers.

    Args:
        layers: ``(n, a, b)`` for each.

    >>> round(expected_jaccard([(4, 2, 2)]), 12) == round((1 / 6) * 0 + (4 / 6) * (1 / 3) + (1 / 6) * 1, 12)
    True
    """
    if any(not 0 <= kept <= n for n, a, b in layers for kept in (a, b)):
        raise UsageError(f"A layer leaves from none to all of its weights; got (weights, left, left) = {layers}.")
    first, probability = 0, np.ones(1)
    for n, a, b in layers:
        least, chances = _common(n, a, b)
        first, probability = first + least, np.convolve(probability, chances)
        offset = int(np.argmax(probability > 1e-40))  # what many layers add in the tails is never seen
        last = len(probability) - int(np.argmax(probability[::-1] > 1e-40))
        first, probability = first + offset, probability[offset:last]
    total = sum(a + b for _, a, b in layers)
    if not total:
        return math.nan
    common = first + np.arange(len(probability))
    return float(np.sum(probability * (common / (total - common))) / probability.sum())


def _common(n: int, a: int, b: int) -> tuple[int, np.ndarray]:
    """The distribution of the number of common weights in a layer: its first value, and the probabilities from there.

    By the ratio of neighbours, from the mode outwards, so that no factorial of a large layer loses digits.
    """
    least, most = max(0, a + b - n), min(a, b)
    mean = a * b / n if n else 0.0
    variance = mean * (n - a) * (n - b) / (n * (n - 1)) if n > 1 else 0.0
    reach = SPREADS * math.sqrt(variance) + LEAST
    least, most = max(least, math.floor(mean - reach)), min(most, math.ceil(mean + reach))
    x = np.arange(least, most, dtype=np.float64)  # x -> x + 1
    steps = np.log((a - x) * (b - x)) - np.log((x + 1) * (n - a - b + x + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chances = np.exp(logs - logs.max())
    return least, chances / chances.sum()
