"""Training examples that are set aside to validate, of data that gives examples by number."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lotto.core.errors import UsageError
from lotto.data.in_memory import held_out

if TYPE_CHECKING:
    from typing_extensions import Self


class HoldsOut:
    """For a data source with its examples by number: which of the training set's are whose.

    Always the same ones for a number of them, those that `Arrays` of as many examples would hold out.
    """

    name: str
    _kept: np.ndarray | None = None
    _held: np.ndarray | None = None

    def size(self, split: Any = "train") -> int:
        """Number of examples in a split."""
        raise NotImplementedError

    def hold_out(self, count: int) -> Self:
        """The same data with ``count`` training examples set aside.

        Raises:
            UsageError: if there are not so many, or it has a validation set of its own.
        """
        if self.size("validation"):
            raise UsageError(f"{self.name} has a validation set of its own; leave validation={count} out.")
        size = self.size()
        held = np.sort(held_out(count, size))
        other = copy.copy(self)
        other._kept, other._held = np.setdiff1d(np.arange(size), held), held
        return other

    def _rows(self, split: str, numbers: Sequence[int] | np.ndarray) -> tuple[str, list[int]]:
        """In which set, and at which numbers, a split's examples stand."""
        chosen = np.asarray(numbers, dtype=np.int64)
        if self._kept is None or self._held is None or split not in ("train", "validation"):
            return split, chosen.tolist()
        return "train", (self._kept if split == "train" else self._held)[chosen].tolist()
