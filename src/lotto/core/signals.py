"""Signals that ask a program to end, kept waiting where half a piece of work would stay behind."""

from __future__ import annotations

import contextlib
import signal

TYPE_CHECKING = False  # without `typing`, as `cli.main`
if TYPE_CHECKING:
    from collections.abc import Iterator

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, `kill` and a terminal that is closed."""


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Handlers of the signals in `ENDING` are called after the block.

    Processes that are started within it are born with these signals blocked: Ctrl-C reaches a whole process group,
    also those that have not come to say what they do about it.

    >>> with held():
    ...     done = "whole"
    >>> done
    'whole'
    """
    import threading

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    waiting: list[int] = []
    handlers = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        # The kernel may give the signal to another thread of ours: blocking it here is not enough.
        for number in handlers:
            signal.signal(number, lambda got, _: waiting.append(got))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in waiting:
            signal.raise_signal(number)
