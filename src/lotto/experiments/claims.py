"""Claims of the papers as statements that stored results decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lotto.core.check import checked
from lotto.core.statistics import Verdict, holm
from lotto.experiments.conditions import CONVERGED, Checked, Condition
from lotto.experiments.evidence import LEVEL, Evidence
from lotto.experiments.measures import ERROR, IMP, Kind
from lotto.experiments.results import ResultGroup

Groups = Sequence[ResultGroup]
SMALL, LATE = 0.05, 0.5
"""A small rewind step is the first from this fraction of training on; from the other on it is very late. Which of the
stored steps decides is fixed by this, not by their errors."""


@dataclass(frozen=True)
class Found:
    """What one network's results say about a claim.

    Attributes:
        where: the part of the results that decides: a density, a rewind step.
        evidence: for it and against it; None = something that cannot be tested, which ``note`` says.
        note: in words.
    """

    where: str
    evidence: Evidence | None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What one network's results say about a claim, beside all claims of the paper.

    Attributes:
        where: the network, and what of it was evaluated.
        figure: the statistic with its one-sided bound and the number of replicates.
        conditions: those of the claim, checked.
        p: p-value of the verdict (of the smaller side where there is none), after Holm's correction over
            the claims that this network's results say something about.
        verdict: *supported*, *contradicted* or *not decided* where all conditions hold; where one fails or cannot be
            checked the network *agrees* or *differs at another scale*.

    >>> Finding("LeNet on MNIST, 50 %", "0.1 (≤ 0.13, n = 5)", (), p=0.01, verdict=Verdict.SUPPORTED).verdict.value
    'supported'
    """

    where: str
    figure: str
    conditions: tuple[Checked, ...]
    p: float
    verdict: Verdict


Find = Callable[[ResultGroup], Found | None]
Scope = Callable[[ResultGroup, Groups], bool]


def anything(group: ResultGroup, groups: Groups) -> bool:
    """The scope of a claim that is about all networks."""
    return True


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
        find: what one network's results say; None if they lack the rows.
        conditions: of the network; where one does not hold the results are of another scale.
        scope: the networks that it is about at all, by their recipe; of others nothing is said.

    >>> claim = Claim(1, "Half is enough.", "ours", "error at 50 %", "figure 1", "lotto run …", find=lambda group: None)
    >>> claim.scope(None, []), claim.conditions  # of any network, without conditions
    (True, ())
    """

    number: int
    sentence: str
    source: str
    statistic: str
    paper: str
    command: str
    find: Find
    conditions: tuple[Condition, ...] = ()
    scope: Scope = anything


@dataclass(frozen=True)
class Decision:
    """A claim with all that was found about it.

    >>> claim = Claim(1, "Half is enough.", "ours", "error at 50 %", "figure 1", "lotto run …", find=lambda group: None)
    >>> one, other = (Finding("a network", "", (), 0.01, v) for v in (Verdict.SUPPORTED, Verdict.CONTRADICTED))
    >>> Decision(claim, (one,)).verdict.value, Decision(claim, (one, other)).verdict.value
    ('supported', 'not decided')
    """

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """That of the networks for which the conditions hold, if these decide and agree; else that of the others."""
        verdicts = {f.verdict for f in self.findings}
        for decided in (
            verdicts & {Verdict.SUPPORTED, Verdict.CONTRADICTED},
            verdicts & {Verdict.AGREES, Verdict.DIFFERS},
        ):
            if decided:
                return decided.pop() if len(decided) == 1 else Verdict.UNDECIDED
        return Verdict.UNDECIDED


ClaimRow = tuple[str, str, str, str, str, Find]
"""Of a claim: sentence, source, statistic, the paper's figure, the experiment that it reads, how it is found."""


def numbered(command: str, rows: Iterable[ClaimRow]) -> tuple[Claim, ...]:
    """Claims on networks that have converged, numbered from 1; in ``command`` stands ``{}`` for the experiment."""
    return tuple(
        Claim(number, sentence, source, statistic, paper, command.format(experiment), find, (CONVERGED,))
        for number, (sentence, source, statistic, paper, experiment, find) in enumerate(rows, start=1)
    )


