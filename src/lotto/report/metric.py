"""What a result's errors are called, their unit, and how far above the dense mean they match."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lotto.recipe.recipe import Recipe
from lotto.recipe.tolerance import Tolerance


@dataclass(frozen=True)
class Metric:
    """The error of a recipe where people read it.

    Attributes:
        name: ``error`` for wrong predictions; ``mse``, or the name of a function.
        unit: what follows its values: `` %`` or nothing.
        margin: how far above the dense mean a level matches.
    """

    name: str
    unit: str
    margin: Tolerance

    @classmethod
    def of(cls, recipe: Recipe) -> Metric:
        """That of a recipe."""
        name = recipe.error_title.removesuffix(recipe.error_unit)
        return cls(name, recipe.error_unit, recipe.margin)

    @classmethod
    def of_result(cls, result: Mapping[str, Any]) -> Metric:
        """That of a loaded result; those of the time when all were called errors do not name it."""
        name = result.get("error_name", "error")
        return cls(name, result["error_unit"], Tolerance.of(result["recipe"]["tolerance"]))

    @property
    def title(self) -> str:
        """Of a column or an axis: ``error %``, ``error, mse``."""
        return f"error{self.unit}" if self.name == "error" else f"error, {self.name}"

    @property
    def axis(self) -> str:
        """Of an axis."""
        return f"test {self.name},{self.unit}" if self.unit else f"test {self.name}"

    def difference(self, value: float) -> str:
        """A distance from the dense mean, with its sign; of what rounds to nothing ``+0.00``."""
        return f"{round(value, 2) + 0.0:+.2f}" if self.unit else f"{value:+.3g}"

    def gap(self, value: float, bound: float) -> str:
        """A distance from the dense mean with the width of its one-sided bound, ``+0.12 ± 0.05``; a dash if there is
        none, and no bound of one value."""
        if math.isnan(value):
            return "–"
        width = f"{bound:.2f}" if self.unit else f"{bound:.3g}"
        return self.difference(value) if math.isnan(bound) else f"{self.difference(value)} ± {width}"
