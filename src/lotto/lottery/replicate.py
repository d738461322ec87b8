"""One replicate of IMP: what its levels and controls have in common, and the trainings that these are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import torch

from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed, stream
from lotto.core.shown import number, shown
from lotto.execution.procedures import Procedure
from lotto.lottery.averaging import averaged_procedure
from lotto.lottery.options import Retraining
from lotto.lottery.plan import REINIT_CONTROL, SettledPlan
from lotto.lottery.scoring import pruned
from lotto.pruning import masks
from lotto.pruning.density import MAX_LEVELS
from lotto.pruning.masks import Mask
from lotto.pruning.patterns import Pattern, Unstructured
from lotto.pruning.rule import Pruning
from lotto.pruning.structured import named_pattern
from lotto.recipe.lr_schedules import Constant
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run, State


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

    >>> result = lotto.imp(recipe, levels=1, rate=0.5, rewind_to="5it", replicates=1, controls=("random",), jobs=1)
    >>> level = result.replicates[0][1]
    >>> level.level, level.mask, [*level.controls]
    (1, Mask(50 % of 768 weights in 3 layers), ['random'])
    """

    level: int
    mask: Mask
    run: Run
    controls: dict[str, Run] = field(default_factory=dict)
    particles: Sequence[Run] = ()
    average: Run | None = None

    @property
    def diverged(self) -> str:
        """Why its training has no end, and the replicate no further level; empty if it has one."""
        return self.run.diverged or self.solution.diverged

    @property
    def solution(self) -> Run:
        """What the next level prunes."""
        return self.average or self.run

    def __repr__(self) -> str:
        controls = "".join(f", {name}={number(run.test_error)}" for name, run in self.controls.items())
        error = "diverged" if self.diverged else f"error={number(self.run.test_error)}"
        return f"Level({self.level}, {100 * masks.density(self.mask):.3g} % left, {error}{controls})"


@dataclass(frozen=True, eq=False)
class Replicate:
    """A replicate whose dense network is trained.

    Attributes:
        plan: what is asked.
        index: its number.
        dense: level 0.
        rewound: ``W_k``, with the optimizer's state if the plan restores it.
    """

    plan: SettledPlan
    index: int
    dense: Level
    rewound: State

    @property
    def seed(self) -> int:
        """Seed of the initialisation, and of all that is drawn for this replicate."""
        return self.plan.options.seed + self.index

    def label(self, *parts: object) -> str:
        """What displays call a training of this replicate."""
        return _label(self.index, *parts)

    def cut(self, last: Level, rule: Pruning | None = None) -> Procedure[Mask]:
        """The mask of the level after ``last``, by the plan's schedule unless a rule is given."""
        level, rule = last.level + 1, rule or self.plan.next_cut(last.mask, last.level)
        if rule is None:
            raise UsageError(
                f"{self.plan.schedule!r} ends at level {last.level} here, and at level {self.plan.levels} for a mask "
                "with as many weights: a schedule goes by the level and by how much is left."
            )
        return pruned(
            self.plan.recipe, rule, last.solution.weights, last.mask, start=self.rewound.weights,
            seed=derived_seed(self.seed, "pruning", level), label=self.label(f"level {level}"),
        )  # fmt: skip

    def cut_before_training(self, level: int) -> Procedure[Mask]:
        """The mask of a level whose weights are pruned where it starts: one seed, so that one score is for all."""
        plan, weights = self.plan, self.rewound.weights
        return pruned(
            plan.recipe, plan.cut_before_training(level), weights, plan.first_mask, start=weights,
            seed=derived_seed(self.seed, "pruning", 0), label=self.label(f"level {level}"),
        )  # fmt: skip

    def next_level(self, last: Level, mask: Mask) -> Procedure[Level]:
        """Train the level after ``last`` from its mask."""
        level = last.level + 1
        job = self.job_of(level, mask, last.solution)
        if self.plan.options.particles == 1:
            (run,) = yield [job]
            return Level(level, mask, run)
        average, runs = yield from averaged_procedure(_particles(self.plan, job))
        return Level(level, mask, average, particles=runs, average=average)

    def job_of(self, level: int, mask: Mask, last: Run | None = None) -> Job:
        """The training of a level: where it starts and how is the plan's after-prune policy.

        ``last`` is what was pruned, where that is trained.
        """
        plan, recipe = self.plan, self.plan.recipe
        start = self.rewound if last is None else State(last.weights)
        order = plan.order_seed(self.index, level)
        label = self.label(f"level {level}", f"{masks.density(mask):.1%}")
        match plan.options.after:
            case Retraining.REINIT:
                fresh = derived_seed(self.seed, "reinit", level)
                return Job(_drawn_anew(recipe), init_seed=fresh, order_seed=order, mask=mask, label=label)
            case Retraining.WEIGHTS:
                start = self.rewound
            case Retraining.FINETUNE:
                recipe = replace(recipe, schedule=Constant(), optimizer=replace(recipe.optimizer, lr=plan.finetune_lr))
        return Job(recipe, order_seed=order, start=start, mask=mask, from_step=plan.rewind_step, label=label)

    def train_controls(self, levels: Sequence[Level], chosen: Collection[int]) -> Procedure[None]:
        """Train the plan's controls of the chosen levels and put them there."""
        wanted = [(at, c) for at in levels if at.level in chosen for c in self.plan.trained_controls]
        runs = yield [self._control_job(at, control) for at, control in wanted]
        for (at, control), run in zip(wanted, runs, strict=True):
            at.controls[control] = run

    def _control_job(self, at: Level, control: str) -> Job:
        """The training of a control of a level: its mask on a new initialisation, or a random mask."""
        plan, order = self.plan, self.plan.order_seed(self.index, at.level)
        label = self.label(f"level {at.level}", control)
        if control == "reinit":
            return Job(_drawn_anew(plan.recipe), self.seed + REINIT_CONTROL, order, mask=at.mask, label=label)
        mask = random_control(at, self.seed, plan.pruning.pattern)
        return Job(
            plan.recipe, order_seed=order, start=self.rewound, mask=mask, from_step=plan.rewind_step, label=label
        )

    __repr__ = shown


