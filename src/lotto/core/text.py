"""Names and values of the user's as text that can be printed anywhere."""

from __future__ import annotations

MIDDLE = " … "
LONGEST = 200
"""Characters of a value that a sentence repeats."""


def shortened(text: str, most: int = LONGEST) -> str:
    """Text in one line of at most ``most`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str, length: int | None = None) -> str:
    """A text with signs that would steer a terminal, and bytes that are none, spelled out: ``\\\\x1b``.

    Args:
        text: any; its line breaks stay.
        length: at most so many signs; what is too long loses its middle.
    """
    spelled = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    if length is None or len(spelled) <= length:
        return spelled
    half = (length - len(MIDDLE)) // 2
    return spelled[: length - len(MIDDLE) - half] + MIDDLE + spelled[-half:]


def size_words(size: int) -> str:
    """A number of bytes for people: ``1.3 MB``."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def time_words(seconds: float) -> str:
    """A duration for people: ``40 s``, ``25 min``, ``3.2 h``.

    >>> [time_words(t) for t in (0.04, 40, 1500, 11520, 300_000)]
    ['0.04 s', '40 s', '25 min', '3.2 h', '83 h']
    """
    length, unit = next(((n, u) for n, u in ((3600.0, "h"), (60.0, "min")) if seconds >= 2 * n), (1.0, "s"))
    amount = seconds / length
    return f"{amount:.2g} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