def gap(group: ResultGroup, k: int, level: int, kind: Kind = IMP) -> pd.Series:
    """Error of a subnetwork above that of the dense network of the same seed and data order: by seed."""
    return (group.values(ERROR, kind=kind, rewind_step=k, level=level, sample=0) - group.dense_errors).dropna()


def small_step(group: ResultGroup, steps: Iterable[int]) -> int | None:
    """Of rewind steps the first from `SMALL` of training on, if it is before `LATE`; None if there is none."""
    total = group.facts["iterations"]
    return min((int(k) for k in steps if SMALL * total <= k < LATE * total), default=None)


@checked
def check_claims(claims: Sequence[Claim], groups: Sequence[ResultGroup]) -> list[Decision]:
    """Decide every claim from stored results.

    The claims that results of one network say something about are tested together: Holm's correction over them keeps
    the chance that any of them is wrongly supported within 5 %, and so that any is wrongly contradicted. Claims whose
    conditions do not all hold for the network are a family of their own, with verdicts of another scale.

    >>> claim = Claim(1, "Half is enough.", "ours", "error at 50 %", "figure 1", "lotto run …", find=lambda group: None)
    >>> [decision.verdict.value for decision in check_claims([claim], groups=[])]
    ['not decided']
    """
    found: dict[int, list[Finding]] = {claim.number: [] for claim in claims}
    for group in groups:
        about = [
            (claim.number, one, tuple(condition.of(group, groups) for condition in claim.conditions))
            for claim in claims
            if claim.scope(group, groups) and (one := claim.find(group))
        ]
        for own_scale in (True, False):
            family = [entry for entry in about if all(c.holds for c in entry[2]) is own_scale]
            for number, finding in _tested_together(group, family):
                found[number].append(finding)
    return [Decision(claim, tuple(found[claim.number])) for claim in claims]


def _tested_together(
    group: ResultGroup, family: Sequence[tuple[int, Found, tuple[Checked, ...]]]
) -> Iterator[tuple[int, Finding]]:
    tested = [one.evidence for _, one, _ in family if one.evidence is not None]
    corrected = iter(zip(holm([e.holds for e in tested]), holm([e.fails for e in tested]), strict=True))
    for number, one, conditions in family:
        yield number, _finding(group, one, conditions, *(next(corrected) if one.evidence is not None else (1.0, 1.0)))


def _finding(group: ResultGroup, found: Found, conditions: tuple[Checked, ...], holds: float, fails: float) -> Finding:
    own_scale = all(condition.holds for condition in conditions)
    verdict = Verdict.UNDECIDED
    if holds < LEVEL:
        verdict = Verdict.SUPPORTED if own_scale else Verdict.AGREES
    elif fails < LEVEL:
        verdict = Verdict.CONTRADICTED if own_scale else Verdict.DIFFERS
    figure = "; ".join(filter(None, (found.note, "" if found.evidence is None else found.evidence.figure)))
    where = ", ".join(filter(None, (group.title, found.where)))
    return Finding(where, figure, conditions, min(holds, fails), verdict)


@checked
def as_frame(decisions: Sequence[Decision]) -> pd.DataFrame:
    """One row per finding, or per claim that has none."""
    rows = []
    for decision in decisions:
        claim = decision.claim
        for finding in decision.findings or (None,):
            rows.append(
                {
                    "claim": claim.number,
                    "sentence": claim.sentence,
                    "source": claim.source,
                    "statistic": claim.statistic,
                    **_columns(claim, finding),
                    "paper": claim.paper,
                    "finding": (finding.verdict if finding else Verdict.UNDECIDED).value,
                    "verdict": decision.verdict.value,
                }
            )
    return pd.DataFrame(rows)


def _columns(claim: Claim, finding: Finding | None) -> dict[str, Any]:
    if finding is None:
        missing = f"no results; make them with: {claim.command}"
        return {"where": "", "conditions": "", "ours": missing, "p": ""}
    conditions = "; ".join(map(str, finding.conditions))
    return {"where": finding.where, "conditions": conditions, "ours": finding.figure, "p": f"{finding.p:.2g}"}
