"""What IMP is asked to do of a recipe: a plan whose every default is settled, before anything long is started."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.rng import derived_seed
from lotto.core.shown import shown
from lotto.core.statistics import CONFIDENCE, confidence_per_look
from lotto.core.weights import Weights
from lotto.lottery.options import AUTO, CONTROLS, END, Plan, Retraining, made_from_plan
from lotto.lottery.scoring import check_score
from lotto.pruning import masks
from lotto.pruning.density import (
    MAX_LEVELS,
    Adaptive,
    DensitySchedule,
    Explicit,
    Geometric,
    OneShot,
    ShortOptions,
    ToDensity,
    densities_of,
    named_schedule,
    to_density,
)
from lotto.pruning.masks import Mask, layer_of
from lotto.pruning.patterns import Unstructured
from lotto.pruning.prunable import NAMED
from lotto.pruning.rule import Pruning, prune_by
from lotto.pruning.scores import magnitude_increase, reads_density, score_function, score_name
from lotto.recipe.recipe import Recipe

__all__ = ["AUTO", "CONTROLS", "Plan", "Retraining", "SettledPlan", "make_plan", "number_of_replicates"]

log = logging.getLogger(__name__)

REPLICATES = {"mnist": 5, "fashion-mnist": 5, "mnist1d": 5, "mnist1d-50k": 5, "digits": 5, "cifar10": 8}
"""By data set, so that a gap of 0 is decided; elsewhere, and for VGGs, whose trainings take hours, `FEW`."""
FEW = 3
HELD_OUT = 10
"""Adaptive pruning chooses on at most one in so many training examples."""
REINIT_CONTROL = 1_000_000
"""Added to a replicate's seed for the initialisation of its control."""


