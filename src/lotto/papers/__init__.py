"""The papers' experiments: one function per figure or table. They return tidy rows; drawing is the report's work."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lotto.core.errors import unknown
from lotto.experiments.claims import Claim, Decision, Finding, Verdict, check_claims
from lotto.experiments.experiment import Experiment, Options
from lotto.papers.stabilizing import claims as stabilizing_claims
from lotto.papers.stabilizing import experiments as stabilizing
from lotto.papers.stabilizing import plots as stabilizing_plots
from lotto.papers.unmasking import claims as unmasking_claims
from lotto.papers.unmasking import experiments as unmasking
from lotto.papers.unmasking import plots as unmasking_plots

EXPERIMENTS: dict[str, Experiment] = {
    f"{e.paper}.{e.name}": replace(e, plot=partial(plots.draw, e.name))
    for paper, plots in ((stabilizing, stabilizing_plots), (unmasking, unmasking_plots))
    for e in paper.EXPERIMENTS
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
    """An experiment by name, ``experiments.distances``.

    Raises:
        UsageError: if the name is unknown; lists the choices.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def select(name: str) -> list[Experiment]:
    """One experiment by name, or all of a paper by ``experiments.all``.

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
