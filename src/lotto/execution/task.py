"""A computation that is not a training: it has a key like a job, and its outcome is a few numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from lotto.core import fingerprint
from lotto.core.fingerprint import Cacheable
from lotto.core.weights import digest
from lotto.recipe.recipe import Recipe

Outcome = dict[str, Any]
"""Plain values that JSON can hold."""
OnStep = Callable[[int, float], None]


class Task(Cacheable):
    """Something to compute about weights: a path, a spectrum. Frozen; stored like a run.

    Subclasses are frozen dataclasses with the fields ``recipe`` and ``label``; what a field has a part in is
    ``outcome`` unless its metadata say something else (see `core.fingerprint.affects`).
    """

    recipe: Recipe
    label: str
    kind: ClassVar[str]
    """What sort of computation it is."""
    reads: ClassVar[str] = "evaluation"
    """Which part of the recipe has a part in the outcome, see `Recipe.fingerprint`."""
    from_step = 0

    @property
    def description(self) -> dict[str, Any]:
        """Everything the outcome depends on; weights and masks by their content."""
        found = {name: self._entry(value) for name, value in fingerprint.entries(self, ("outcome",), "outcome").items()}
        del found["label"]
        return fingerprint.canonical({"schema": fingerprint.SCHEMA, "task": self.kind, **found})

    def _entry(self, value: Any) -> Any:
        if isinstance(value, Recipe):
            return value.fingerprint(self.reads)
        if isinstance(value, Mapping) and all(isinstance(t, Tensor) for t in value.values()):
            return digest(value)
        return value

    @property
    def end(self) -> int:
        """The last of the steps that `execute` reports, for displays."""
        return self.size

    @property
    def length(self) -> int:
        """How many steps `execute` reports, as of a training."""
        return self.size

    @property
    @abstractmethod
    def size(self) -> int:
        """How many steps `execute` reports."""

    @abstractmethod
    def execute(self, on_step: OnStep | None = None) -> Outcome:
        """Compute the outcome."""
