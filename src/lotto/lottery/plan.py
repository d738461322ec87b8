"""What IMP is asked to do: every argument checked, every default settled, before anything long is started."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch

from lotto.core.check import Few, checked
from lotto.core.errors import UsageError, text, unknown
from lotto.core.rng import derived_seed
from lotto.core.shown import shown
from lotto.core.statistics import CONFIDENCE, confidence_per_look
from lotto.pruning import masks
from lotto.pruning.density import MAX_LEVELS, levels_for
from lotto.pruning.masks import Mask, layer_of
from lotto.pruning.prunable import NAMED
from lotto.pruning.rule import Pruning, prune
from lotto.recipe.recipe import Recipe

log = logging.getLogger(__name__)


class Retraining(str, Enum):
    """What happens to the weights after a level's pruning."""

    WEIGHTS = "weights"
    """Weights and learning rate go back to the rewind step: the papers' IMP."""
    LR = "lr"
    """The trained weights stay, the learning rate goes back (Renda et al., 2003.02389)."""
    FINETUNE = "finetune"
    """The trained weights stay, the learning rate stays at its last value."""
    REINIT = "reinit"
    """New initial weights at every level, trained from the start."""


AUTO = "auto"
"""As a number of replicates: looked at once, and again with twice as many where a level is borderline."""
REPLICATES = {"mnist": 5, "fashion-mnist": 5, "mnist1d": 5, "mnist1d-50k": 5, "digits": 5, "cifar10": 8}
"""By data set, so that a gap of 0 is decided; elsewhere, and for VGGs, whose trainings take hours, `FEW`."""
FEW = 3
CONTROLS = ("reinit", "random")
HELD_OUT = 10
"""Adaptive pruning chooses on at most one in so many training examples."""
REINIT_CONTROL = 1_000_000
"""Added to a replicate's seed for the initialisation of its control."""
ORDERS = ("shared", "fresh")


@dataclass(frozen=True)
class Plan:
    """What IMP is asked to do; see `imp` for the fields."""

    recipe: Recipe
    pruning: Pruning
    levels: int
    rewind_step: int
    replicates: int
    controls: tuple[str, ...]
    control_levels: tuple[int, ...]
    after: Retraining
    order: str
    rewind_optimizer: bool
    finetune_lr: float
    seed: int
    adaptive: bool = False
    target: float = 0.0
    """Density at which adaptive pruning ends."""
    particles: int = 1
    restart_dense: bool = False
    """Whether level 0, too, is trained from the rewind point with a new optimizer, as the frameworks of both papers
    do; by default it is the dense training itself, whose optimizer goes through. They differ where there is momentum
    and the rewind step is not 0."""
    left_out: tuple[str, ...] = ()
    """Those of the controls that would be none for this model, see `check_reinit`; their columns are empty."""
    first_look: int = 0
    """With ``replicates="auto"``, how many the first look has; the second has twice as many. 0: there is one look."""

    @property
    def trained_controls(self) -> tuple[str, ...]:
        """The controls that are trained."""
        return tuple(control for control in self.controls if control not in self.left_out)

    def order_seed(self, replicate: int, level: int) -> int:
        """Seed of the data order: one for a replicate, or a fresh one for each of its levels."""
        base = self.seed + replicate
        return base if self.order == "shared" or level == 0 else derived_seed(base, "order", level)

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
        each = (self.levels + 1) * (self.particles + (self.particles > 1))
        return self.replicates * (each + len(self.trained_controls) * len(self.control_levels))

    def describe(self) -> dict[str, Any]:
        """The plan in plain values, for files and reports."""
        score = self.pruning.score
        return {
            "levels": self.levels,
            "rate": float(self.pruning.rate),
            "score": score if isinstance(score, str) else getattr(score, "__qualname__", repr(score)),
            "scope": self.pruning.scope,
            "rates": {name: float(rate) for name, rate in self.pruning.rates.items()},
            "exclude": list(self.pruning.exclude),
            **({"include": list(self.pruning.include)} if self.pruning.include else {}),
            "rewind_step": self.rewind_step,
            "rewind_optimizer": self.rewind_optimizer,
            "after": self.after.value,
            "order": self.order,
            "replicates": self.replicates,
            **({"first_look": self.first_look} if self.first_look else {}),
            "controls": list(self.controls),
            **({"left_out": list(self.left_out)} if self.left_out else {}),
            "control_levels": list(self.control_levels),
            "seed": self.seed,
            "adaptive": self.adaptive,
            "particles": self.particles,
            **({"restart_dense": True} if self.restart_dense else {}),
        }

    __repr__ = shown


