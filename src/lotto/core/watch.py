"""Sees, while a block runs, whether the user's code reads files, the network or other programs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lotto.core.installed import owner
from lotto.core.text import printable

_EVENTS = {
    "open", "os.listdir", "os.scandir", "glob.glob", "socket.connect", "socket.getaddrinfo", "urllib.Request",
    "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "sqlite3.connect", "mmap.__new__",
}  # fmt: skip
_PASSING = ("importlib.", "_frozen_importlib", "linecache", "tokenize", "traceback", "zipimport", "pkgutil", "inspect")
"""Modules that read source files on Python's behalf."""


class _Watch:
    """The audit hook: Python has no way to take one away, so there is one for the process, asleep outside of blocks."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread = 0
        self.seen: list[str] = []
        self.installed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.thread != threading.get_ident() or event not in _EVENTS:
            return
        if event == "open" and (str(arguments[1] or "r")[0] in "wax" or arguments[0] == os.devnull):
            return  # what is written has no part in an outcome
        if (frame := _users_frame(sys._getframe(1))) is not None:
            code = frame.f_code
            name = getattr(code, "co_qualname", code.co_name)
            is_path = event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike))
            what = f"opens {printable(repr(os.fspath(arguments[0])), 100)}" if is_path else f"uses {event}"
            self.seen.append(f"{name} {what} ({os.path.basename(code.co_filename)}, line {frame.f_lineno})")


_WATCH = _Watch()


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Run a block; the list names each place of the user's code that read something outside of the program.

    >>> with watched() as seen:
    ...     total = 1 + 1
    >>> seen
    []
    """
    with _WATCH.lock:
        if not _WATCH.installed:
            sys.addaudithook(_WATCH)
            _WATCH.installed = True
        _WATCH.seen, _WATCH.thread = [], threading.get_ident()
        try:
            yield _WATCH.seen
        finally:
            _WATCH.thread = 0


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's on the way out to ours; none if Python itself is importing something."""
    found = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__") or "")
        if module.startswith(_PASSING):
            return None
        kind = owner(module) if module else None
        if kind == "lotto":
            return found
        if kind is None and found is None:
            found = frame
        frame = frame.f_back
    return found
