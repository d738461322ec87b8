"""Whether a sparse network is as good as its dense one: paired gaps against a tolerance, at one look or at two.

A gap is paired, ``metric(sparse, r) - metric(dense, r)`` of the same replicate r. Its mean is bounded from both sides;
a bound that lies on one side of the tolerance decides (a test of non-inferiority, or of its opposite).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from itertools import takewhile

import numpy as np

from lotto.core.check import Count, Fraction, checked
from lotto.core.statistics.means import CONFIDENCE, bound

NODES = 48
"""Of the quadrature, in each of its three dimensions: moves the level by less than 1e-5."""


class Match(str, Enum):
    """What paired gaps say about a tolerance.

    >>> Match.of(low=-0.1, high=0.15, tolerance=0.2), Match.of(low=-0.1, high=0.3, tolerance=0.2)
    (<Match.MATCHING: 'matching'>, <Match.BORDERLINE: 'borderline'>)
    """

    MATCHING = "matching"
    FAILING = "failing"
    BORDERLINE = "borderline"
    """Neither is shown: more replicates would decide."""
    UNDECIDED = "not decided (n = 1)"
    """One replicate has no spread, so it decides nothing."""

    @classmethod
    def of(cls, low: float, high: float, tolerance: float) -> Match:
        """From the lower and the upper bound of the mean gap, both finite unless there is one replicate."""
        if high == np.inf:
            return cls.UNDECIDED
        if high < tolerance:
            return cls.MATCHING
        return cls.FAILING if low > tolerance else cls.BORDERLINE


@checked
def match(gaps: Sequence[float], tolerance: float, confidence: Fraction = CONFIDENCE) -> Match:
    """The verdict of paired gaps: matching if their upper bound is below the tolerance, failing if the lower is above.

    Args:
        gaps: one per replicate, sparse minus dense, in the metric's unit (larger is worse).
        tolerance: how far above the dense one a matching network may be, in the same unit.
        confidence: of each one-sided bound. Where the same gaps are looked at twice, as they grow from n replicates
            to 2n, `confidence_per_look(n)` keeps both errors over both looks within 5 %.

    >>> match([0.05, 0.0, 0.1, 0.05, 0.02], tolerance=0.2)
    <Match.MATCHING: 'matching'>
    >>> match([0.05], tolerance=0.2)
    <Match.UNDECIDED: 'not decided (n = 1)'>
    """
    return Match.of(bound(gaps, "lower", confidence), bound(gaps, "upper", confidence), tolerance)


@checked
def leading_matches(verdicts: Sequence[Match]) -> int:
    """How many verdicts, from dense to sparse, match before the first that does not.

    Testing in a fixed sequence that ends at the first failure to show anything needs no correction for the number of
    tests: the claim "all up to here match" is wrong in at most 5 % of all cases.

    >>> leading_matches([Match.MATCHING, Match.MATCHING, Match.BORDERLINE, Match.MATCHING])
    2
    """
    return sum(1 for _ in takewhile(lambda verdict: verdict is Match.MATCHING, verdicts))


@checked
def confidence_per_look(first: Count, confidence: Fraction = CONFIDENCE) -> float:
    """The confidence of the bounds at each of two looks, at ``first`` replicates and at twice as many.

    The same at both (Pocock 1977, Biometrika 64, here for t-tests of few values), such that a bound of either look is
    wrong in at most ``1 - confidence`` of all cases. Computed by quadrature of the joint distribution of both
    t statistics, see `_error_of_two_looks`.

    >>> round(confidence_per_look(5), 3)
    0.971
    """
    if first < 2:
        return confidence  # one value decides nothing, so there is one look
    return _confidence_per_look(first, confidence)


@cache
def _confidence_per_look(first: int, confidence: float) -> float:
    from scipy.optimize import brentq

    alpha = 1 - confidence
    # Two looks at the same data err as one, two at other data twice as often: the level is between.
    return 1 - float(brentq(lambda level: _error_of_two_looks(first, level) - alpha, alpha / 2, alpha, xtol=1e-7))


def _error_of_two_looks(n: int, level: float) -> float:
    """How often a one-sided t-test of size ``level`` rejects a true hypothesis at n values, or at those and n more.

    With standard normal ``z1, z2`` (the means of both halves times √n) and chi-squared ``v1, v2`` of n-1 degrees (the
    sums of squares within them), ``t1 = z1 / √(v1 / (n-1))``, and over both halves, with ``a, b = (z1 ± z2) / √2``,
    ``t2 = a / √((v1 + v2 + b²) / (2n-1))``. It rejects at the first look with probability ``level``; that it does so
    at the second alone is the probability of ``v2 < (2n-1) a² / c2² - v1 - b²`` and ``a > 0``, integrated over
    ``z1 ≤ c1 √(v1 / (n-1))``, ``v1`` and ``z2`` by Gauss-Legendre quadrature in their probabilities.
    """
    from scipy.special import chdtr, chdtri, ndtr, ndtri, stdtrit

    c1, c2 = float(stdtrit(n - 1, 1 - level)), float(stdtrit(2 * n - 1, 1 - level))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    u, w = (nodes + 1) / 2, weights / 2
    v1 = chdtri(n - 1, u)[:, None, None]  # of the upper tail, which is as good: u is uniform
    below = ndtr(c1 * np.sqrt(v1 / (n - 1)))
    z1, z2 = ndtri(u[None, :, None] * below), ndtri(u)[None, None, :]
    a, b = (z1 + z2) / np.sqrt(2), (z1 - z2) / np.sqrt(2)
    room = np.where(a > 0, (2 * n - 1) * a**2 / c2**2 - v1 - b**2, 0.0)
    later = below * chdtr(n - 1, np.maximum(room, 0.0))
    return level + float(np.einsum("i,j,k,ijk->", w, w, w, later))
