"""Claims on the modes of solutions, at the density and the small rewind step of the stored rows.

Connected and stable are what they are in *Linear Mode Connectivity*: a barrier below `STABLE`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lotto.experiments.claims import SMALL, ClaimRow, Find, Found, gap, numbered, small_step
from lotto.experiments.evidence import Point, above, all_of, below, exactly_when
from lotto.experiments.measures import IMP, Kind, Measure
from lotto.experiments.results import ResultGroup
from lotto.landscape.stability import STABLE
from lotto.papers.modes import measures as m
from lotto.papers.stabilizing.places import where

Place = tuple[int, int]
DENSE_NUMBER = 0.0


def _place(group: ResultGroup, measure: Measure) -> Place | None:
    """The small rewind step and the sparsest level of a measure's rows."""
    rows = group.rows(measure)
    rows = rows[rows["level"] > 0]
    k = small_step(group, rows["rewind_step"].unique())
    return None if k is None else (k, int(rows[rows["rewind_step"] == k]["level"].max()))


def _values(group: ResultGroup, place: Place, measure: Measure, kind: Kind) -> pd.Series:
    axes = {"x": DENSE_NUMBER} if measure == m.BETWEEN else {}
    return group.values(measure, kind=kind, rewind_step=place[0], level=place[1], **axes)


def connected(measure: Measure, kind: Kind, *, holds: bool = True) -> Find:
    """The barrier to the dense network is below `STABLE`, or above it."""

    def find(group: ResultGroup) -> Found | None:
        if (place := _place(group, measure)) is None or not len(values := _values(group, place, measure, kind)):
            return None
        return Found(where(group, *place), (below if holds else above)(values, STABLE))

    return find


def all_apart(kinds: Sequence[Kind]) -> Find:
    """The barrier of each kind to the dense network is above `STABLE`."""

    def find(group: ResultGroup) -> Found | None:
        if (place := _place(group, m.BETWEEN)) is None:
            return None
        values = [found for kind in kinds if len(found := _values(group, place, m.BETWEEN, kind))]
        if not values:
            return None
        return Found(where(group, *place), all_of(above(found, STABLE) for found in values))

    return find


def farther(kinds: Sequence[Kind], one: Measure, other: Measure, beside: Kind | None = None) -> Find:
    """Each kind's barrier to the dense network is above another: of kind ``beside``, or its own by another measure."""

    def find(group: ResultGroup) -> Found | None:
        if (place := _place(group, other)) is None:
            return None
        pairs = [(_values(group, place, one, k), _values(group, place, other, beside or k)) for k in kinds]
        values = [found for a, b in pairs if len(found := (a - b).dropna())]
        if not values:
            return None
        return Found(where(group, *place), all_of(above(found, 0.0) for found in values))

    return find


def stable_when_matching(group: ResultGroup) -> Found | None:
    """Over the methods: copies are connected exactly where the gap is below the tolerance."""
    if (place := _place(group, m.COPIES)) is None:
        return None
    points = {}
    for kind in m.METHODS.values():
        copies, gaps = _values(group, place, m.COPIES, kind), gap(group, *place, kind)
        if len(copies) and len(gaps):
            points[kind] = Point(m.TITLES[kind], below(copies, STABLE), below(gaps, group.tolerance))
    if not points:
        return None
    return Found(
        where(group, *place), exactly_when([*points.values()], points.get(IMP), points.get(m.RANDOM)),
        "(copies, gaps)",
    )  # fmt: skip


_K = f"at the sparsest level, k the first from {SMALL:.0%} of training"
_B = "barrier to the dense network, statistics re-estimated"
_NAMES = "SNIP, SynFlow and random that is there"
_ROWS: tuple[ClaimRow, ...] = (
    (
        "The solution of IMP with rewinding is connected to the dense network's.",
        "ours",
        f"{_B}, below {STABLE:g} points; {_K}", "", "solutions", connected(m.BETWEEN, IMP),
    ),
    (
        "Solutions of masks that are chosen at initialisation are not connected to the dense network's.",
        "ours",
        f"{_B}, of each of {_NAMES} above {STABLE:g} points; {_K}", "", "solutions", all_apart(m.AT_INIT),
    ),
    (
        "They are farther from it than IMP's.",
        "ours",
        f"{_B}, of each of {_NAMES} minus that of IMP, above 0; {_K}",
        "", "solutions", farther(m.AT_INIT, m.BETWEEN, m.BETWEEN, IMP),
    ),
    (
        "Masks that are chosen at initialisation end nearer to the dense network from its rewind point.",
        "ours",
        f"{_B}, of each of {_NAMES} from the initial weights minus from the rewind point, above 0; {_K}",
        "", "starts", farther(m.AT_INIT, m.BETWEEN, m.MOVED_BETWEEN),
    ),
    (
        "IMP's mask, trained from the initial weights, is not connected to the dense network's solution.",
        "ours",
        f"{_B}, above {STABLE:g} points; {_K}", "", "starts", connected(m.MOVED_BETWEEN, IMP, holds=False),
    ),
    (
        "Of the methods' tickets exactly those match that are stable to data order.",
        "ours",
        f"barrier between copies below {STABLE:g} points exactly where the gap is below the tolerance; IMP's for both, "
        f"the random mask for neither; {_K}",
        "", "copies", stable_when_matching,
    ),
)  # fmt: skip
CLAIMS = numbered("lotto run modes.{} resnet20-mnist1d --levels 8 --rewind-to 100it", _ROWS)
