"""The claims of Zhou et al. (1905.01067) on signs, of Gadhikar and Burkholz (2402.19262), and on masks.

Decided at the density and the small rewind step of *Stabilizing the Lottery Ticket Hypothesis*, by one value per
replicate.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from lotto.experiments.claims import SMALL, ClaimRow, Find, Found, numbered, small_step
from lotto.experiments.evidence import above, all_of, below, between
from lotto.experiments.measures import ERROR, Kind
from lotto.experiments.results import ResultGroup
from lotto.papers.signs import measures as m
from lotto.papers.stabilizing.places import small_place, where

AT_CHANCE = 0.05
"""Masks agree no more than random ones where their agreement above chance is within this of 0."""
Values = Callable[[Kind], pd.Series]


def errors_differ(worse: Kind, better: Kind) -> Find:
    """Error of one arm minus that of another, above 0."""

    def find(group: ResultGroup) -> Found | None:
        if (place := small_place(group, ERROR, better)) is None:
            return None
        difference = _difference(group, worse, better, *place)
        return Found(where(group, *place), above(difference, 0.0)) if len(difference) else None

    return find


def _difference(group: ResultGroup, one: Kind, other: Kind, k: int, level: int) -> pd.Series:
    first, second = (group.values(ERROR, kind=kind, rewind_step=k, level=level) for kind in (one, other))
    return (first - second).dropna()


def signs_are_enough(group: ResultGroup) -> Found | None:
    """Error with the signs and constant magnitudes minus the ticket's, below the tolerance."""
    if (place := small_place(group, ERROR, m.KEPT_CONSTANT)) is None:
        return None
    difference = _difference(group, m.KEPT_CONSTANT, m.TICKET, *place)
    return Found(where(group, *place), below(difference, group.tolerance)) if len(difference) else None


def flips_more_early(group: ResultGroup) -> Found | None:
    """Signs that differ from the rewind point after the first level: learning-rate rewinding minus weight rewinding."""
    if (k := small_step(group, group.rewind_steps(m.FROM_REWIND_POINT))) is None:
        return None
    lr, weights = (
        group.values(m.FROM_REWIND_POINT, kind=kind, rewind_step=k, level=1)
        for kind in (m.LR_REWINDING, m.WEIGHT_REWINDING)
    )
    difference = (lr - weights).dropna()
    return Found(where(group, k, 1), above(difference, 0.0)) if len(difference) else None


def survives_turned_signs(group: ResultGroup) -> Found | None:
    """At the last level, most signs turned: error lost by learning-rate rewinding, and by weight rewinding above it."""
    rows = group.rows(m.PERTURBED_ERROR)
    if rows.empty or (k := small_step(group, rows["rewind_step"].unique())) is None:
        return None
    rows = rows[rows["rewind_step"] == k]
    level, most = int(rows["level"].max()), float(rows["x"].max())

    def lost(kind: Kind) -> pd.Series:
        found = (
            group.values(m.PERTURBED_ERROR, kind=kind, rewind_step=k, level=level, x=fraction)
            for fraction in (most, 0.0)
        )
        return next(found) - next(found)

    lr, weights = lost(m.LR_REWINDING).dropna(), lost(m.WEIGHT_REWINDING).dropna()
    more = (weights - lr).dropna()
    if more.empty:
        return None
    parts = [
        below(lr, group.tolerance).named("learning-rate rewinding loses"),
        above(more, 0.0).named("weight rewinding loses more by"),
    ]
    return Found(f"{where(group, k, level)}, {100 * most:g} % of signs", all_of(parts))


def agree_at_chance(group: ResultGroup) -> Found | None:
    """Agreement above chance of masks of two initialisations, within `AT_CHANCE` of 0."""
    if (found := _agreement(group, m.OTHER_INITIALISATION)) is None:
        return None
    place, values = found
    return Found(place, between(values, -AT_CHANCE, AT_CHANCE))


def orders_agree(group: ResultGroup) -> Found | None:
    """Agreement above chance of masks of two data orders from one rewind point, above `AT_CHANCE`."""
    if (found := _agreement(group, m.OTHER_ORDER)) is None:
        return None
    place, values = found
    return Found(place, above(values, AT_CHANCE))


def _agreement(group: ResultGroup, kind: Kind) -> tuple[str, pd.Series] | None:
    if (place := small_place(group, m.AGREEMENT, kind)) is None:
        return None
    k, level = place
    values = group.values(m.AGREEMENT, kind=kind, rewind_step=k, level=level)
    return (where(group, *place), values) if len(values) else None


_ZHOU, _BURKHOLZ = "Zhou et al., 1905.01067", "Gadhikar and Burkholz, 2402.19262"
_K = f"k the first from {SMALL:.0%} of training"
_ROWS: tuple[ClaimRow, ...] = (
    (
        "With constant magnitudes, a ticket that keeps its signs is better than one whose signs are drawn anew.",
        _ZHOU, f"error with drawn signs minus error with kept signs, magnitudes constant, above 0; {_K}",
        "signs kept train as tickets do, signs drawn as new initialisations do", "arms",
        errors_differ(m.DRAWN_CONSTANT, m.KEPT_CONSTANT),
    ),
    (
        "A ticket's signs with constant magnitudes are as good as the ticket.", _ZHOU,
        f"error with kept signs and constant magnitudes minus that of the ticket, below the tolerance; {_K}",
        "all that matters is the sign", "arms", signs_are_enough,
    ),
    (
        "A ticket's magnitudes without its signs are worse than its signs without its magnitudes.", _ZHOU,
        "error with drawn signs and kept magnitudes minus that with kept signs and constant magnitudes, above 0; "
        + _K,
        "signs kept train as tickets do, signs drawn as new initialisations do", "arms",
        errors_differ(m.DRAWN_KEPT, m.KEPT_CONSTANT),
    ),
    (
        "Learning-rate rewinding flips more signs early.", _BURKHOLZ,
        "share of signs that differ from the rewind point after the first level: learning-rate rewinding minus weight "
        f"rewinding, above 0; {_K}",
        "flips signs early", "flips", flips_more_early,
    ),
    (
        "Learning-rate rewinding survives turned signs where weight rewinding does not.", _BURKHOLZ,
        "error at the last level with the most signs turned minus that with none: of learning-rate rewinding below "
        f"the tolerance, of weight rewinding more; {_K}",
        "robust to sign perturbations", "perturbation", survives_turned_signs,
    ),
    (
        "Masks of different initialisations agree no more than random ones.", "ours",
        f"(overlap - expected) / (1 - expected) within {AT_CHANCE:g} of 0; {_K}", "–", "overlap", agree_at_chance,
    ),
    (
        "Masks of different data orders from one rewind point agree more than random ones.", "ours",
        f"(overlap - expected) / (1 - expected) above {AT_CHANCE:g}; {_K}", "–", "overlap", orders_agree,
    ),
)  # fmt: skip
CLAIMS = numbered("lotto run signs.{} resnet20-mnist1d --levels 8 --rewind-to 100it", _ROWS)
