"""What values of replicates say about their mean: bounds by Student's t, p-values, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Literal

import numpy as np

from lotto.core.check import Fraction, checked

CONFIDENCE = 0.95
"""Of every bound and interval, unless another is asked for."""

Side = Literal["upper", "lower"]


class Verdict(str, Enum):
    """What results say about a claim.

    >>> Verdict("supported"), decide([0.1, 0.3], 0.2, below=True).value
    (<Verdict.SUPPORTED: 'supported'>, 'not decided')
    """

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "not decided"
    AGREES = "agrees at another scale"
    """As supported, by results of a network of which the claim's conditions do not hold or cannot be checked."""
    DIFFERS = "differs at another scale"


@checked
def interval(values: Sequence[float], confidence: Fraction = CONFIDENCE) -> tuple[float, float]:
    """The two-sided t-interval of the mean, in the unit of the values; everything for fewer than two values.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    half = _half_width(values, (1 + confidence) / 2)
    mean = float(np.mean(values)) if len(values) else 0.0
    return mean - half, mean + half


@checked
def bound(values: Sequence[float], side: Side, confidence: Fraction = CONFIDENCE) -> float:
    """The one-sided t-bound of the mean: it lies beyond the true mean in at most ``1 - confidence`` of all cases.

    Args:
        values: one per replicate, independent of each other.
        side: ``upper``: the mean is below it; ``lower``: the mean is above it.
        confidence: of the bound.

    Returns:
        The bound in the unit of the values; infinite on its side for fewer than two values.

    >>> round(bound([1.0, 2.0, 3.0], "upper"), 3)
    3.686
    """
    half = _half_width(values, confidence)
    mean = float(np.mean(values)) if len(values) else 0.0
    return mean + half if side == "upper" else mean - half


@checked
def p_value(values: Sequence[float], threshold: float, below: bool) -> float:
    """The p-value of the one-sided t-test that the mean is below (or above) a threshold.

    Small where the values speak for it: it is less than 0.05 exactly where the one-sided 95 % bound is on the claimed
    side. 1 for fewer than two values, which speak for nothing.

    >>> round(p_value([0.1, 0.12, 0.08], 0.2, below=True), 4)
    0.0065
    """
    n = len(values)
    if n < 2:
        return 1.0
    from scipy.special import stdtr  # a third of a second to import, which experiments do without

    distance = threshold - float(np.mean(values)) if below else float(np.mean(values)) - threshold
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    if error == 0:  # equal values leave no doubt, except on the threshold itself
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(n - 1, -distance / error))


@checked
def decide(values: Sequence[float], threshold: float, below: bool, confidence: Fraction = CONFIDENCE) -> Verdict:
    """Whether the mean is below (or above) a threshold, by its one-sided t-bounds.

    Supported when the bound is on the claimed side, contradicted when the opposite bound is on the other; each is
    wrong in at most ``1 - confidence`` of all cases. Fewer than two values decide nothing. `p_value` of both
    directions says the same, and can be corrected by `holm` where there are several claims.

    >>> decide([0.1, 0.12, 0.08], 0.2, below=True)
    <Verdict.SUPPORTED: 'supported'>
    """
    under, over = bound(values, "upper", confidence) < threshold, bound(values, "lower", confidence) > threshold
    if not under and not over:
        return Verdict.UNDECIDED
    return Verdict.SUPPORTED if under == below else Verdict.CONTRADICTED


@checked
def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure, in the order given.

    Rejecting where the corrected value is below 0.05 makes one or more errors in at most 5 % of all cases, however the
    tests depend on each other (Holm 1979, Scandinavian Journal of Statistics 6).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _half_width(values: Sequence[float], quantile: float) -> float:
    """How far a t-bound is from the mean: infinitely far for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.inf
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, quantile)) * float(np.std(values, ddof=1)) / math.sqrt(n)
