"""The levels of one replicate of IMP.

train 0 -> T keeping step k | prune | weights back to m * W_k | train k -> T | prune | ...
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from lotto.core.shown import shown
from lotto.execution.engine import Progress
from lotto.execution.procedures import Procedure
from lotto.lottery.plan import SettledPlan
from lotto.lottery.replicate import Level, trained_replicate
from lotto.pruning import masks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LevelFinished:
    """A level of a replicate is there, trained or from the store.

    >>> events = []
    >>> result = lotto.imp(recipe, levels=1, replicates=1, controls=(), jobs=1, progress=events.append)
    >>> [event.level for event in events if isinstance(event, LevelFinished)]
    [0, 1]
    """

    replicate: int
    level: int
    density: float
    error: float

    @classmethod
    def of(cls, replicate: int, at: Level) -> LevelFinished:
        """The event of a level."""
        return cls(replicate, at.level, masks.density(at.mask), at.run.test_error)

    __repr__ = shown


@dataclass(frozen=True)
class SecondLook:
    """Replicates are doubled, because the first level that does not match is borderline.

    Attributes:
        level: that level.
        replicates: how many there will be.
    """

    level: int
    replicates: int

    __repr__ = shown


def level_procedure(plan: SettledPlan, index: int, emit: Progress) -> Procedure[list[Level]]:
    """All levels of one replicate, then its controls."""
    replicate = yield from trained_replicate(plan, index)
    levels = [replicate.dense]
    emit(LevelFinished.of(index, replicate.dense))
    for number in range(1, plan.levels + 1):
        if levels[-1].diverged:
            log.warning("%s ends at level %d, which diverged.", replicate.label().capitalize(), number - 1)
            break
        mask = yield from replicate.cut(levels[-1])
        if empty := masks.empty_layers(mask):
            log.warning("Level %d of %s: pruned to nothing: %s.", number, replicate.label(), ", ".join(empty))
        levels.append((yield from replicate.next_level(levels[-1], mask)))
        emit(LevelFinished.of(index, levels[-1]))
    # Controls come last: they keep all workers busy when the levels themselves no longer can.
    yield from replicate.train_controls(levels, plan.control_levels)
    return levels
