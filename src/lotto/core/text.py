"""Names that a user chose, as text that can be printed anywhere."""

from __future__ import annotations

MIDDLE = " … "


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
