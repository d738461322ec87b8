"""Levels of IMP that go on from somewhere else than IMP does: another data order, turned signs."""

from __future__ import annotations

from collections.abc import Sequence

from lotto.core.errors import DivergedError
from lotto.execution.procedures import Procedure
from lotto.lottery.options import Retraining
from lotto.lottery.plan import SettledPlan
from lotto.lottery.replicate import Level, Replicate
from lotto.training.job import Job, State


def levels_after(plan: SettledPlan, index: int, first: Level, rewound: State) -> Procedure[list[Level]]:
    """A level and all that follow it by the plan, as far as none diverges.

    Args:
        plan: its ``after`` says whether levels go back to ``rewound`` or on from the weights before.
        index: of the replicate, whose seed orders the data.
        first: the level to go on from.
        rewound: the rewind point.
    """
    replicate = Replicate(plan, index, first, rewound)
    levels = [first]
    while levels[-1].level < plan.levels and not levels[-1].diverged:
        mask = yield from replicate.cut(levels[-1])
        levels.append((yield from replicate.next_level(levels[-1], mask)))
    return levels


def on_another_order(plan: SettledPlan, dense: Level, order: int, label: str) -> Procedure[list[Level]]:
    """All levels of IMP from the rewind point that a dense training has passed, on another data order.

    Args:
        plan: of the replicate; its seed is replaced by ``order`` in ``plan``, which orders the data.
        dense: level 0 on the replicate's own data order.
        order: the seed of the other one.
        label: what displays call it.
    """
    rewound = dense.run.state(plan.rewind_step).without_optimizer
    job = Job(
        plan.recipe, order_seed=order, start=rewound, mask=plan.start_mask, from_step=plan.rewind_step,
        keep=(plan.rewind_step,), label=f"{label} · dense",
    )  # fmt: skip
    (run,) = yield [job]
    levels = yield from levels_after(plan, 0, Level(0, dense.mask, run), rewound)
    return reached_end(levels, plan)


def with_start(plan: SettledPlan, index: int, level: Level, start: State, rewound: State) -> Procedure[list[Level]]:
    """A level trained anew from another start, and all that follow it by the plan."""
    order = plan.order_seed(index, level.level)
    label = f"replicate {index + 1} · level {level.level}, {Retraining(plan.options.after).value}, signs turned"
    (run,) = yield [
        Job(plan.recipe, order_seed=order, start=start, mask=level.mask, from_step=plan.rewind_step, label=label)
    ]
    return (yield from levels_after(plan, index, Level(level.level, level.mask, run), rewound))


def reached_end(levels: Sequence[Level], plan: SettledPlan) -> list[Level]:
    """The levels, if all of them are there and have a mask to compare.

    Raises:
        DivergedError: if one before the last diverged.
    """
    if len(levels) and levels[-1].level < plan.levels:
        raise DivergedError(levels[-1].diverged)
    return list(levels)
