"""Claims on what matching hides and what it is worth.

Decided at the density and the small rewind step of *Stabilizing the Lottery Ticket Hypothesis*, by one value per
replicate. Thresholds on shares of examples are the tolerance as a share: 0.2 points are 0.002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from lotto.experiments.claims import SMALL, Claim, ClaimRow, Find, Found, gap, numbered
from lotto.experiments.conditions import Condition
from lotto.experiments.evidence import Evidence, above, below, between
from lotto.experiments.measures import DENSE, ERROR, IMP, RANDOM, Kind, Measure
from lotto.experiments.results import ResultGroup
from lotto.papers.hidden import measures as m
from lotto.papers.stabilizing.places import small_place, where

PLACES = {"optimizer": "by another optimizer", "data": "on other data"}
"""Where tickets are moved to, in words."""


def _matches(group: ResultGroup, groups: Sequence[ResultGroup]) -> Evidence | None:
    if (place := small_place(group, ERROR, IMP)) is None:
        return None
    found = gap(group, *place)
    return below(found, group.tolerance) if len(found) else None


MATCHES = Condition("the ticket matches", _matches)
"""Its error is less than the tolerance above the dense network's."""


def _compared(
    group: ResultGroup, measure: Measure, one: Kind, other: Kind, ticket: Kind = IMP
) -> tuple[str, pd.Series, pd.Series] | None:
    """Where claims are decided on a ticket, and the values of two kinds there; of dense networks those of level 0."""
    if (place := small_place(group, measure, ticket)) is None:
        return None
    k, level = place
    first, second = (
        group.values(measure, kind=kind, rewind_step=k, level=0 if kind in (DENSE, m.OTHER_ORDER) else level)
        for kind in (one, other)
    )
    return (where(group, k, level), first, second) if len((first - second).dropna()) else None


def as_few_changed(group: ResultGroup) -> Found | None:
    """Predictions that the ticket changes minus those that another data order does, below the tolerance."""
    if (found := _compared(group, m.CHANGED, IMP, m.OTHER_ORDER)) is None:
        return None
    place, ticket, order = found
    note = f"({ticket.mean():.3g} against {order.mean():.3g})"
    return Found(place, below((ticket - order).dropna(), group.tolerance / 100), note)


def no_class_pays(group: ResultGroup) -> Found | None:
    """Largest rise of a class's error by the ticket minus that by another data order, below the tolerance."""
    if (found := _compared(group, m.CLASS_RISE, IMP, m.OTHER_ORDER)) is None:
        return None
    place, ticket, order = found
    note = f"({ticket.mean():.3g} against {order.mean():.3g} points)"
    return Found(place, below((ticket - order).dropna(), group.tolerance), note)


def as_calibrated(group: ResultGroup) -> Found | None:
    """Expected calibration error of the ticket minus the dense network's, below the tolerance."""
    if (found := _compared(group, m.CALIBRATION, IMP, DENSE)) is None:
        return None
    place, ticket, dense = found
    note = f"({ticket.mean():.3g} against {dense.mean():.3g})"
    return Found(place, below((ticket - dense).dropna(), group.tolerance / 100), note)


def more_likely(group: ResultGroup) -> Found | None:
    """Negative log-likelihood of the dense network minus the ticket's, above 0."""
    if (found := _compared(group, m.LOG_LOSS, DENSE, IMP)) is None:
        return None
    place, dense, ticket = found
    return Found(place, above((dense - ticket).dropna(), 0.0, "nats"))


def random_changes_more(group: ResultGroup) -> Found | None:
    """Predictions that a random mask changes minus those that the ticket does, above 0."""
    if (found := _compared(group, m.CHANGED, RANDOM, IMP)) is None:
        return None
    place, random, ticket = found
    return Found(place, above((random - ticket).dropna(), 0.0))


def better_than_narrow(group: ResultGroup) -> Found | None:
    """Error of the narrower dense network minus the ticket's, each at its best rate, above 0."""
    if (found := _compared(group, m.TUNED_ERROR, m.NARROW, IMP)) is None:
        return None
    place, narrow, ticket = found
    k, level = small_place(group, m.TUNED_ERROR, IMP) or (0, 0)
    fewer, left = (group.values(m.PARAMETERS, kind=kind, rewind_step=k, level=level).mean() for kind in (m.NARROW, IMP))
    return Found(place, above((narrow - ticket).dropna(), 0.0), f"({fewer:.0f} against {left:.0f} parameters)")


def matches_when_tuned(group: ResultGroup) -> Found | None:
    """Error of the ticket minus the dense network's, each at its best rate, below the tolerance."""
    if (found := _compared(group, m.TUNED_ERROR, IMP, DENSE)) is None:
        return None
    place, ticket, dense = found
    return Found(place, below((ticket - dense).dropna(), group.tolerance))


