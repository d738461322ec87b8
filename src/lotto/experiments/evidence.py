"""What values of replicates say for a statement and against it: p-values that combine, and the figure that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lotto.core.statistics import CONFIDENCE, bound, holm, p_value

LEVEL = 1 - CONFIDENCE
"""A statement is decided where a corrected p-value is below this."""


@dataclass(frozen=True)
class Evidence:
    """What results say about one statement.

    Attributes:
        holds: p-value of the test that shows the statement; small where the results speak for it.
        fails: p-value of the test that shows its opposite.
        figure: the statistic with the one-sided bound that lies towards the threshold.
        n: replicates; the fewest of what it is made of.
    """

    holds: float
    fails: float
    figure: str
    n: int

    @property
    def decided(self) -> bool | None:
        """Whether the statement is shown to hold or to fail at 5 % each; None if neither."""
        if self.holds < LEVEL:
            return True
        return False if self.fails < LEVEL else None

    def __invert__(self) -> Evidence:
        """The opposite statement."""
        return replace(self, holds=self.fails, fails=self.holds)

    def named(self, name: str) -> Evidence:
        """The same, with a name before the figure."""
        return replace(self, figure=f"{name} {self.figure}")


def below(values: pd.Series, threshold: float, unit: str = "") -> Evidence:
    """The statement that the mean of ``values``, one per replicate, is below a threshold.

    >>> below(pd.Series([0.1, 0.12, 0.08]), 0.2).figure
    '0.1 (≤ 0.134, n = 3)'
    """
    found = _of_replicates(values)
    holds, fails = (p_value(found, threshold, below=under) for under in (True, False))
    return Evidence(holds, fails, _figure(found, threshold, unit), len(found))


def above(values: pd.Series, threshold: float, unit: str = "") -> Evidence:
    """The statement that the mean of ``values`` is above a threshold."""
    return ~below(values, threshold, unit)


def between(values: pd.Series, low: float, high: float) -> Evidence:
    """The statement that the mean of ``values`` is between two thresholds (two one-sided tests)."""
    both = all_of([above(values, low), below(values, high)])
    nearest = high if abs(values.mean() - high) <= abs(values.mean() - low) else low
    return replace(both, figure=_figure(_of_replicates(values), nearest, ""))


def all_of(parts: Iterable[Evidence]) -> Evidence:
    """The statement that all parts hold.

    It is shown where each part is, so its p-value is the largest (an intersection-union test needs no correction); it
    is refuted where any part is, by the smallest p-value after Holm's correction.
    """
    found = list(parts)
    figures = list(dict.fromkeys(part.figure for part in found))
    return Evidence(
        max(part.holds for part in found),
        min(holm([part.fails for part in found])),
        "; ".join(figures),
        min(part.n for part in found),
    )


@dataclass(frozen=True)
class Point:
    """One point of an *exactly when* claim.

    Attributes:
        name: where it is.
        one, other: the two statements that are claimed to hold or fail together.
    """

    name: str
    one: Evidence
    other: Evidence

    @property
    def both(self) -> Evidence:
        """That both hold."""
        return all_of([self.one, self.other])

    @property
    def neither(self) -> Evidence:
        """That both fail."""
        return all_of([~self.one, ~self.other])

    @property
    def differ(self) -> float:
        """p-value of the test that one of them holds and the other fails."""
        return min(1.0, 2 * min(max(self.one.holds, self.other.fails), max(self.one.fails, self.other.holds)))


def exactly_when(points: list[Point], positive: Point | None, negative: Point | None) -> Evidence:
    """The statement that at every point both statements hold or both fail.

    Args:
        points: all of them; any that is shown to differ, by Holm's correction over all, refutes the claim.
        positive: the point, fixed beforehand, at which both are to hold; None = not measured.
        negative: the one at which both are to fail. The claim is shown where both points are as claimed and none of
            the others is shown to differ: a claim of two sides needs a point on each.
    """
    fails = min(holm([point.differ for point in points]), default=1.0)
    agree = sum(1 for point in points if min(point.both.holds, point.neither.holds) < LEVEL)
    # By the same measure, each by itself: the count would else hide what does not survive the correction.
    alone = [point.name for point in points if point.differ < LEVEL]
    parts = [f"{agree} of {agree + len(alone)} decided points agree, {len(points)} points"]
    if alone:
        corrected = "" if fails < LEVEL else ", not after Holm's correction"
        parts.append(f"differing by themselves{corrected}: {'; '.join(alone)}")
    needed = []
    for point, side in ((positive, "both hold"), (negative, "neither holds")):
        if point is None:
            parts.append(f"no point at which {side}")
        else:
            needed.append(point.both if point is positive else point.neither)
            parts.append(f"{point.name}: {point.one.figure}, {point.other.figure}")
    holds = max(p.holds for p in needed) if len(needed) == 2 and fails >= LEVEL else 1.0
    return Evidence(holds, fails, "; ".join(parts), min((p.one.n for p in points), default=0))


def _of_replicates(values: pd.Series) -> list[float]:
    """One value per seed: trainings of one seed that parted are no replicates of each other, but their mean is one."""
    if "seed" in values.index.names:
        values = values.groupby("seed").mean()
    return [float(v) for v in values]


def _figure(values: list[float], threshold: float, unit: str) -> str:
    """The mean, the bound that lies towards the threshold, and how many values these are of."""
    n = len(values)
    mean, unit = float(np.mean(values)) if n else 0.0, f" {unit}" if unit else ""
    if n < 2:
        return f"{mean:.3g}{unit} (n = {n}, no bound)"
    side, sign = ("upper", "≤") if mean < threshold else ("lower", "≥")
    limit = bound(values, "upper" if side == "upper" else "lower")
    return f"{mean:.3g}{unit} ({sign} {limit:.3g}, n = {n})"
