"""What is trained and how, as frozen data."""

from __future__ import annotations

from lotto.recipe.recipe import PRECISIONS, Recipe

__all__ = ["PRECISIONS", "Recipe"]
