"""How many replicates decide."""

from __future__ import annotations

import math

from lotto.core.check import Count, Fraction, NotNegative, checked
from lotto.core.statistics.means import CONFIDENCE

POWER = 0.8
"""How often a verdict is to be reached, unless asked otherwise."""
MOST = 100_000
"""More replicates are not counted."""


@checked
def power_of(replicates: Count, std: NotNegative, distance: float, confidence: Fraction = CONFIDENCE) -> float:
    """How often so many replicates decide: the power of the one-sided t-test, by the noncentral t distribution.

    Args:
        replicates: how many paired gaps.
        std: standard deviation of a paired gap.
        distance: of the true gap from the tolerance, in the same unit; the sign does not matter.
        confidence: of the one-sided bound.

    >>> round(power_of(5, 0.15, 0.2), 2)
    0.79
    """
    if replicates < 2 or distance == 0:
        return 0.0
    if std == 0:
        return 1.0
    from scipy.special import nctdtr, stdtrit

    noncentrality = abs(distance) / std * math.sqrt(replicates)
    limit = float(stdtrit(replicates - 1, confidence))
    if noncentrality - limit > 30:  # out of the range of the distribution's series
        return 1.0
    return 1 - float(nctdtr(replicates - 1, noncentrality, limit))


@checked
def replicates_needed(
    std: NotNegative,
    tolerance: float,
    gap: float = 0.0,
    power: Fraction = POWER,
    confidence: Fraction = CONFIDENCE,
) -> float:
    """The least number of replicates that decides about a tolerance in so many of all cases.

    Args:
        std: standard deviation of a paired gap, in the metric's unit.
        tolerance: in the same unit.
        gap: the true mean gap: below the tolerance it is to be shown matching, above it failing.
        power: how often the verdict is to be reached.
        confidence: of the one-sided bound.

    Returns:
        The number; infinite where the gap is the tolerance, or more than 100,000 would be needed.

    >>> replicates_needed(0.115, tolerance=0.2)
    4
    """

    def enough(n: int) -> bool:
        return power_of(n, std, tolerance - gap, confidence) >= power

    high = 2
    while not enough(high):
        if high > MOST:
            return math.inf
        high *= 2
    low = high // 2  # not enough, or one
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