@dataclass(frozen=True)
class SettledPlan:
    """A plan for one recipe: what was asked, and what it comes to.

    Attributes:
        recipe: what is trained; adaptive pruning's holds examples out.
        options: what was asked.
        schedule: how much is left after each level.
        pruning: the recipe's rule with the plan's rate, score and allocation, from which the schedule makes its cuts.
        levels: how many there are after the dense one; of adaptive pruning at most.
        rewind_step: in iterations.
        replicates: how many; with ``replicates="auto"`` those of the looks that are taken.
        control_levels: levels at which controls are trained.
        finetune_lr: learning rate of ``finetune``.
        left_out: those of the controls that would be none for this model, see `check_reinit`; their columns are empty.
        first_look: with ``replicates="auto"``, how many the first look has; the second has twice as many. 0: there is
            one look.
        start_mask: what is left at level 0; None = everything.
        scored: whether the score reads the network and its data, so that every cut has a computation of its own.
        also_keep: steps that the dense training stores beside the rewind step, so that plans which go back to these
            share it.

    >>> plan = make_plan(recipe, levels=2, rate=0.5, rewind_to="1ep", replicates=2)
    >>> plan.rewind_step, plan.densities, plan.control_levels
    (12, [0.5, 0.25], (1, 2))
    """

    recipe: Recipe
    options: Plan
    schedule: DensitySchedule
    pruning: Pruning
    levels: int
    rewind_step: int
    replicates: int
    control_levels: tuple[int, ...]
    finetune_lr: float
    left_out: tuple[str, ...] = ()
    first_look: int = 0
    scored: bool = False
    start_mask: Mask | None = field(default=None, compare=False)
    also_keep: tuple[int, ...] = ()

    if not TYPE_CHECKING:  # to type checkers, and in this package, an option is `plan.options.NAME`

        def __getattr__(self, name: str) -> Any:
            """An option that is not settled, as it was asked for: ``plan.seed``."""
            if name.startswith("_") or name not in Plan.__dataclass_fields__:
                raise AttributeError(f"a settled plan has no attribute {name!r}")
            return getattr(self.options, name)

    @property
    def adaptive(self) -> bool:
        """Whether cuts are chosen by trial."""
        return isinstance(self.schedule, Adaptive)

    @property
    def before_training(self) -> bool:
        """Whether the weights at the rewind step are pruned, by one cut for each level."""
        return self.options.prune_at != END

    @property
    def target(self) -> float:
        """Density at which adaptive pruning ends; 0: where no cut is kept any more."""
        return (self.schedule.density or 0.0) if isinstance(self.schedule, Adaptive) else 0.0

    @property
    def trained_controls(self) -> tuple[str, ...]:
        """The controls that are trained."""
        return tuple(control for control in self.options.controls if control not in self.left_out)

    def order_seed(self, replicate: int, level: int) -> int:
        """Seed of the data order: one for a replicate, or a fresh one for each of its levels."""
        return order_seed(self.options.seed, self.options.order, replicate, level)

    @property
    def confidence(self) -> float:
        """Of each one-sided bound of a gap: 95 %, or what two looks need to err in 5 % together."""
        return confidence_per_look(self.first_look) if self.first_look else CONFIDENCE

    @property
    def jobs(self) -> int | None:
        """How many trainings the plan has; adaptive pruning does not know beforehand."""
        if self.adaptive:
            return None
        # With particles every level has their average to evaluate, too.
        each = (self.levels + 1) * (self.options.particles + (self.options.particles > 1))
        each += self.scored * (self.levels if not self.before_training or reads_density(self.pruning.score) else 1)
        return self.replicates * (each + len(self.trained_controls) * len(self.control_levels))

    @cached_property
    def densities(self) -> list[float]:
        """What is left at each level from 1 on; empty for adaptive pruning, which does not know beforehand."""
        return [] if self.adaptive else densities_of(self.schedule, self.pruning, self.first_mask)

    @property
    def first_mask(self) -> Mask:
        """What is left at level 0."""
        return masks.ones(self.recipe) if self.start_mask is None else self.start_mask

    def next_cut(self, mask: Mask, level: int) -> Pruning | None:
        """The cut that follows a level; None where the schedule ends."""
        return self.schedule.next_cut(self.pruning, mask, level)

    def cut_before_training(self, level: int) -> Pruning:
        """The cut of what is left at level 0 to the density of a level."""
        return to_density(self.pruning, self.first_mask, self.densities[level - 1])

    def describe(self) -> dict[str, Any]:
        """The plan in plain values, for files and reports."""
        asked, cut = self.options, self._same_cut
        return {
            "levels": self.levels,
            **({"rate": float(cut.rate)} if cut else {"schedule": repr(self.schedule)}),
            "score": score_name(self.pruning.score),
            "scope": score_name(self.pruning.allocation),
            "rates": {name: float(rate) for name, rate in (cut or self.pruning).rates.items()},
            "exclude": list(self.pruning.exclude),
            **({"include": list(self.pruning.include)} if self.pruning.include else {}),
            **({} if isinstance(self.pruning.pattern, Unstructured) else {"pattern": text(self.pruning.pattern)}),
            "rewind_step": self.rewind_step,
            "rewind_optimizer": asked.rewind_optimizer,
            "after": Retraining(asked.after).value,
            "order": asked.order,
            "replicates": self.replicates,
            **({"first_look": self.first_look} if self.first_look else {}),
            "controls": list(asked.controls),
            **({"left_out": list(self.left_out)} if self.left_out else {}),
            "control_levels": list(self.control_levels),
            "seed": asked.seed,
            "adaptive": self.adaptive,
            "particles": asked.particles,
            **({"restart_dense": True} if asked.restart_dense else {}),
            **({"prune_at": asked.prune_at} if self.before_training else {}),
        }

    @property
    def _same_cut(self) -> Pruning | None:
        """The cut of every level where that is the same one; of adaptive pruning, what its shares are compared with."""
        if isinstance(self.schedule, OneShot) and self.schedule.like_levels:
            return self.schedule.next_cut(self.pruning, {}, 0)
        return self.pruning if isinstance(self.schedule, (Geometric, ToDensity, Adaptive)) else None

    __repr__ = shown


def order_seed(seed: int, order: str, replicate: int, level: int) -> int:
    """The seed of a level's data order; ``order`` is an option of `Plan`."""
    base = seed + replicate
    return base if order == "shared" or level == 0 else derived_seed(base, "order", level)


