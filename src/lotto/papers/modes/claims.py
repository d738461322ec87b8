"""Claims on the modes of solutions, at the density and the small rewind step of the stored rows.

Connected and stable are what they are in *Linear Mode Connectivity*: a barrier below `STABLE`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lotto.experiments.claims import SMALL, Claim, Find, Found, gap, small_step
from lotto.experiments.conditions import CONVERGED
from lotto.experiments.evidence import Point, above, all_of, below, exactly_when
from lotto.experiments.measures import IMP, Kind, Measure
from lotto.experiments.results import ResultGroup
from lotto.landscape.stability import STABLE
from lotto.papers.modes import measures as m

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


def _where(group: ResultGroup, place: Place) -> str:
    rows = group.rows(rewind_step=place[0], level=place[1])
    return f"{100 * rows['density'].mean():.3g} % left, k = {place[0]}"


def connected(measure: Measure, kind: Kind, *, holds: bool = True) -> Find:
    """The barrier to the dense network is below `STABLE`, or above it."""

    def find(group: ResultGroup) -> Found | None:
        if (place := _place(group, measure)) is None or not len(values := _values(group, place, measure, kind)):
            return None
        return Found(_where(group, place), (below if holds else above)(values, STABLE))

    return find


def all_apart(kinds: Sequence[Kind]) -> Find:
    """The barrier of each kind to the dense network is above `STABLE`."""

    def find(group: ResultGroup) -> Found | None:
        if (place := _place(group, m.BETWEEN)) is None:
            return None
        values = [found for kind in kinds if len(found := _values(group, place, m.BETWEEN, kind))]
        if not values:
            return None
        return Found(_where(group, place), all_of(above(found, STABLE) for found in values))

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
        return Found(_where(group, place), all_of(above(found, 0.0) for found in values))

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
        _where(group, place), exactly_when([*points.values()], points.get(IMP), points.get(m.RANDOM)),
        "(copies, gaps)",
    )  # fmt: skip


_K = f"at the sparsest level, k the first from {SMALL:.0%} of training"
_B = "barrier to the dense network, statistics re-estimated"
_NAMES = "SNIP, SynFlow and random that is there"
_ROWS: tuple[tuple[str, str, str, Find], ...] = (
    (
        "The solution of IMP with rewinding is connected to the dense network's.",
        "solutions",
        f"{_B}, below {STABLE:g} points; {_K}", connected(m.BETWEEN, IMP),
    ),
    (
        "Solutions of masks that are chosen at initialisation are not connected to the dense network's.",
        "solutions",
        f"{_B}, of each of {_NAMES} above {STABLE:g} points; {_K}", all_apart(m.AT_INIT),
    ),
    (
        "They are farther from it than IMP's.",
        "solutions",
        f"{_B}, of each of {_NAMES} minus that of IMP, above 0; {_K}",
        farther(m.AT_INIT, m.BETWEEN, m.BETWEEN, IMP),
    ),
    (
        "Masks that are chosen at initialisation end nearer to the dense network from its rewind point.",
        "starts",
        f"{_B}, of each of {_NAMES} from the initial weights minus from the rewind point, above 0; {_K}",
        farther(m.AT_INIT, m.BETWEEN, m.MOVED_BETWEEN),
    ),
    (
        "IMP's mask, trained from the initial weights, is not connected to the dense network's solution.",
        "starts",
        f"{_B}, above {STABLE:g} points; {_K}", connected(m.MOVED_BETWEEN, IMP, holds=False),
    ),
    (
        "Of the methods' tickets exactly those match that are stable to data order.",
        "copies",
        f"barrier between copies below {STABLE:g} points exactly where the gap is below the tolerance; IMP's for both, "
        f"the random mask for neither; {_K}",
        stable_when_matching,
    ),
)  # fmt: skip
CLAIMS = tuple(
    Claim(
        number, sentence, "ours", statistic, "",
        f"lotto run modes.{experiment} resnet20-mnist1d --levels 8 --rewind-to 100it", find, (CONVERGED,),
    )
    for number, (sentence, experiment, statistic, find) in enumerate(_ROWS, start=1)
)  # fmt: skip
