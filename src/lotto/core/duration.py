"""Training time as text: "500it", "3ep", "2ep50it"."""

from __future__ import annotations

import re
from functools import lru_cache

from lotto.core.check import Unfit, whole
from lotto.core.errors import UsageError, text

_PATTERN = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)ep)?(?:([0-9]+)it)?|([0-9]+)")
MOST = 10**12
"""Iterations: nothing trains for longer."""


def iterations(value: str | int, per_epoch: int) -> int:
    """Turn a step into a whole number of iterations; a bare number counts iterations.

    Raises:
        UsageError: if the text is not like ``500it``, ``3ep`` or ``2ep50it``.
    """
    if isinstance(value, str):
        return _parsed(value.strip(), per_epoch)
    try:
        count = whole(value)
    except Unfit:
        raise _unreadable(value) from None
    if not 0 <= count <= MOST:
        raise _unreadable(value)
    return count


@lru_cache(maxsize=4096)
def _parsed(given: str, per_epoch: int) -> int:
    match = _PATTERN.fullmatch(given)
    if not given or match is None or len(given) > 40:
        raise _unreadable(given)
    epochs, steps, alone = match.groups()
    if epochs and per_epoch > MOST:
        raise UsageError(
            f"Streams and loops of your own have no epochs: give iterations, such as '500it'; got {text(given)}."
        )
    count = round(float(epochs or 0) * per_epoch) + int(steps or alone or 0)
    if count > MOST:
        raise _unreadable(given)
    return count


def _unreadable(value: object) -> UsageError:
    return UsageError(f"A step is text such as '500it', '3ep' or '2ep50it'; got {text(value)}.")