@made_from_plan
@checked
def make_plan(
    recipe: Recipe, plan: Plan | int | None = None, *, start_mask: masks.MaskLike | None = None
) -> SettledPlan:
    """Settle a plan for a recipe; what does not fit is found before anything is trained.

    Args:
        recipe: what is trained.
        plan: what is asked; default made from the other arguments.
        {options}
        start_mask: what is left at level 0; default everything.

    Raises:
        UsageError: for whatever cannot be done.

    >>> make_plan(lotto.recipes.get("mlp-mnist1d"), densities=[0.5, 0.25]).densities
    [0.5, 0.25]
    """
    assert isinstance(plan, Plan)
    _check_own_loop(recipe, plan)
    if _is_adaptive(plan):
        recipe = with_validation(recipe)
    number, first_look = number_of_replicates(recipe, plan.replicates)
    rewind_step = _rewind_step(recipe, plan)
    rule, mask = base_rule(recipe, plan), masks.ones(recipe) if start_mask is None else Mask(start_mask)
    masks.check_fits(mask, masks.ones(recipe))
    if plan.prune_at != END and score_function(rule.score) is magnitude_increase:
        raise UsageError(
            f"prune_at={plan.prune_at!r} prunes before training, when no weight has grown yet: take another score than "
            "'magnitude-increase'."
        )
    left_out = () if check_reinit(recipe, plan.seed, mask, plan.controls, Retraining(plan.after)) else ("reinit",)
    schedule = schedule_of(plan, rule, mask)
    if isinstance(schedule, (Geometric, ToDensity)) and schedule.rate is None:
        schedule = replace(schedule, rate=rule.rate)
    if isinstance(schedule, Adaptive) and first_look:
        raise UsageError(
            "Adaptive pruning chooses its cuts by all replicates together, so that it has one look; give a number of "
            "replicates instead of 'auto'."
        )
    levels = _levels(schedule, rule, mask)
    # One cut of the initial weights, so that a score, a rate or a layer that does not fit is noticed now.
    first = recipe.initial(plan.seed)
    scored = check_score(recipe, _first_cut(schedule, rule, mask), first, mask, first, plan.seed)
    _check_pattern(schedule, rule, first, mask)
    every = () if isinstance(schedule, Adaptive) else tuple(range(1, levels + 1))  # that takes its last level
    chosen = every if plan.control_levels is None else plan.control_levels
    if any(not 1 <= at <= levels for at in chosen):
        raise UsageError(f"Control levels are between 1 and {levels}; got {list(chosen)}.")
    last = max(0.01 * recipe.optimizer.lr, recipe.learning_rate(recipe.total - 1))
    return SettledPlan(
        recipe, plan, schedule, rule, levels, rewind_step, number, chosen, plan.finetune_lr or last, left_out,
        first_look, scored, None if start_mask is None else mask,
    )  # fmt: skip


def _is_adaptive(plan: Plan) -> bool:
    return plan.adaptive or plan.schedule == "adaptive" or isinstance(plan.schedule, Adaptive)


def _check_own_loop(recipe: Recipe, plan: Plan) -> None:
    """Raise ``UsageError`` for what takes a training apart that is a loop of the user's own."""
    if recipe.loop is None:
        return
    for asked, what, why in (
        (_is_adaptive(plan), "adaptive pruning", "its barriers are those of a validation split of lotto's"),
        (plan.particles > 1, "particles", "an average of networks is evaluated on lotto's data"),
        (plan.rewind_optimizer, "rewind_optimizer", "the optimizer is made inside the loop"),
        (Retraining(plan.after) is Retraining.FINETUNE, "after='finetune'", "the learning rate is the loop's own"),
    ):
        if asked:
            raise UsageError(f"{what} is not for a loop of your own (lotto.Trainable): {why}.")


def base_rule(recipe: Recipe, plan: Plan) -> Pruning:
    """The recipe's pruning with what the plan says of it."""
    rate = plan.rate or getattr(plan.schedule, "rate", None)
    given: dict[str, Any] = {"rate": rate, "score": plan.score, "allocation": plan.allocation, "pattern": plan.pattern}
    return replace(recipe.pruning, **{name: value for name, value in given.items() if value is not None})


def _first_cut(schedule: DensitySchedule, rule: Pruning, mask: Mask) -> Pruning:
    return rule if isinstance(schedule, Adaptive) else (schedule.next_cut(rule, mask, 0) or rule)


def _check_pattern(schedule: DensitySchedule, rule: Pruning, weights: Weights, mask: Mask) -> None:
    """Raise ``UsageError`` unless a pattern fits the layers and every density of a schedule."""
    if isinstance(rule.pattern, Unstructured) or isinstance(schedule, Adaptive):
        return
    cut, level = schedule.next_cut(rule, mask, 0), 0
    while cut is not None and level < MAX_LEVELS:
        mask = prune_by(replace(cut, score="magnitude"), weights, mask)
        level += 1
        cut = schedule.next_cut(rule, mask, level)


def schedule_of(plan: Plan, rule: Pruning, mask: Mask) -> DensitySchedule:
    """The schedule that is given, or the one that the short options make."""
    if isinstance(plan.schedule, DensitySchedule):
        return plan.schedule
    if plan.densities is not None:
        return Explicit(plan.densities)
    asked = plan.schedule or ("adaptive" if plan.adaptive else "one-shot" if plan.one_shot else "geometric")
    short = ShortOptions(plan.rate, plan.levels, plan.density)
    return named_schedule(asked).of_options(short, rule, mask)