def as_good_as_found(what: str) -> Find:
    """Error of the moved ticket minus that of the ticket that is found there, below the tolerance."""

    def find(group: ResultGroup) -> Found | None:
        if (found := _compared(group, m.MOVED_ERRORS[what], m.MOVED, m.OWN, m.MOVED)) is None:
            return None
        place, moved, own = found
        note = f"({moved.mean():.3g} against {own.mean():.3g})"
        return Found(place, below((moved - own).dropna(), group.tolerance), note)

    return find


def better_than_random(what: str) -> Find:
    """Error of a random mask minus that of the moved ticket, above 0."""

    def find(group: ResultGroup) -> Found | None:
        if (found := _compared(group, m.MOVED_ERRORS[what], RANDOM, m.MOVED, m.MOVED)) is None:
            return None
        place, random, moved = found
        return Found(place, above((random - moved).dropna(), 0.0))

    return find


def _converged_there(what: str) -> Condition:
    def check(group: ResultGroup, groups: Sequence[ResultGroup]) -> Evidence | None:
        lost = group.values(m.LATE[what], kind=DENSE, level=0)
        return between(lost, -group.tolerance, group.tolerance) if len(lost) else None

    return Condition(f"trained to convergence {PLACES[what]}", check)


_HOOKER, _MORCOS = "after Hooker et al., 1911.05248", "Morcos et al., 1906.02773"
_K = f"k the first from {SMALL:.0%} of training"
_OF_MATCHING: tuple[ClaimRow, ...] = (
    (
        "A matching ticket changes no more predictions than another data order of the dense network does.", _HOOKER,
        "share of test examples predicted differently than by the dense network: ticket minus the dense network on "
        f"another data order from k, below the tolerance as a share; {_K}",
        "–", "examples", as_few_changed,
    ),
    (
        "A matching ticket costs no class more than another data order of the dense network does.", _HOOKER,
        "largest rise of a class's error above the dense network's: ticket minus the dense network on another data "
        f"order from k, below the tolerance; {_K}",
        "pruning hits some classes more than others", "examples", no_class_pays,
    ),
    (
        "A matching ticket is as well calibrated as the dense network.", "ours",
        "expected calibration error, 15 bins of equally many examples: ticket minus dense network, below the "
        f"tolerance as a share; {_K}",
        "–", "examples", as_calibrated,
    ),
    (
        "A matching ticket makes the test classes more likely than the dense network does.", "ours",
        f"negative log-likelihood: dense network minus ticket, above 0; {_K}", "–", "examples", more_likely,
    ),
)  # fmt: skip
_BEST = "the rate of each by its error on held-out examples"
_OF_ALL: tuple[ClaimRow, ...] = (
    (
        "A random mask changes more predictions than the ticket of its density.", "ours",
        "share of test examples predicted differently than by the dense network: random mask minus ticket, above 0; "
        + _K,
        "–", "examples", random_changes_more,
    ),
    (
        "A ticket is better than a narrower dense network with as many parameters, each at its best learning rate.",
        "ours",
        "error of the dense network of the width whose number of parameters is nearest minus error of the ticket, "
        f"{_BEST}, above 0; {_K}",
        "–", "budget", better_than_narrow,
    ),
    (
        "A ticket matches the dense network when each is trained at its best learning rate.", "ours",
        f"error of the ticket minus error of the dense network, {_BEST}, below the tolerance; {_K}",
        "–", "budget", matches_when_tuned,
    ),
)  # fmt: skip


_OF_MOVED: dict[str, tuple[ClaimRow, ...]] = {
    what: (
        (
            f"A ticket that is trained {there} is as good as the ticket that is found there.", _MORCOS,
            "error of the moved ticket, mask and rewound weights, minus error of the ticket that is found there, below "
            f"the tolerance; {_K}",
            "tickets generalise across data sets and optimizers", "moved", as_good_as_found(what),
        ),
        (
            f"A ticket that is trained {there} is better than a random mask.", _MORCOS,
            f"error of a random mask with the same layer densities minus error of the moved ticket, above 0; {_K}",
            "tickets generalise across data sets and optimizers", "moved", better_than_random(what),
        ),
    )
    for what, there in PLACES.items()
}  # fmt: skip


def _made() -> tuple[Claim, ...]:
    """All claims in one numbering; those on matching tickets, and on moved ones, have a condition more."""
    parts = [(_OF_MATCHING, MATCHES), (_OF_ALL, None)]
    parts += [(rows, _converged_there(what)) for what, rows in _OF_MOVED.items()]
    more = [condition for rows, condition in parts for _ in rows]
    rows = [row for rows, _ in parts for row in rows]
    made = numbered("lotto run hidden.{} resnet20-mnist1d --levels 8 --rewind-to 100it", rows)
    return tuple(
        claim if also is None else replace(claim, conditions=(*claim.conditions, also))
        for claim, also in zip(made, more, strict=True)
    )


CLAIMS = _made()
