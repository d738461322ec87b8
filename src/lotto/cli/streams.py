"""Standard streams that take whatever is written to them, and say so when nobody reads them any more.

Imported before everything else, so it imports nothing that takes time.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import Any

CLOSED_PIPE = 141
"""What shells report of a program that a closed pipe has ended."""
PLAIN = {"±": "+-", "·": "-", "×": "x", "–": "-", "—": "-", "…": "...", "’": "'", "≤": "<=", "≥": ">=", "−": "-"}
"""Signs of ours for terminals without them."""


def open_streams() -> None:
    """Make standard output and standard error fit to be written to.

    A closed one (`>&-`) becomes the null device: else the next file that is opened would receive what we print.
    Signs that the encoding does not have, and bytes of names that are not text, are written in other words.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        if number:
            setattr(sys, ("stdout", "stderr")[number - 1], os.fdopen(number, "w", closefd=False))
    os.close(number)
    codecs.register_error("lotto.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="lotto.plain")


def flush_streams(code: int | str | None) -> int | str | None:
    """The exit code once all is written: at the interpreter's end it is too late to change it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            discard(stream)
            code = code or (CLOSED_PIPE if isinstance(error, BrokenPipeError) else 1)
    return code


def discard(stream: Any) -> None:
    """What is still to be written to a stream that cannot be written to goes nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in signs), error.end
