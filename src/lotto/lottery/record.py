"""What a saved result knows of its plan and its recipe: plain values, in the places where results look for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from lotto.core.shown import shown
from lotto.lottery.options import Retraining
from lotto.lottery.plan import SettledPlan, order_seed
from lotto.recipe.recipe import Recipe
from lotto.recipe.tolerance import Tolerance


class _Record:
    """Says of everything else that it was not saved."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"A loaded result has no {name!r}: of its recipe and plan it knows what its table, its tickets and its "
            "report need. Models, data and functions are not in its files."
        )


@dataclass(frozen=True)
class RecordedRecipe(_Record):
    """What results ask of a recipe; see `Recipe` for what each is."""

    name: str
    error_unit: str
    error_title: str
    margin: Tolerance
    parameter_count: int
    left_out: str
    description: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe) -> RecordedRecipe:
        """That of a recipe."""
        return cls(
            recipe.name, recipe.error_unit, recipe.error_title, recipe.margin, recipe.parameter_count, recipe.left_out,
            recipe.describe(),
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """In values that JSON knows."""
        return {**vars(self), "margin": vars(self.margin)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RecordedRecipe:
        """The inverse of `plain`."""
        return cls(**{**plain, "margin": Tolerance(**plain["margin"])})

    def describe(self) -> dict[str, Any]:
        """As it was described when the result was saved."""
        return dict(self.description)

    __repr__ = shown


@dataclass(frozen=True)
class RecordedOptions(_Record):
    """The options of a plan that results ask for."""

    controls: tuple[str, ...]
    after: Retraining
    particles: int
    seed: int
    order: str

    __repr__ = shown


@dataclass(frozen=True)
class RecordedPlan(_Record):
    """What results ask of a settled plan; see `SettledPlan` for what each is."""

    recipe: RecordedRecipe
    options: RecordedOptions
    levels: int
    rewind_step: int
    replicates: int
    first_look: int
    confidence: float
    adaptive: bool
    description: Mapping[str, Any]

    @classmethod
    def of(cls, plan: SettledPlan) -> RecordedPlan:
        """That of a plan."""
        asked = plan.options
        options = RecordedOptions(
            tuple(asked.controls), Retraining(asked.after), asked.particles, asked.seed, asked.order
        )
        return cls(
            RecordedRecipe.of(plan.recipe), options, plan.levels, plan.rewind_step, plan.replicates, plan.first_look,
            plan.confidence, plan.adaptive, plan.describe(),
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """In values that JSON knows."""
        options = {**vars(self.options), "after": self.options.after.value}
        return {**vars(self), "recipe": self.recipe.plain(), "options": options}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RecordedPlan:
        """The inverse of `plain`."""
        asked = plain["options"]
        options = RecordedOptions(
            **{**asked, "controls": tuple(asked["controls"]), "after": Retraining(asked["after"])}
        )
        return cls(**{**plain, "recipe": RecordedRecipe.from_plain(plain["recipe"]), "options": options})

    def order_seed(self, replicate: int, level: int) -> int:
        """See `SettledPlan.order_seed`."""
        return order_seed(self.options.seed, self.options.order, replicate, level)

    def describe(self) -> dict[str, Any]:
        """As it was described when the result was saved."""
        return dict(self.description)

    __repr__ = shown
