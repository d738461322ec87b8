"""Whether functions can be compiled here: without numba, torch's operators do the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

FASTMATH = {"reassoc", "contract", "nsz"}
"""Sums may be taken in any order, as in every product; NaN and infinity are kept."""


@cache
def can_compile() -> bool:
    """Looked up once: it is asked in every step, and where numba is missing the search goes through all folders."""
    return find_spec("numba") is not None


def jit(function: Callable[..., Any], signature: Any = None, fastmath: bool = True) -> Any:
    """Compile a function, and keep it on disk for other processes where there is a place for it.

    What is kept is told from other editions by the function's file and by the values that the function closes over,
    not by what it calls: that is to be in the same file, or closed over as a digest.

    Args:
        function: what is compiled.
        signature: numba's; None = by the arguments of the first call.
        fastmath: see `FASTMATH`.
    """
    from numba import njit

    chosen: set[str] | bool = FASTMATH if fastmath else False
    try:
        return njit(signature, cache=True, fastmath=chosen, nogil=True)(function)
    except RuntimeError:  # nowhere to write
        return njit(signature, fastmath=chosen, nogil=True)(function)


def jit_part(function: Callable[..., Any]) -> Any:
    """Compile a function into those that call it.

    It becomes a part of their code. As a function of its own it would be compiled twice, alone and with its caller, and
    a process that has compiled both runs the first where one that reads the caller from disk has the second: their
    sums would be taken in other orders, and their trainings end in other bits.
    """
    from numba import njit

    return njit(inline="always", fastmath=FASTMATH, nogil=True)(function)


@contextmanager
def watched(began: Callable[[], None]) -> Iterator[None]:
    """Within a block, say when the first function is compiled, rather than read from disk.

    Args:
        began: called before it is, at most once.

    >>> with watched(lambda: print("compiling")):
    ...     3 + 4
    7
    """
    if not can_compile():
        yield
        return
    from numba.core import event

    class First(event.Listener):
        """Nothing but the first beginning is of interest."""

        seen = False

        def on_start(self, event: object) -> None:
            if not self.seen:
                self.seen = True
                began()

        def on_end(self, event: object) -> None:
            pass

    with event.install_listener("numba:compile", First()):
        yield


def warm_up() -> None:
    """Load the compiler, which takes a second at the first function, here instead; it starts no thread.

    >>> warm_up()
    """
    if can_compile():
        from numba.core.registry import cpu_target

        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()
