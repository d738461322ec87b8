"""The paired gap of a level: how far a sparse network is above the dense one of the same replicate, with its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lotto.core.statistics import Match, bound
from lotto.recipe.tolerance import Tolerance


@dataclass(frozen=True)
class Gap:
    """What the errors of a level say, replicate by replicate, about a tolerance.

    Attributes:
        mean: of ``sparse - dense`` over the replicates, in the error's unit; NaN if there are none.
        low, high: one-sided bounds of its true value; NaN for fewer than two replicates.
        tolerance: how far above the dense error a matching one is, in the error's unit.
        verdict: by the bounds.
        within: whether the mean itself is within the tolerance: what is likely, though perhaps not shown.
    """

    mean: float
    low: float
    high: float
    tolerance: float
    verdict: Match
    within: bool


ROUNDING = 1e-9
"""Of a mean error, where its gap equals the tolerance."""


def gap_of(dense: Sequence[float], sparse: Sequence[float], margin: Tolerance, confidence: float) -> Gap:
    """The gap of a level.

    A relative tolerance moves with each replicate's dense error, so what is bounded is each replicate's distance from
    its own limit; for a tolerance in the error's unit that is the gap, moved.

    Args:
        dense, sparse: errors of the same replicates.
        margin: the tolerance.
        confidence: of each one-sided bound.
    """
    if not len(dense):
        return Gap(math.nan, math.nan, math.nan, math.nan, Match.UNDECIDED, False)
    gaps = np.subtract(sparse, dense)
    allowed = np.array([margin.above(value) for value in dense])
    tolerance, beyond = float(allowed.mean()), list(gaps - allowed)
    low, high = bound(beyond, "lower", confidence), bound(beyond, "upper", confidence)
    ends = (tolerance + low, tolerance + high) if len(gaps) > 1 else (math.nan, math.nan)
    within = float(gaps.mean()) <= tolerance + ROUNDING * min(1.0, abs(float(np.mean(dense))))
    return Gap(float(gaps.mean()), *ends, tolerance, Match.of(low, high, 0.0), within)
