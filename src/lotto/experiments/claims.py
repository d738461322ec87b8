"""Claims of the papers as statements that stored results decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd

from lotto.experiments.results import Setting

CONFIDENCE = 0.95
"""A statistic is on one side of a threshold when its t-interval at this level is."""


class Verdict(str, Enum):
    """What results say about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "not decided at this scale"


@dataclass(frozen=True)
class Finding:
    """What one setting says about a claim.

    Attributes:
        where: the setting, and what of it was looked at.
        values: the statistic, one value per replicate.
        verdict: see `decide`.
        note: a figure in words that takes the place of the values.
    """

    where: str
    values: tuple[float, ...]
    verdict: Verdict
    note: str = ""

    @property
    def figure(self) -> str:
        """The statistic with its spread over replicates and its interval."""
        if self.note:
            return self.note
        n, mean = len(self.values), float(np.mean(self.values))
        if n < 2:
            return f"{mean:.3g} (n = {n}, no spread)"
        low, high = interval(self.values)
        return f"{mean:.3g} ± {np.std(self.values, ddof=1):.2g} (n = {n}, 95 % interval {low:.3g} to {high:.3g})"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper.

    Attributes:
        number: its place in the list.
        sentence: the claim.
        source: where it is made.
        statistic: what decides it, and the threshold.
        paper: the paper's figure.
        command: how results that decide it are made.
        find: what settings say; nothing if none of them has the rows.
    """

    number: int
    sentence: str
    source: str
    statistic: str
    paper: str
    command: str
    find: Callable[[Sequence[Setting]], list[Finding]]


@dataclass(frozen=True)
class Decision:
    """A claim with all that was found about it."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """That of the findings that decide; undecided if they disagree or if there are none."""
        decided = {f.verdict for f in self.findings} - {Verdict.UNDECIDED}
        return decided.pop() if len(decided) == 1 else Verdict.UNDECIDED


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The t-interval of the mean at `CONFIDENCE`; everything for fewer than two values."""
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    from scipy.special import stdtrit  # a third of a second to import, which experiments do without

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - half, mean + half


def decide(values: Sequence[float], threshold: float, below: bool) -> Verdict:
    """Whether the mean is below (or above) a threshold.

    Supported when the whole interval is on the claimed side, contradicted when all of it is on the other.
    """
    low, high = interval(values)
    under, over = high < threshold, low > threshold
    if not under and not over:
        return Verdict.UNDECIDED
    return Verdict.SUPPORTED if under == below else Verdict.CONTRADICTED


def values(setting: Setting, **about: object) -> pd.Series:
    """Mean over samples by replicate of the rows with these column values."""
    rows = setting.frame
    for column, value in about.items():
        rows = rows[rows[column] == value]
    return rows.groupby("replicate")["value"].mean()


def dense_errors(setting: Setting) -> pd.Series:
    """Error of the dense network by replicate."""
    rows = setting.frame
    rows = rows[(rows["measure"] == "error") & (rows["level"] == 0) & (rows["sample"] == 0)]
    return rows.groupby("replicate")["value"].first()


def gap(setting: Setting, k: int, level: int, kind: str = "imp") -> pd.Series:
    """Error of a subnetwork above that of the dense network, by replicate."""
    found = values(setting, measure="error", kind=kind, rewind_step=k, level=level)
    return (found - dense_errors(setting)).dropna()


def finding_of(where: str, found: pd.Series, threshold: float, below: bool) -> list[Finding]:
    """What values by replicate say about a threshold; nothing if there are none."""
    if found.empty:
        return []
    sample = tuple(float(v) for v in found)
    return [Finding(where, sample, decide(sample, threshold, below))]


def check_claims(claims: Sequence[Claim], settings: Sequence[Setting]) -> list[Decision]:
    """Decide every claim from stored results."""
    return [Decision(claim, tuple(claim.find(settings))) for claim in claims]


def as_frame(decisions: Sequence[Decision]) -> pd.DataFrame:
    """One row per finding, or per claim that has none."""
    rows = []
    for decision in decisions:
        claim = decision.claim
        about = {"claim": claim.number, "sentence": claim.sentence, "source": claim.source}
        for finding in decision.findings or (None,):
            found = {} if finding is None else {"where": finding.where, "ours": finding.figure}
            rows.append(
                {
                    **about,
                    "statistic": claim.statistic,
                    "where": "",
                    "ours": f"no results; make them with: {claim.command}",
                    "paper": claim.paper,
                    **found,
                    "finding": (finding.verdict if finding else Verdict.UNDECIDED).value,
                    "verdict": decision.verdict.value,
                }
            )
    return pd.DataFrame(rows)
