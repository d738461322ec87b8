"""What a recipe is, for keys: the entries of its fields, and what the user's code in it reads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lotto.core import fingerprint as keys
from lotto.core.differences import differences
from lotto.core.rng import private_rng
from lotto.core.watch import watched
from lotto.data.augment import Augmentation, is_own
from lotto.data.batch import Batch, call
from lotto.data.source import Adapted

if TYPE_CHECKING:
    from lotto.recipe.recipe import Recipe

DECIDES = {
    "loss": ("loss",),
    "evaluation": ("loss", "evaluation"),
    "statistics": ("loss", "evaluation", "statistics"),
    "run": ("loss", "evaluation", "training", "records"),
}
"""Which fields decide a loss, an evaluation, one with statistics re-estimated, and a stored run."""


def fingerprint(recipe: Recipe, of: str = "run") -> dict[str, Any]:
    """Everything that decides an outcome, in canonical form; what each field decides is in its metadata.

    Args:
        recipe: what is trained and how.
        of: ``run``, a whole training with its records; ``evaluation`` of given weights; ``loss``, its derivatives.

    Raises:
        NotCacheableError: if the model or a function cannot be fingerprinted.
    """
    parts = keys.entries(recipe, DECIDES[of])
    if recipe.loop is not None and (own := recipe.loop.entry(of)):
        parts["loop"] = own
    found: dict[str, Any] = keys.canonical(parts)
    if _has_users_code(recipe) and (reason := _examine(recipe, keys.digest(found), lambda: _what_it_reads(recipe))):
        raise keys.NotCacheableError(reason)
    return found


def _what_it_reads(recipe: Recipe) -> str:
    """What the user's code depends on that no key covers: files, or values that it changes itself; empty = none."""
    if (known := recipe.examined.get("changes")) is not None:
        return str(known)
    before = keys.canonical(keys.entries(recipe, DECIDES["run"]))
    stated: list[tuple[Batch, bool]] | None = None
    # Whatever fails here fails once more where it is said what to do about it.
    with private_rng(), contextlib.suppress(Exception):
        if isinstance(recipe.arrays, Adapted) and recipe.arrays.states_content:  # also that of the files it reads
            stated = list(_samples(recipe))
    with private_rng(), watched() as seen, contextlib.suppress(Exception):
        module = recipe.build()
        for (x, y), has_error in _samples(recipe) if stated is None else stated:
            for training in (True, False):
                outputs = recipe.read(call(module.train(training), x))
                recipe.loss_function(outputs, y)
                if has_error:
                    recipe.error_function(outputs, y)
    if seen:
        return f"{seen[0]}, which no key can cover"
    changed = differences(before, keys.canonical(keys.entries(recipe, DECIDES["run"])))
    if changed:  # once found, it would be found anew at each of its values
        recipe.examined["changes"] = f"it changes what it reads when it runs ({changed[0][0]})"
    return str(recipe.examined.get("changes", ""))


def _samples(recipe: Recipe) -> Iterator[tuple[Batch, bool]]:
    """Two training examples and, where these are changed by a function of the user's, two test examples.

    With whether an error is computed of them. A loop of one's own has no batches here: what it reads is looked for
    by name alone.
    """
    if recipe.loop is not None:
        return
    has_error = not is_own(recipe.augment)
    yield next(iter(recipe.arrays.batches(0, 0, 1, min(2, recipe.arrays.size()), recipe.augment))), has_error
    if not has_error:
        yield next(recipe.arrays.evaluation("test", 2)), True


def _examine(recipe: Recipe, code: str, how: Callable[[], Any]) -> Any:
    if code not in recipe.examined:
        recipe.examined[code] = how()
    return recipe.examined[code]


def content(recipe: Recipe) -> dict[str, Any]:
    """What the data are; a user's own arrays may be edited meanwhile."""
    if isinstance(recipe.data, str):
        named: dict[str, Any] = _examine(recipe, "data", lambda: keys.content(recipe.arrays))
        return named
    return keys.content(recipe.arrays)


def model(recipe: Recipe) -> Any:
    """What the model is: its name, or the code that builds it and what that makes."""
    if isinstance(recipe.model, str):
        return recipe.model
    builder = keys.record(recipe.model, "the model")
    made = _examine(recipe, keys.digest(builder), lambda: keys.structure(recipe.build()))
    parts = [recipe.model, *made["parts"]]  # in one record: most of the parts are what the builder reaches
    return {**made, "parts": keys.record(parts, "the model")}


def _has_users_code(recipe: Recipe) -> bool:
    fit = None if recipe.loop is None else recipe.loop.fit
    names = ("model", "loss", "error", "augment", "data", "optimizer", "schedule")
    parts = [*(getattr(recipe, name) for name in names), fit]
    return any(keys.is_users(part) for part in parts)


def augmented(augment: Augmentation | None) -> Any:
    """What changes training images or batches."""
    if is_own(augment):
        return keys.record(augment, "augment")
    return None if augment is None else typed(augment)


def typed(value: Any) -> dict[str, Any]:
    """The fields of a part of a recipe, and which class it is of; without fields at what they were before they came."""
    later = {f.name for f in dataclasses.fields(value) if f.metadata and getattr(value, f.name) == f.metadata["unless"]}
    return {**{n: v for n, v in vars(value).items() if n not in later}, "kind": keys.kind(value)}
