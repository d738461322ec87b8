"""What an experiment is asked to do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.lottery.plan import number_of_replicates
from lotto.pruning import masks
from lotto.pruning.density import Explicit
from lotto.recipe.recipe import Recipe

MAX_ORDERS = 1000
NO_CONTROLS = ("none",)
"""In the place of the rewind steps at which controls are trained."""
SHARED = (
    "orders", "points", "examples", "eval_levels", "control_steps", "random_chain", "restart_dense", "methods",
    "factors",
)  # fmt: skip
"""Options that several experiments have; one that lacks any of them leaves it, so that all can be asked at once."""


@checked
@dataclass(frozen=True, init=False)
class Options:
    """The options that every experiment has, and any of those that only some have.

    Attributes:
        recipe: what is trained.
        replicates: initialisations; None = as many as `imp` takes on such data.
        rewind_to: rewind steps, as text; empty = the recipe's own.
        levels: pruning levels to the density that is evaluated.
        densities: what is left after each level, instead of cuts of the recipe's rate; empty = these.
        seed: replicate r uses the seeds ``seed + r``.
        own: further options by name, such as ``points=11``, which are the experiment's own.

    Raises:
        UsageError: for a value that cannot be used.

    >>> Options(recipe, replicates=2, rewind_to=("5it", "1ep"), points=11).describe()
    {'replicates': 2, 'rewind_to': [5, 12], 'levels': 10, 'seed': 0}
    """

    recipe: Recipe
    replicates: int
    rewind_to: tuple[str | int, ...]
    levels: int
    densities: tuple[float, ...]
    seed: int
    own: Mapping[str, Any]

    def __init__(
        self,
        recipe: Recipe,
        replicates: int | None = None,
        rewind_to: tuple[str | int, ...] = (),
        levels: int = 10,
        *,
        densities: Sequence[float] = (),
        seed: int = 0,
        **own: Any,
    ) -> None:
        if "look_at" in own:
            warnings.warn("The option look_at is eval_levels now.", DeprecationWarning, stacklevel=3)
            own["eval_levels"] = own.pop("look_at")
        number = number_of_replicates(recipe)[0] if replicates is None else replicates
        given = {"recipe": recipe, "replicates": number, "rewind_to": rewind_to, "seed": seed}
        given |= {"densities": tuple(densities), "levels": len(densities) or levels}
        for name, value in {**given, "own": own}.items():
            object.__setattr__(self, name, value)
        self._check(**own)

    @checked
    def _check(
        self,
        orders: int = 3,
        eval_levels: Sequence[int] = (),
        control_steps: Sequence[str | int] = (),
        **others: object,
    ) -> None:
        """Before anything is trained; these options are the same wherever experiments have them."""
        if self.replicates < 1:
            raise UsageError(f"replicates is 1 or more; got {self.replicates}.")
        if self.levels < 1:
            raise UsageError(
                f"Experiments compare levels, so they need at least two: the dense network and levels=1; "
                f"got levels={self.levels}."
            )
        if not 2 <= orders <= MAX_ORDERS:
            raise UsageError(f"A distance needs at least 2 data orders, and at most {MAX_ORDERS}; got {orders}.")
        if self.densities:
            Explicit(self.densities)  # says what is wrong with them
        for level in eval_levels:
            if not 1 <= level <= self.levels:
                raise UsageError(f"There are the levels 1 to {self.levels} to look at; got {level}.")
        for step in control_steps if tuple(control_steps) != NO_CONTROLS else ():
            if self.recipe.step(step) not in self.rewind_steps:
                raise UsageError(
                    f"Controls are trained at some of the rewind steps, {', '.join(map(str, self.rewind_steps))}; "
                    f"got {step!r} in control_steps."
                )
        for step in self.rewind_steps:
            if step >= self.recipe.total:
                raise UsageError(
                    f"The rewind step {step} is not before the end of training at {self.recipe.total} iterations."
                )

    @cached_property
    def prunable_fraction(self) -> float:
        """The fraction of all parameters that is prunable."""
        return masks.size(masks.ones(self.recipe)) / self.recipe.parameter_count

    @property
    def rewind_steps(self) -> tuple[int, ...]:
        """The rewind steps in iterations, in increasing order."""
        return tuple(sorted({self.recipe.step(k) for k in self.rewind_to or (self.recipe.rewind_to,)}))

    def training(self) -> dict[str, Any]:
        """What claims ask about a training: its length, peak rate and warm-up, in numbers."""
        recipe = self.recipe
        return {
            "iterations": recipe.total,
            "per_epoch": recipe.per_epoch,
            "learning_rate": recipe.optimizer.lr,
            "warmup": recipe.step(recipe.schedule.warmup),
        }

    def describe(self) -> dict[str, Any]:
        """The common options in plain values, for files and reports."""
        return {
            "replicates": self.replicates,
            "rewind_to": list(self.rewind_steps),
            "levels": self.levels,
            **({"densities": list(self.densities)} if self.densities else {}),
            "seed": self.seed,
        }
