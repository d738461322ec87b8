"""A computation that is not a training: it has an identity like a job, and its outcome is a few numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lotto.core.fingerprint import Identified
from lotto.recipe.recipe import Recipe

Outcome = dict[str, Any]
"""Plain values that JSON can hold."""
OnStep = Callable[[int, float], None]


class Task(Identified):
    """Something to compute about weights: a path, a spectrum. Frozen; remembered by the store like a run.

    Subclasses are frozen dataclasses with the fields ``recipe`` and ``label``.
    """

    recipe: Recipe
    label: str
    from_step = 0

    @property
    def end(self) -> int:
        """The last of the steps that `execute` reports, for displays."""
        return self.size

    @property
    @abstractmethod
    def size(self) -> int:
        """How many steps `execute` reports."""

    @abstractmethod
    def execute(self, on_step: OnStep | None = None) -> Outcome:
        """Compute the outcome."""


def evaluated(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe's identity that decides what weights evaluate to; how they were trained is not in it."""
    whole = recipe.identity
    return {k: whole[k] for k in ("model", "data", "loss", "error", "precision", "channels_last")}


def differentiated(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe's identity that decides the derivatives of its loss."""
    whole = recipe.identity
    return {k: whole[k] for k in ("model", "data", "loss", "precision")}
