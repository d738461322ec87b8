"""Levels of IMP: the chain of trainings of one replicate, and its controls.

train 0 -> T keeping step k | prune | weights back to m * W_k | train k -> T | prune | ...
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from lotto.core.rng import derived_seed
from lotto.execution.engine import Progress
from lotto.execution.procedures import Procedure
from lotto.lottery.averaging import averaged_chain
from lotto.lottery.plan import After, Plan
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import MAX_LEVELS, Pruning, prune
from lotto.recipe.lr_schedules import Constant
from lotto.training.job import Job, Run, State

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
    """One level of one replicate.

    Attributes:
        level: its number.
        mask: what is left.
        run: its training; with particles, their average. Level 0 has the dense training itself.
        controls: the runs of its controls.
        particles: with particles, their runs; at level 0 without the dense training, which is one of them.
        average: with particles, their average, which is pruned.
    """

    level: int
    mask: Mask
    run: Run
    controls: dict[str, Run] = field(default_factory=dict)
    particles: Sequence[Run] = ()
    average: Run | None = None

    @property
    def solution(self) -> Run:
        """What the next level prunes."""
        return self.average or self.run


def level_chain(plan: Plan, replicate: int, tell: Progress) -> Procedure[list[Level]]:
    """All levels of one replicate, then its controls."""
    mask = masks.ones(plan.recipe)
    seed = plan.seed + replicate
    label = f"replicate {replicate + 1}"
    levels = [(yield from dense_level(plan, replicate))]
    dense = levels[0].run
    tell(LevelFinished(replicate, 0, 1.0, dense.test_error))
    rewound = rewind_point(plan, dense)
    for number in range(1, plan.levels + 1):
        mask = cut(plan.pruning, levels[-1], rewound, seed)
        if empty := masks.empty_layers(mask):
            log.warning("Level %d of %s: pruned to nothing: %s.", number, label, ", ".join(empty))
        name = f"{label} · level {number} · {masks.density(mask):.1%}"
        levels.append((yield from next_level(plan, replicate, number, mask, rewound, levels[-1].solution, name)))
        tell(LevelFinished(replicate, number, masks.density(mask), levels[-1].run.test_error))

    # Controls come last: they keep all workers busy when the chains themselves no longer can.
    yield from train_controls(plan, replicate, levels, rewound, plan.control_levels)
    return levels


def train_controls(
    plan: Plan, replicate: int, levels: Sequence[Level], rewound: State, chosen: Collection[int]
) -> Procedure[None]:
    """Train the plan's controls of the chosen levels and put them there."""
    wanted = [(at, c) for at in levels if at.level in chosen for c in plan.controls]
    runs = yield [control_job(plan, replicate, at, control, rewound) for at, control in wanted]
    for (at, control), run in zip(wanted, runs, strict=True):
        at.controls[control] = run


def cut(rule: Pruning, last: Level, rewound: State, seed: int) -> Mask:
    """The mask of the level after ``last``, of the replicate with ``seed``."""
    return prune(
        last.solution.weights, last.mask, rule.rate, rule.score, rule.scope, rule.rates,
        start=rewound.weights, seed=derived_seed(seed, "pruning", last.level + 1),
    )  # fmt: skip


def dense_level(plan: Plan, replicate: int) -> Procedure[Level]:
    """Train level 0; its other particles part from it at the rewind step."""
    (dense,) = yield [dense_job(plan, replicate)]
    mask = masks.ones(plan.recipe)
    if plan.particles == 1:
        return Level(0, mask, dense)
    order, label = plan.order_seed(replicate, 0), f"replicate {replicate + 1} · dense"
    again = Job(plan.recipe, order_seed=order, start=rewind_point(plan, dense), from_step=plan.rewind_step, label=label)
    average, runs = yield from averaged_chain(_particles(plan, again)[1:], [dense])
    return Level(0, mask, dense, particles=runs, average=average)


def next_level(
    plan: Plan, replicate: int, level: int, mask: Mask, rewound: State, last: Run, label: str
) -> Procedure[Level]:
    """Train a level from its mask and the last level's solution."""
    job = next_job(plan, replicate, level, mask, rewound, last, label)
    if plan.particles == 1:
        (run,) = yield [job]
        return Level(level, mask, run)
    average, runs = yield from averaged_chain(_particles(plan, job))
    return Level(level, mask, average, particles=runs, average=average)


def _particles(plan: Plan, job: Job) -> list[Job]:
    """The job and its copies on other data orders."""
    copies = [
        replace(job, order_seed=derived_seed(job.order_seed, "particle", i), label=f"{job.label} · particle {i + 1}")
        for i in range(1, plan.particles)
    ]
    return [job, *copies]


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
