"""The papers' experiments: one function per figure or table. They return tidy rows; drawing is the report's work."""

from __future__ import annotations

from lotto.errors import unknown
from lotto.papers import stabilizing, stabilizing_claims, unmasking, unmasking_claims
from lotto.papers.claims import Claim, Decision, Finding, Verdict, check_claims
from lotto.papers.experiment import Experiment, Options

EXPERIMENTS: dict[str, Experiment] = {
    f"{e.paper}.{e.name}": e for e in (*stabilizing.EXPERIMENTS, *unmasking.EXPERIMENTS)
}
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "stabilizing": stabilizing_claims.CLAIMS,
    "unmasking": unmasking_claims.CLAIMS,
}

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


def get(name: str) -> Experiment:
    """An experiment by name, ``stabilizing.distances``.

    Raises:
        UsageError: if the name is unknown; lists the choices.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def select(name: str) -> list[Experiment]:
    """One experiment by name, or all of a paper by ``unmasking.all``.

    Raises:
        UsageError: if the name is unknown; lists the choices.
    """
    paper, _, what = name.partition(".")
    if what == "all" and (found := [e for e in EXPERIMENTS.values() if e.paper == paper]):
        return found
    return [get(name)]


def claims_of(paper: str) -> tuple[Claim, ...]:
    """The claims of a paper, ``stabilizing``.

    Raises:
        UsageError: if the name is unknown; lists the choices.
    """
    if paper not in CLAIMS:
        raise unknown("paper", paper, CLAIMS)
    return CLAIMS[paper]
