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
