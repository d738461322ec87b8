"""The claims of *Rigging the Lottery*, of SET, of gradual pruning and of ITOP.

Each is decided at one density by differences between trainings of one replicate: equal numbers of weights and steps,
the same initialisation and data order. The density is fixed beforehand (`DENSITY`).
"""

from __future__ import annotations

import pandas as pd

from lotto.experiments.claims import Claim, Find, Found
from lotto.experiments.conditions import CONVERGED
from lotto.experiments.evidence import above, below
from lotto.experiments.measures import ERROR, IMP, Kind, Measure
from lotto.experiments.results import ResultGroup
from lotto.papers.rigging import measures as m
from lotto.papers.stabilizing.places import level_at

DENSITY = 0.05
"""The density at which claims are decided."""


def difference(group: ResultGroup, one: Kind, other: Kind, measure: Measure = ERROR) -> tuple[str, pd.Series] | None:
    """What one kind of training has more than another, by seed, at the level nearest to `DENSITY`.

    Args:
        group: results of one network.
        one, other: the kinds.
        measure: what is compared.

    Returns:
        Where, and the differences; None without rows of both.
    """
    rows = group.rows(m.EXPLORED)
    static = rows[rows["kind"] == m.STATIC]
    level = level_at(group, DENSITY, static)
    if level is None:
        return None
    k = int(rows["rewind_step"].min())
    values = (group.values(measure, kind=kind, rewind_step=k, level=level) for kind in (one, other))
    found = next(values) - next(values)
    found = found.dropna()
    left = static[static["level"] == level]["density"].mean()
    return (f"{100 * left:.3g} % left", found) if len(found) else None


def more(one: Kind, other: Kind, measure: Measure = ERROR) -> Find:
    """One kind's value is above the other's."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, one, other, measure)
        return None if found is None else Found(found[0], above(found[1], 0.0))

    return find


def no_worse(one: Kind, other: Kind) -> Find:
    """One kind's error is less than the tolerance above the other's."""

    def find(group: ResultGroup) -> Found | None:
        found = difference(group, one, other)
        return None if found is None else Found(found[0], below(found[1], group.tolerance))

    return find


_RUN = "lotto run rigging.dynamic resnet20-mnist1d --levels 8 --eval-levels 5,7,8"
_AT = f"at the level nearest to {DENSITY:.0%} left"
CLAIMS = (
    Claim(
        1, "RigL errs less than a random mask that holds still.", "RigL, figure 2",
        f"error of static minus that of RigL, {_AT}, above 0", "ResNet-50, 10 % left: 73.0 against 67.2 % accuracy",
        _RUN, more(m.STATIC, m.RIGL), (CONVERGED,),
    ),
    Claim(
        2, "SET errs less than a random mask that holds still.", "SET, section 4; RigL, figure 2",
        f"error of static minus that of SET, {_AT}, above 0", "ResNet-50, 10 % left: 70.4 against 67.2 % accuracy",
        _RUN, more(m.STATIC, m.SET), (CONVERGED,),
    ),
    Claim(
        3, "Growing by the gradient is better than at random.", "RigL, figure 2",
        f"error of SET minus that of RigL, {_AT}, above 0", "ResNet-50, 10 % left: 73.0 against 70.4 % accuracy",
        _RUN, more(m.SET, m.RIGL), (CONVERGED,),
    ),
    Claim(
        4, "In as many steps gradual pruning is no worse than RigL.", "Zhu and Gupta; RigL, figure 2",
        f"error of gradual pruning minus that of RigL, {_AT}, below the tolerance",
        "ResNet-50, 10 % left: 73.9 against 73.0 % accuracy", _RUN, no_worse(m.GRADUAL, m.RIGL), (CONVERGED,),
    ),
    Claim(
        5, "More updates of a larger fraction explore more weights.", "ITOP, section 3",
        f"part explored, exploring minus usual RigL, {_AT}, above 0", "grows with the number of updates",
        _RUN, more(m.RIGL_EXPLORING, m.RIGL, m.EXPLORED),
    ),
    Claim(
        6, "RigL that explores more weights errs less.", "ITOP, section 3",
        f"error of RigL minus that of RigL exploring, {_AT}, above 0", "accuracy rises with what is explored",
        _RUN, more(m.RIGL, m.RIGL_EXPLORING), (CONVERGED,),
    ),
    Claim(
        7, "SET that explores more weights errs less.", "ITOP, section 3",
        f"error of SET minus that of SET exploring, {_AT}, above 0", "accuracy rises with what is explored",
        _RUN, more(m.SET, m.SET_EXPLORING), (CONVERGED,),
    ),
    Claim(
        8, "RigL that exchanges fewer weights at once errs less than a random mask that holds still.", "ours",
        f"error of static minus that of RigL with a tenth at each update, {_AT}, above 0", "", _RUN,
        more(m.STATIC, m.RIGL_FEWER), (CONVERGED,),
    ),
    Claim(
        9, "RigL that exchanges fewer weights at once errs less than RigL.", "ours",
        f"error of RigL minus that of RigL with a tenth at each update, {_AT}, above 0", "", _RUN,
        more(m.RIGL, m.RIGL_FEWER), (CONVERGED,),
    ),
    Claim(
        10, "IMP with rewinding, many trainings, errs less than RigL in one.", "ours",
        f"error of RigL minus that of IMP, {_AT}, above 0", "", _RUN, more(m.RIGL, IMP), (CONVERGED,),
    ),
)  # fmt: skip
