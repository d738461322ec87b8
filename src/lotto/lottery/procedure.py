"""The levels of one replicate.

IMP: train 0 -> T keeping step k | prune | weights back to m * W_k | train k -> T | prune | ...
Before training: train 0 -> T keeping step k | prune W_k to every density | train m * W_k from k -> T, all side by side
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from lotto.core.shown import shown
from lotto.execution.engine import Progress
from lotto.execution.procedures import Procedure, gather
from lotto.lottery.plan import SettledPlan
from lotto.lottery.replicate import Level, Replicate, trained_replicate
from lotto.pruning import masks
from lotto.pruning.masks import Mask

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
    grown = _pruned_before_training if plan.before_training else _pruned_in_turn
    yield from grown(plan, replicate, levels, emit)
    # Controls come last: they keep all workers busy when the levels themselves no longer can.
    yield from replicate.train_controls(levels, plan.control_levels)
    return levels


def _pruned_in_turn(plan: SettledPlan, replicate: Replicate, levels: list[Level], emit: Progress) -> Procedure[None]:
    """The levels of IMP, each pruned from the one before it."""
    for number in range(1, plan.levels + 1):
        if levels[-1].diverged:
            log.warning("%s ends at level %d, which diverged.", replicate.label().capitalize(), number - 1)
            break
        mask = yield from replicate.cut(levels[-1])
        _warn_of_empty(replicate, number, mask)
        levels.append((yield from replicate.next_level(levels[-1], mask)))
        emit(LevelFinished.of(replicate.index, levels[-1]))


def _pruned_before_training(
    plan: SettledPlan, replicate: Replicate, levels: list[Level], emit: Progress
) -> Procedure[None]:
    """Levels that wait for nothing but the weights at which they start; they end before one that diverges."""
    if replicate.dense.diverged:
        log.warning("%s ends at level 0, which diverged.", replicate.label().capitalize())
        return
    numbers = range(1, plan.levels + 1)
    cuts = yield from gather([replicate.cut_before_training(number) for number in numbers])
    for number, mask in zip(numbers, cuts, strict=True):
        _warn_of_empty(replicate, number, mask)
    runs = yield [replicate.job_of(number, mask) for number, mask in zip(numbers, cuts, strict=True)]
    for number, mask, run in zip(numbers, cuts, runs, strict=True):
        levels.append(Level(number, mask, run))
        emit(LevelFinished.of(replicate.index, levels[-1]))
        if run.diverged:
            break


def _warn_of_empty(replicate: Replicate, number: int, mask: Mask) -> None:
    if empty := masks.empty_layers(mask):
        log.warning("Level %d of %s: pruned to nothing: %s.", number, replicate.label(), ", ".join(empty))
