"""The papers: a folder each, with its experiments, what they measure, their plots, and its claims."""

from __future__ import annotations

from lotto.core.check import checked
from lotto.core.errors import unknown
from lotto.core.statistics import Verdict
from lotto.experiments.claims import Claim, Decision, Finding, check_claims
from lotto.experiments.experiment import Experiment
from lotto.experiments.options import Options
from lotto.papers import hidden, methods, missing_the_mark, modes, permuted, rigging, signs, stabilizing, unmasking

PAPERS = {
    "stabilizing": stabilizing,
    "unmasking": unmasking,
    "signs": signs,
    "missing_the_mark": missing_the_mark,
    "rigging": rigging,
    "permuted": permuted,
    "modes": modes,
    "methods": methods,
    "hidden": hidden,
}
EXPERIMENTS: dict[str, Experiment] = {
    f"{name}.{e.name}": e for name, paper in PAPERS.items() for e in paper.EXPERIMENTS
}
CLAIMS: dict[str, tuple[Claim, ...]] = {name: paper.CLAIMS for name, paper in PAPERS.items()}

__all__ = [
    "CLAIMS",
    "EXPERIMENTS",
    "Claim",
    "Decision",
    "Experiment",
    "Finding",
    "Options",
    "Verdict",
    "check_claims",
    "claims_of",
    "get",
    "select",
]


@checked
def get(name: str) -> Experiment:
    """An experiment by name, ``stabilizing.distances``.

    Raises:
        UsageError: if the name is unknown; lists the choices.

    >>> get("stabilizing.distances").paper
    'stabilizing'
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


@checked
def select(name: str) -> list[Experiment]:
    """One experiment by name, or all of a paper by ``stabilizing.all``.

    Raises:
        UsageError: if the name is unknown; lists the choices.

    >>> len(select("stabilizing.distances")), len(select("stabilizing.all")) > 1
    (1, True)
    """
    paper, _, what = name.partition(".")
    if what == "all" and (found := [e for e in EXPERIMENTS.values() if e.paper == paper]):
        return found
    return [get(name)]


@checked
def claims_of(paper: str) -> tuple[Claim, ...]:
    """The claims of a paper, ``stabilizing``.

    Raises:
        UsageError: if the name is unknown; lists the choices.

    >>> [claim.number for claim in claims_of("stabilizing")][:3]
    [1, 2, 3]
    """
    if paper not in CLAIMS:
        raise unknown("paper", paper, CLAIMS)
    return CLAIMS[paper]
