"""What must be true of a network for a claim to be about it, read from stored results and not from its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lotto.experiments.evidence import Evidence, above, below, between
from lotto.experiments.measures import DENSE, LAST_QUARTER, TEST_BARRIER
from lotto.experiments.results import ResultGroup, distinguishing
from lotto.landscape.stability import STABLE

HIGH_RATE, LOW_RATE = 0.1, 0.03
"""SGD rates of STAB's standard and low rows (figure 2): from the one, and up to the other."""
LOWER = 3.0
"""A rate is low against another that is at least so many times higher."""


@dataclass(frozen=True)
class Checked:
    """A condition with what results say about it.

    Attributes:
        name: the condition.
        holds: whether it does; None = the results do not say.
        figure: the statistic that decides it.
    """

    name: str
    holds: bool | None
    figure: str = ""

    def __str__(self) -> str:
        word = {True: "holds", False: "fails", None: "cannot be checked"}[self.holds]
        return f"{self.name}: {word}{f', {self.figure}' if self.figure else ''}"


Check = Callable[[ResultGroup, Sequence[ResultGroup]], Evidence | bool | None]


@dataclass(frozen=True)
class Condition:
    """A condition of a claim.

    Attributes:
        name: in words.
        check: from a network's results, and those of all networks, to what they say; None = nothing.
    """

    name: str
    check: Check

    def of(self, group: ResultGroup, groups: Sequence[ResultGroup]) -> Checked:
        """Check it for one network."""
        found = self.check(group, groups)
        if isinstance(found, Evidence):
            return Checked(self.name, found.decided, found.figure)
        return Checked(self.name, found)


# --- stability and convergence --------------------------------------------------------------------------


def dense_barrier(group: ResultGroup, k: int) -> Any:
    """Barrier between copies of the dense network that part at ``k``, by seed (LMC's, statistics interpolated)."""
    return group.values(TEST_BARRIER, kind=DENSE, rewind_step=k, level=0)


def unstable(group: ResultGroup, k: int = 0) -> Evidence | None:
    """Whether the dense network is unstable at ``k``: its barrier is above LMC's 2 points."""
    found = dense_barrier(group, k)
    return above(found, STABLE) if len(found) else None


def stable(group: ResultGroup, k: int = 0) -> Evidence | None:
    """Whether the dense network is stable at ``k``."""
    found = dense_barrier(group, k)
    return below(found, STABLE) if len(found) else None


def converged(group: ResultGroup) -> Evidence | None:
    """Whether the dense error moves by less than the tolerance in the last quarter of training."""
    moved = group.values(LAST_QUARTER, kind=DENSE, level=0)
    return between(moved, -group.tolerance, group.tolerance) if len(moved) else None


def _dense(check: Callable[[ResultGroup], Evidence | None]) -> Check:
    """Check a group or, where it lacks the rows, one that prunes the same dense network in another way."""

    def checked(group: ResultGroup, groups: Sequence[ResultGroup]) -> Evidence | None:
        same = [other for other in groups if other is not group and _learned(other) == _learned(group)]
        return next((found for one in (group, *same) if (found := check(one)) is not None), None)

    return checked


def _learned(group: ResultGroup) -> dict[str, str]:
    """What a dense network learns by, in which pruning has no part."""
    return {name: str(value) for name, value in distinguishing(group.recipe).items() if name != "pruning"}


UNSTABLE_AT_0 = Condition("dense network unstable at 0", _dense(unstable))
STABLE_AT_0 = Condition("dense network stable at 0", _dense(stable))
CONVERGED = Condition("trained to convergence", _dense(converged))
"""From three quarters of training to the end the dense error moves by less than the tolerance."""


# --- the papers' rows: standard rate, low rate, warm-up --------------------------------------------------


def _family(group: ResultGroup) -> dict[str, str]:
    """What the rows of one network have in common: the recipe without its peak rate and its warm-up."""
    recipe = _learned(group)
    recipe["optimizer"] = re.sub(r"\blr=[^,)]*", "", recipe.get("optimizer", ""))
    recipe["schedule"] = re.sub(r"\bwarmup=[^,)]*", "", recipe.get("schedule", ""))
    return recipe


def _rate(group: ResultGroup) -> float:
    return float(group.facts["learning_rate"])


def siblings(group: ResultGroup, groups: Sequence[ResultGroup]) -> list[ResultGroup]:
    """The results of the same network at other rates or with another warm-up."""
    return [other for other in groups if other is not group and _family(other) == _family(group)]


def is_sgd(group: ResultGroup) -> bool:
    """Whether it is trained by SGD: the rates of other optimizers are of another size."""
    return str(group.recipe.get("optimizer", "SGD")).startswith("SGD")


def is_standard(group: ResultGroup, groups: Sequence[ResultGroup]) -> bool:
    """A standard row: SGD at a high rate from the first step, and no row of the network has a rate 3 times higher."""
    higher = any(_rate(other) >= LOWER * _rate(group) for other in siblings(group, groups))
    return is_sgd(group) and not group.facts["warmup"] and _rate(group) >= HIGH_RATE and not higher


def standard_of(group: ResultGroup, groups: Sequence[ResultGroup]) -> ResultGroup | None:
    """The standard row of a network whose results these are of a low rate or a warm-up; None if it is not stored."""
    rows = [other for other in siblings(group, groups) if is_standard(other, groups)]
    gentler = [r for r in rows if group.facts["warmup"] or _rate(r) >= LOWER * _rate(group)]
    return max(gentler, key=_rate, default=None)


def is_gentle(group: ResultGroup, groups: Sequence[ResultGroup]) -> bool:
    """A low-rate or warm-up row: SGD with warm-up, or at most a third of the rate of the network's standard row."""
    low = bool(group.facts["warmup"]) or _rate(group) <= LOW_RATE or standard_of(group, groups) is not None
    return is_sgd(group) and low and not is_standard(group, groups)


def _standard_is_unstable(group: ResultGroup, groups: Sequence[ResultGroup]) -> Evidence | None:
    standard = standard_of(group, groups)
    return None if standard is None else unstable(standard)


STANDARD_UNSTABLE = Condition("at the standard rate unstable at 0", _standard_is_unstable)
