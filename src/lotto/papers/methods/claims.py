"""What the methods reach at equal numbers of weights, by differences between trainings of one replicate."""

from __future__ import annotations

import pandas as pd

from lotto.experiments.claims import Claim, Find, Found, small_step
from lotto.experiments.conditions import CONVERGED
from lotto.experiments.evidence import above, all_of, below
from lotto.experiments.measures import ERROR
from lotto.experiments.results import ResultGroup
from lotto.papers.methods.measures import COMPUTE, KINDS, METHODS


def _place(group: ResultGroup) -> tuple[int, int] | None:
    """The rewind step and the level that decide: a small step where one is stored, the sparsest level."""
    rows = group.rows(COMPUTE)
    if rows.empty:
        return None
    steps = [int(k) for k in rows["rewind_step"].unique()]
    step = small_step(group, steps)
    return (min(steps) if step is None else step), int(rows["level"].max())


def more(one: str, other: str, group: ResultGroup) -> pd.Series:
    """The error of one method minus that of another, by seed; empty without rows of both."""
    place = _place(group)
    if place is None:
        return pd.Series(dtype=float)
    step, level = place
    values = [group.values(ERROR, kind=KINDS[name], rewind_step=step, level=level) for name in (one, other)]
    return (values[0] - values[1]).dropna()


def _where(group: ResultGroup) -> str:
    place = _place(group)
    assert place is not None
    return f"{100 * group.rows(COMPUTE, level=place[1])['density'].mean():.3g} % left, k = {place[0]}"


def worse_than(name: str, others: tuple[str, ...]) -> Find:
    """The error of each of the others minus that of a method is above 0; nothing is said before all are measured."""

    def find(group: ResultGroup) -> Found | None:
        found = [more(other, name, group) for other in others]
        if not all(len(values) for values in found):
            return None
        return Found(
            _where(group), all_of(above(values, 0.0).named(other) for other, values in zip(others, found, strict=True))
        )

    return find


def no_worse(one: str, other: str) -> Find:
    """The error of one method minus that of another is below the tolerance."""

    def find(group: ResultGroup) -> Found | None:
        found = more(one, other, group)
        return Found(_where(group), below(found, group.tolerance)) if len(found) else None

    return find


_RUN = "lotto run methods.compute resnet20-mnist1d --levels 8 --rewind-to 100it"
CLAIMS = (
    Claim(
        1, "IMP with rewinding errs less than every method that takes one training.", "ours",
        "error of each of them minus that of IMP, above 0", "", _RUN,
        worse_than("imp", tuple(name for name, method in METHODS.items() if method.single)), (CONVERGED,),
    ),
    Claim(
        2, "Early-Bird is no worse than one cut after the whole training.", "1909.11957, abstract",
        "error of Early-Bird minus that of one-shot, below the tolerance",
        "comparable or better accuracy at 4.7 times less energy or more", _RUN, no_worse("early-bird", "one-shot"),
        (CONVERGED,),
    ),
    Claim(
        3, "Gradual pruning errs less than every method before training.", "ours",
        "error of each of them minus that of gradual pruning, above 0", "", _RUN,
        worse_than("gradual", ("random", "magnitude", "snip", "grasp", "synflow")), (CONVERGED,),
    ),
    Claim(
        4, "IMP of averaged copies errs less than IMP.", "2305.14852, abstract",
        "error of IMP minus that of SWAMP, above 0", "outperforms", _RUN, worse_than("swamp", ("imp",)), (CONVERGED,),
    ),
)  # fmt: skip
