"""Levels of IMP: the chain of trainings of one replicate, and its controls.

train 0 -> T keeping step k | prune | weights back to m * W_k | train k -> T | prune | ...
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from lotto import masks
from lotto.engine import Chain, Progress
from lotto.job import Job, Run, State
from lotto.masks import Mask
from lotto.plan import After, Plan
from lotto.pruning import MAX_LEVELS, prune
from lotto.schedules import Constant
from lotto.streams import derived_seed

log = logging.getLogger(__name__)

REINIT_CONTROL = 1_000_000
"""Added to a replicate's seed for the initialisation of its control."""


@dataclass(frozen=True)
class LevelFinished:
    """A level of a replicate has been trained (or remembered)."""

    replicate: int
    level: int
    density: float
    error: float


@dataclass(frozen=True, eq=False)
class Level:
    """One level of one replicate: its mask, its run, the runs of its controls."""

    level: int
    mask: Mask
    run: Run
    controls: dict[str, Run] = field(default_factory=dict)


def level_chain(plan: Plan, replicate: int, tell: Progress) -> Chain[list[Level]]:
    """All levels of one replicate, then its controls."""
    mask = masks.ones(plan.recipe)
    seed = plan.seed + replicate
    label = f"replicate {replicate + 1}"
    (dense,) = yield [dense_job(plan, replicate)]
    levels = [Level(0, mask, dense)]
    tell(LevelFinished(replicate, 0, 1.0, dense.test_error))
    rewound = rewind_point(plan, dense)
    run = dense
    for number in range(1, plan.levels + 1):
        rule = plan.pruning
        mask = prune(
            run.weights, mask, rule.rate, rule.score, rule.scope, rule.rates,
            start=rewound.weights, seed=derived_seed(seed, "pruning", number),
        )  # fmt: skip
        if empty := masks.empty_layers(mask):
            log.warning("Level %d of %s: pruned to nothing: %s.", number, label, ", ".join(empty))
        name = f"{label} · level {number} · {masks.density(mask):.1%}"
        (run,) = yield [next_job(plan, replicate, number, mask, rewound, run, name)]
        levels.append(Level(number, mask, run))
        tell(LevelFinished(replicate, number, masks.density(mask), run.test_error))

    # Controls come last: they keep all workers busy when the chains themselves no longer can.
    yield from train_controls(plan, replicate, levels, rewound, plan.control_levels)
    return levels


def train_controls(
    plan: Plan, replicate: int, levels: Sequence[Level], rewound: State, chosen: Collection[int]
) -> Chain[None]:
    """Train the plan's controls of the chosen levels and put them there."""
    wanted = [(at, c) for at in levels if at.level in chosen for c in plan.controls]
    runs = yield [control_job(plan, replicate, at, control, rewound) for at, control in wanted]
    for (at, control), run in zip(wanted, runs, strict=True):
        at.controls[control] = run


def dense_job(plan: Plan, replicate: int) -> Job:
    """The training of level 0, which keeps the rewind point."""
    order = plan.order_seed(replicate, 0)
    label = f"replicate {replicate + 1} · dense"
    return Job(plan.recipe, plan.seed + replicate, order, keep=(plan.rewind_step,), label=label)


def rewind_point(plan: Plan, dense: Run) -> State:
    """``W_k``, with the optimizer's state if the plan restores it."""
    kept = dense.state(plan.rewind_step)
    return kept if plan.rewind_optimizer else kept.without_optimizer


def next_job(plan: Plan, replicate: int, level: int, mask: Mask, rewound: State, last: Run, label: str) -> Job:
    """The training of a level: where it starts and how is the plan's after-prune policy."""
    recipe, start = plan.recipe, State(last.weights)
    order = plan.order_seed(replicate, level)
    match plan.after:
        case After.REINIT:
            fresh = derived_seed(plan.seed + replicate, "reinit", level)
            return Job(recipe, init_seed=fresh, order_seed=order, mask=mask, label=label)
        case After.WEIGHTS:
            start = rewound
        case After.FINETUNE:
            recipe = replace(recipe, schedule=Constant(), optimizer=replace(recipe.optimizer, lr=plan.finetune_lr))
    return Job(recipe, order_seed=order, start=start, mask=mask, from_step=plan.rewind_step, label=label)


def control_job(plan: Plan, replicate: int, at: Level, control: str, rewound: State) -> Job:
    """The training of a control of a level: its mask on a new initialisation, or a random mask."""
    order = plan.order_seed(replicate, at.level)
    name = f"replicate {replicate + 1} · level {at.level} · {control}"
    seed = plan.seed + replicate
    if control == "reinit":
        return Job(plan.recipe, seed + REINIT_CONTROL, order, mask=at.mask, label=name)
    mask = random_control(at, seed)
    return Job(plan.recipe, order_seed=order, start=rewound, mask=mask, from_step=plan.rewind_step, label=name)


def random_control(at: Level, seed: int) -> Mask:
    """The random mask with the layer densities of a level of the replicate with ``seed``."""
    return masks.random_like(at.mask, seed * MAX_LEVELS + at.level)
