"""Lengths as text: of training, "500it", "3ep", "2ep50it"; of time, "90s", "10min", "30d"."""

from __future__ import annotations

import re
from functools import lru_cache

from lotto.core.check import Unfit, whole
from lotto.core.errors import UsageError, text

_PATTERN = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)ep)?(?:([0-9]+)it)?|([0-9]+)")
SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
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


def seconds_of(value: str) -> float:
    """Read a duration: ``90s``, ``90m`` or ``90min``, ``12h``, ``30d``, ``2w``.

    Raises:
        UsageError: for anything else.

    >>> [seconds_of(t) for t in ("90s", "1.5min", "2h")]
    [90.0, 90.0, 7200.0]
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|d|w)", value.strip())
    if match is None or len(value) > 40:
        raise UsageError(
            "A duration is a number of seconds, minutes, hours, days or weeks: 90s, 10min, 12h, 30d, 2w; "
            f"got {text(value)}."
        )
    return float(match[1]) * SECONDS[match[2]]
