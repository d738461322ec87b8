"""Training time as text: "500it", "3ep", "2ep50it"."""

from __future__ import annotations

import re
from functools import lru_cache

from lotto.core.errors import UsageError

_PATTERN = re.compile(r"^(?:(\d+(?:\.\d+)?)ep)?(?:(\d+)it)?$")


def iterations(value: str | int, per_epoch: int) -> int:
    """Turn a step into a whole number of iterations; a bare number counts iterations.

    Raises:
        UsageError: if the text is not like ``500it``, ``3ep`` or ``2ep50it``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _unreadable(value)
    return _parsed(str(value).strip(), per_epoch)


@lru_cache(maxsize=4096)
def _parsed(text: str, per_epoch: int) -> int:
    if text.isdigit():
        return int(text)
    match = _PATTERN.match(text)
    if not text or match is None:
        raise _unreadable(text)
    epochs, steps = match.groups()
    return round(float(epochs or 0) * per_epoch) + int(steps or 0)


def _unreadable(value: object) -> UsageError:
    return UsageError(f"A step is text such as '500it', '3ep' or '2ep50it'; got {value!r}.")