def _drawn_anew(recipe: Recipe) -> Recipe:
    """The recipe with initial weights that are drawn, if it begins at given ones."""
    return recipe if recipe.pretrained is None else recipe.replace(pretrained=None)


def trained_replicate(plan: SettledPlan, index: int) -> Procedure[Replicate]:
    """Train level 0, which keeps the rewind point; its other particles part from it there."""
    recipe, order, label = plan.recipe, plan.order_seed(index, 0), _label(index, "dense")
    mask, kept_there, keep = plan.first_mask, plan.start_mask, (plan.rewind_step, *plan.also_keep)
    (run,) = yield [Job(recipe, plan.options.seed + index, order, mask=kept_there, keep=keep, label=label)]
    if run.diverged:
        return Replicate(plan, index, Level(0, mask, run), State({}))
    kept = run.state(plan.rewind_step)
    rewound = kept.without_best if plan.options.rewind_optimizer else kept.without_optimizer
    rerun = Job(recipe, order_seed=order, start=rewound, mask=kept_there, from_step=plan.rewind_step, label=label)
    if plan.options.restart_dense and plan.rewind_step:
        (run,) = yield [replace(rerun, keep=(plan.rewind_step,))]
    if plan.options.particles == 1:
        return Replicate(plan, index, Level(0, mask, run), rewound)
    average, runs = yield from averaged_procedure(_particles(plan, rerun)[1:], [run])
    return Replicate(plan, index, Level(0, mask, run, particles=runs, average=average), rewound)


def random_control(at: Level, seed: int, pattern: Pattern | str = "unstructured") -> Mask:
    """The random mask with the layer densities of a level of the replicate with ``seed``, of the same pattern."""
    drawn = seed * MAX_LEVELS + at.level
    if isinstance(rule := named_pattern(pattern), Unstructured):
        return masks.random_like(at.mask, drawn)
    scores = {n: torch.from_numpy(stream(drawn, f"random-mask:{n}").random(tuple(m.shape))) for n, m in at.mask.items()}
    counts = {name: int(keep.sum()) for name, keep in at.mask.items()}
    whole = {name: torch.ones_like(keep) for name, keep in at.mask.items()}
    return Mask(rule.keep(scores, counts, whole), getattr(at.mask, "shared", None))


def _particles(plan: SettledPlan, job: Job) -> list[Job]:
    """The job and its copies on other data orders."""
    copies = [
        replace(job, order_seed=derived_seed(job.order_seed, "particle", i), label=f"{job.label} · particle {i + 1}")
        for i in range(1, plan.options.particles)
    ]
    return [job, *copies]


def _label(index: int, *parts: object) -> str:
    return " · ".join([f"replicate {index + 1}", *map(str, parts)])
