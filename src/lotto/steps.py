"""Training time: "500it", "3ep", "2ep50it" as a frozen, ordered value in iterations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering

from lotto.errors import UsageError

_PATTERN = re.compile(r"^(?:(\d+(?:\.\d+)?)ep)?(?:(\d+)it)?$")


@total_ordering
@dataclass(frozen=True)
class Step:
    """A point in training: ``iterations`` optimizer steps, ``per_epoch`` of which make an epoch."""

    iterations: int
    per_epoch: int

    @classmethod
    def parse(cls, value: str | int | Step, per_epoch: int) -> Step:
        """Read a step; a bare number counts iterations.

        Raises:
            UsageError: if the text is not like ``500it``, ``3ep`` or ``2ep50it``.
        """
        if isinstance(value, Step):
            return value
        return cls(iterations(value, per_epoch), per_epoch)

    def __int__(self) -> int:
        return self.iterations

    __index__ = __int__

    def __lt__(self, other: Step | int) -> bool:
        return self.iterations < int(other)

    def __str__(self) -> str:
        epochs, rest = divmod(self.iterations, self.per_epoch)
        if epochs and rest:
            return f"{epochs}ep{rest}it"
        return f"{epochs}ep" if epochs else f"{rest}it"


@lru_cache(maxsize=4096)
def iterations(value: str | int | Step, per_epoch: int) -> int:
    """Turn ``value`` into a whole number of iterations."""
    if isinstance(value, Step):
        return value.iterations
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UsageError(f"A step is text such as '500it', '3ep' or '2ep50it'; got {value!r}.")
    text = str(value).strip()
    if text.isdigit():
        return int(text)
    match = _PATTERN.match(text)
    if not text or match is None:
        raise UsageError(f"A step is text such as '500it', '3ep' or '2ep50it'; got {value!r}.")
    epochs, steps = match.groups()
    return round(float(epochs or 0) * per_epoch) + int(steps or 0)
