"""A computation that is not a training: it has an identity like a job, and its outcome is a few numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

from lotto import identity
from lotto.recipe import Recipe

OnStep = Callable[[int, float], None]


class Task(ABC):
    """Something to compute about weights: a path, a spectrum. Frozen; remembered by the store like a run.

    Subclasses are frozen dataclasses with the fields ``recipe`` and ``label``.
    """

    recipe: Recipe
    label: str

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything the outcome depends on, in canonical form.

        Raises:
            identity.Unidentifiable: if the recipe's model or functions cannot be identified.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many steps `execute` reports."""

    @abstractmethod
    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute the outcome: plain values that JSON can hold."""

    @cached_property
    def key(self) -> str | None:
        """Hash of the identity; None when it cannot be told."""
        try:
            return identity.digest(self.description)
        except identity.Unidentifiable:
            return None
