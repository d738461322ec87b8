"""How far above the dense network's error a subnetwork may be and still match: in the metric's unit, or relative."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lotto.core.errors import UsageError, text

POINTS, RELATIVE = 0.2, "5%"
"""The defaults: percentage points of misclassification; part of the dense value of anything else."""


@dataclass(frozen=True)
class Tolerance:
    """A distance in the metric's unit, or a part of the value that it is measured from.

    Attributes:
        amount: the distance, or the part (0.05 for 5 %).
        relative: whether it is a part.

    >>> Tolerance.of("5%").above(0.02)
    0.001
    """

    amount: float
    relative: bool = False

    @classmethod
    def of(cls, given: Any) -> Tolerance:
        """From a number in the metric's unit, or a text: ``0.2``, ``5%``.

        Raises:
            UsageError: for anything else, and below 0.
        """
        relative = isinstance(given, str) and given.strip().endswith("%")
        try:
            if isinstance(given, bool):
                raise ValueError
            amount = float(given.strip().removesuffix("%")) if isinstance(given, str) else float(given)
        except (TypeError, ValueError):
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise UsageError(
                "tolerance is a number from 0 in the error's unit, or a part of the dense error such as '5%'; "
                f"got {text(given)}."
            )
        return cls(amount / 100 if relative else amount, relative)

    def above(self, value: float) -> float:
        """How far above ``value`` an error may be."""
        return self.amount * abs(value) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"