@checked
def make_plan(
    recipe: Recipe,
    levels: int | None = None,
    rate: float | None = None,
    rewind_to: str | int | None = None,
    replicates: Few | str | None = None,
    controls: Sequence[str] = CONTROLS,
    control_levels: Sequence[int] | None = None,
    density: float | None = None,
    one_shot: bool = False,
    after: str | Retraining = Retraining.WEIGHTS,
    order: str = "shared",
    rewind_optimizer: bool = False,
    finetune_lr: float | None = None,
    seed: int = 0,
    adaptive: bool = False,
    particles: Few = 1,
    restart_dense: bool = False,
) -> Plan:
    """Check every argument of `imp` and settle the defaults."""
    if adaptive:
        recipe = with_validation(recipe)
    pruning = recipe.pruning if rate is None else replace(recipe.pruning, rate=rate)
    if levels is not None and density is not None and not adaptive:
        raise UsageError("Give either levels or a target density, not both.")
    if levels is not None and not 1 <= levels <= MAX_LEVELS:
        raise UsageError(f"levels is between 1 and {MAX_LEVELS}; got {levels}.")
    number, first_look = number_of_replicates(recipe, replicates)
    if particles < 1:
        raise UsageError(f"particles is 1 or more; got {particles}.")
    for control in controls:
        if control not in CONTROLS:
            raise unknown("control", control, CONTROLS)
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if after not in [a.value for a in Retraining] and not isinstance(after, Retraining):
        raise unknown("after-prune policy", after, [a.value for a in Retraining])
    rewind_step = recipe.step(recipe.rewind_to if rewind_to is None else rewind_to)
    if rewind_step >= recipe.total:
        raise UsageError(
            f"The rewind step {rewind_step} is not before the end of training at {recipe.total} iterations "
            f"(an epoch is {recipe.per_epoch})."
        )
    if Retraining(after) is not Retraining.WEIGHTS and rewind_optimizer:
        raise UsageError(f"rewind_optimizer goes with after='weights'; got after={Retraining(after).value!r}.")
    if Retraining(after) is Retraining.REINIT and rewind_to is not None:
        raise UsageError("after='reinit' trains from a new start at every level, so it has no rewind step.")
    if finetune_lr is not None and not finetune_lr > 0:
        raise UsageError(f"A learning rate is greater than 0; got finetune_lr={finetune_lr!r}.")
    mask = masks.ones(recipe)
    # One cut of the initial weights, so that a score, a rate or a layer that does not fit is noticed now.
    first = recipe.initial(seed)
    prune(first, mask, pruning.rate, pruning.score, pruning.scope, pruning.rates, start=first)
    left_out = () if check_reinit(recipe, seed, mask, controls, Retraining(after)) else ("reinit",)
    if adaptive:
        if first_look:
            raise UsageError(
                "Adaptive pruning chooses its cuts by all replicates together, so that it has one look; give a number "
                "of replicates instead of 'auto'."
            )
        if one_shot:
            raise UsageError("Adaptive pruning chooses its cuts; it does not go with one_shot.")
        if density is not None and not 0 < density < 1:
            raise UsageError(f"A target density is between 0 and 1; got {density!r}.")
        count = levels or (16 if density is None else MAX_LEVELS)
    elif levels is None and density is None:
        count = 16
    else:
        count = levels or levels_for(mask, pruning, density or 0.0)
    if one_shot:
        rates = {n: 1 - (1 - r) ** count for n, r in pruning.rates.items()}
        pruning, count = replace(pruning, rate=1 - (1 - pruning.rate) ** count, rates=rates), 1
    every = () if adaptive else tuple(range(1, count + 1))  # adaptive pruning takes its last level
    chosen = every if control_levels is None else tuple(control_levels)
    if any(not 1 <= at <= count for at in chosen):
        raise UsageError(f"Control levels are between 1 and {count}; got {list(chosen)}.")
    last = max(0.01 * recipe.optimizer.lr, recipe.learning_rate(recipe.total - 1))
    return Plan(
        recipe, pruning, count, rewind_step, number, tuple(controls), chosen, Retraining(after), order,
        rewind_optimizer, finetune_lr or last, seed, adaptive, (density or 0.0) if adaptive else 0.0, particles,
        restart_dense, left_out, first_look,
    )  # fmt: skip


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
    return recipe.replace(validation=max(1, min(sizes.size("test"), sizes.size() // HELD_OUT)))


def check_reinit(recipe: Recipe, seed: int, mask: Mask, controls: Sequence[str], after: Retraining) -> bool:
    """Whether another seed gives other weights to prune; says so where it does not, or not everywhere.

    A model that loads its own weights, or seeds itself, has one initialisation: training it "anew" is IMP once more.

    Raises:
        UsageError: if there is one initialisation, and ``after='reinit'`` needs others.
    """
    if (
        isinstance(recipe.model, str)
        or recipe.init != "module"
        or ("reinit" not in controls and after.value != "reinit")
    ):
        return True
    one, two = recipe.initial(seed), recipe.initial(seed + REINIT_CONTROL)
    same = [n for n in mask if torch.equal(one[n], two[n])]
    why = f"{recipe.name} has the same initial weights for every seed (it loads them, or seeds itself)"
    instead = "Other weights are drawn with init='kaiming-normal'."
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
