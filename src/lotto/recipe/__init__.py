"""What is trained and how, as frozen data."""

from __future__ import annotations

from lotto.core.faces import lazy_face

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lotto.recipe.recipe import PRECISIONS, Recipe

__all__ = ["PRECISIONS", "Recipe"]

__getattr__, __dir__ = lazy_face(__name__, {"recipe": ["PRECISIONS", "Recipe"]})
