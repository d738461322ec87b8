"""Which examples of a split a network gets wrong: a bit for each, so that networks can be compared by example."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.shown import shown
from lotto.recipe.objectives import IGNORED
from lotto.recipe.outputs import WithLoss


@checked
@dataclass(frozen=True)
class Mistakes:
    """Right or wrong for every example of a split, in the split's own order.

    Attributes:
        examples: how many.
        bits: eight examples a byte, the first in the highest bit; 1 = wrong.

    Example:
        >>> Mistakes.of([True, False, False]).wrong.tolist()
        [True, False, False]
    """

    examples: int
    bits: bytes

    @classmethod
    def of(cls, wrong: Sequence[bool] | Tensor | np.ndarray) -> Mistakes:
        """Pack what is wrong, one value per example."""
        flags = np.asarray(wrong, dtype=bool)
        return cls(len(flags), np.packbits(flags).tobytes())

    @property
    def wrong(self) -> np.ndarray:
        """Shape (examples,), booleans."""
        return np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.examples).astype(bool)

    @property
    def error(self) -> float:
        """The error, in percent."""
        return 100.0 * float(self.wrong.mean())

    def plain(self) -> dict[str, Any]:
        """In values that JSON knows."""
        return {"examples": self.examples, "wrong": base64.b64encode(self.bits).decode()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Mistakes:
        """The inverse of `plain`.

        Raises:
            ValueError: if the bits are not those of so many examples.
        """
        made = cls(int(plain["examples"]), base64.b64decode(plain["wrong"], validate=True))
        if len(made.bits) != -(-made.examples // 8):
            raise ValueError(f"{len(made.bits)} bytes of mistakes for {made.examples} examples")
        return made

    __repr__ = shown


def wrong_predictions(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Which examples of a batch are wrong, shape (batch,).

    None where an example is no single prediction of a class, or has none that counts: then there is no right or wrong.
    """
    outputs = outputs.prediction if isinstance(outputs, WithLoss) else outputs
    if (
        not isinstance(outputs, Tensor)
        or outputs.dim() != 2
        or targets.dim() != 1
        or targets.is_floating_point()
        or bool((targets == IGNORED).any())
    ):
        return None
    return (outputs.argmax(1) != targets).to(torch.device("cpu"))
