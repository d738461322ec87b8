"""Claims of the papers as statements that stored results decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lotto.core.check import checked
from lotto.core.statistics import Verdict, decide, interval
from lotto.experiments.measures import ERROR, IMP, Kind
from lotto.experiments.results import ResultGroup


@dataclass(frozen=True)
class Finding:
    """What one group of results says about a claim.

    Attributes:
        where: the group, and what of it was evaluated.
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


Find = Callable[[ResultGroup], Iterable[Finding]]


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
        find: what the results of one training setting say; nothing if they lack the rows.
    """

    number: int
    sentence: str
    source: str
    statistic: str
    paper: str
    command: str
    find: Find


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


def gap(group: ResultGroup, k: int, level: int, kind: Kind = IMP) -> pd.Series:
    """Error of a subnetwork above that of the dense network of the same seed and data order: by seed."""
    return (group.values(ERROR, kind=kind, rewind_step=k, level=level, sample=0) - group.dense_errors).dropna()


def finding_of(where: str, found: pd.Series, threshold: float, below: bool) -> Iterator[Finding]:
    """What values by replicate say about a threshold; nothing if there are none."""
    if sample := tuple(float(v) for v in found):
        yield Finding(where, sample, decide(sample, threshold, below))


def agreement(where: str, points: Sequence[tuple[Verdict, Verdict]], needed: str) -> Iterator[Finding]:
    """Whether two verdicts agree at all points where both are decided; ``needed``: what is said if all are alike."""
    decided = [(a, b) for a, b in points if Verdict.UNDECIDED not in (a, b)]
    agree = [a == b for a, b in decided]
    note = f"{sum(agree)} of {len(agree)} decided points agree ({len(points)} points)"
    if not all(agree):
        yield Finding(where, (), Verdict.CONTRADICTED, note)
    elif len({a for a, _ in decided}) == 2:
        yield Finding(where, (), Verdict.SUPPORTED, note)
    elif points:
        yield Finding(where, (), Verdict.UNDECIDED, f"{note}; {needed}")


@checked
def check_claims(claims: Sequence[Claim], groups: Sequence[ResultGroup]) -> list[Decision]:
    """Decide every claim from stored results."""
    return [Decision(claim, tuple(f for group in groups for f in claim.find(group))) for claim in claims]


@checked
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
