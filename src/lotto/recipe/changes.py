"""A recipe with some fields changed, by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lotto.core.errors import UsageError, text, unknown
from lotto.data.augment import Augment
from lotto.recipe.lr_schedules import SCHEDULES
from lotto.recipe.optimizers import OPTIMIZERS
from lotto.recipe.own_loop import check_change

if TYPE_CHECKING:
    from lotto.recipe.recipe import Recipe

KINDS: dict[str, Mapping[str, type]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
CHOOSE = ("include", "exclude")
"""What is pruned: fields of `Pruning` that a recipe takes as well."""
OLD_NAMES = {"pruning.scope": "allocation"}
"""Of fields of fields."""


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """See `Recipe.replace`."""
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        outer, _, inner = (f"pruning__{key}" if key in CHOOSE else key).partition("__")
        if outer not in {f.name for f in dataclasses.fields(recipe)}:
            raise unknown("field of a recipe", outer, [f.name for f in dataclasses.fields(recipe)])
        if inner:
            inner = OLD_NAMES.get(f"{outer}.{inner}", inner)
            nested.setdefault(outer, {})[inner] = value
        else:
            direct[outer] = value
    for outer, values in nested.items():
        base = direct.get(outer, getattr(recipe, outer))
        base = Augment() if base is None and outer == "augment" else base
        if not dataclasses.is_dataclass(base) or isinstance(base, type):
            raise UsageError(f"{outer} has no fields of its own to change; got {outer}={text(base)}.")
        kinds: Mapping[str, type] = KINDS.get(outer, {})
        if (kind := values.pop("kind", None)) is not None:
            base = _of_kind(outer, base, kind, kinds, values)
        known = [f.name for f in dataclasses.fields(base)]
        for inner in values:
            if inner not in known:
                raise unknown(f"field of {outer}", inner, known)
        direct[outer] = dataclasses.replace(base, **values)
    if recipe.loop is not None:
        check_change(direct)
    direct |= dict.fromkeys(CHOOSE, ())  # `pruning` has them already
    made = dataclasses.replace(recipe, **direct)
    stated = isinstance(recipe.tolerance, (int, float)) and "tolerance" not in direct
    if stated and {"error", "data"} & {*direct} and made.in_points != recipe.in_points:
        return dataclasses.replace(made, tolerance=None)  # the number is in the former error's unit
    return made


def _of_kind(outer: str, base: Any, kind: str, kinds: Mapping[str, type], values: Mapping[str, Any]) -> Any:
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown(f"kind of {outer}", kind, kinds)
    shared = {f.name for f in dataclasses.fields(kinds[kind])}
    kept = {k: v for k, v in vars(base).items() if k in shared}
    return kinds[kind](**{**kept, **{k: v for k, v in values.items() if k in shared}})