def _levels(schedule: DensitySchedule, rule: Pruning, mask: Mask) -> int:
    """How many levels; of a schedule by densities, after trying whether they can all be reached."""
    if isinstance(schedule, (Geometric, Adaptive)) and schedule.levels:
        return schedule.levels
    if not (levels := len(densities_of(schedule, rule, mask))):
        raise UsageError(f"{schedule!r} has no level: its first cut is None.")
    return levels


def _rewind_step(recipe: Recipe, plan: Plan) -> int:
    if plan.prune_at == "init":
        if plan.rewind_to is not None and recipe.step(plan.rewind_to):
            raise UsageError(
                "prune_at='init' prunes and trains from the initial weights, so its rewind step is 0; got "
                f"rewind_to={plan.rewind_to!r}. prune_at='rewind' prunes the weights at that step."
            )
        return 0
    step = recipe.step(recipe.rewind_to if plan.rewind_to is None else plan.rewind_to)
    if step >= recipe.total:
        raise UsageError(
            f"The rewind step {step} is not before the end of training at {recipe.total} iterations "
            f"(an epoch is {recipe.per_epoch})."
        )
    return step


def number_of_replicates(recipe: Recipe, given: int | str | None = None) -> tuple[int, int]:
    """How many replicates are trained, and how many a first look has (0: there is one look).

    >>> number_of_replicates(lotto.recipes.get("mlp-mnist1d"), "auto")
    (5, 5)
    """
    if isinstance(given, int):
        if given < 1:
            raise UsageError(f"replicates is 1 or more; got {given}.")
        return given, 0
    if given not in (None, AUTO):
        raise UsageError(f"replicates is a whole number from 1, or 'auto'; got {text(given)}.")
    data = recipe.data if isinstance(recipe.data, str) else recipe.data.name
    long = isinstance(recipe.model, str) and recipe.model.startswith("vgg")
    number = FEW if long else REPLICATES.get(data, FEW)
    return number, number if given == AUTO else 0


def with_validation(recipe: Recipe) -> Recipe:
    """The recipe with examples held out to choose by: as many as are tested, at most a tenth of the training set.

    What decides does not report: by the split that chose, the chosen would look better than it is.
    """
    if recipe.validation:
        return recipe
    sizes = recipe.arrays
    if sizes.size("validation"):  # a source's own
        return recipe
    return recipe.replace(validation=max(1, min(sizes.size("test"), sizes.size() // HELD_OUT)))


def check_reinit(recipe: Recipe, seed: int, mask: Mask, controls: Sequence[str], after: Retraining) -> bool:
    """Whether another seed gives other weights to prune; says so where it does not, or not everywhere.

    A model that loads its own weights, or seeds itself, has one initialisation: training it "anew" is IMP once more.

    Raises:
        UsageError: if there is one initialisation, and ``after='reinit'`` needs others.
    """
    if "reinit" not in controls and after.value != "reinit":
        return True
    recipe = recipe.replace(pretrained=None)  # what "anew" draws
    if isinstance(recipe.model, str) or recipe.init != "module":
        return True
    one, two = recipe.initial(seed), recipe.initial(seed + REINIT_CONTROL)
    same = [n for n in mask if torch.equal(one[n], two[n])]
    why = f"{recipe.name} has the same initial weights for every seed (it loads them, or seeds itself)"
    own = "Let the model draw them from torch's generator, which is seeded for each, and give init= what it loads."
    instead = "Other weights are drawn with init='kaiming-normal'." if recipe.loop is None else own
    if len(same) == len(mask):
        if after is Retraining.REINIT:
            raise UsageError(f"after='reinit' needs new initial weights, but {why}. {instead}")
        log.warning(
            "%s: the control 'reinit' would be no control and is left out, and replicates differ in the data order "
            "alone. %s", why, instead,
        )  # fmt: skip
        return False
    if drawn := [layer_of(n) for n in same if not bool((one[n] == one[n].flatten()[0]).all())]:
        log.warning(
            "%s in %d of %d layers (%s): there the control 'reinit' is none.",
            why, len(drawn), len(mask), ", ".join(drawn[:NAMED]) + (", ..." if len(drawn) > NAMED else ""),
        )  # fmt: skip
    return True
