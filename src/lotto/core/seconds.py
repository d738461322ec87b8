"""Lengths of time as text: "90s", "10min", "30d"."""

from __future__ import annotations

import re

from lotto.core.errors import UsageError, text

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


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
