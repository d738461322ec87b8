"""What values of replicates say about a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import numpy as np

from lotto.core.check import checked

CONFIDENCE = 0.95
"""A statistic is on one side of a threshold when its t-interval at this level is."""


class Verdict(str, Enum):
    """What results say about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "not decided at this scale"


@checked
def interval(values: Sequence[float]) -> tuple[float, float]:
    """The t-interval of the mean at `CONFIDENCE`; everything for fewer than two values."""
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    from scipy.special import stdtrit  # a third of a second to import, which experiments do without

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - half, mean + half


@checked
def decide(values: Sequence[float], threshold: float, below: bool) -> Verdict:
    """Whether the mean is below (or above) a threshold.

    Supported when the whole interval is on the claimed side, contradicted when all of it is on the other.
    """
    low, high = interval(values)
    under, over = high < threshold, low > threshold
    if not under and not over:
        return Verdict.UNDECIDED
    return Verdict.SUPPORTED if under == below else Verdict.CONTRADICTED
