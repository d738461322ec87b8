"""Whether functions can be compiled here: without numba, torch's operators do the same work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

FASTMATH = {"reassoc", "contract", "nsz"}
"""Sums may be taken in any order, as in every product; NaN and infinity are kept."""


@cache
def can_compile() -> bool:
    """Looked up once: it is asked in every step, and where numba is missing the search goes through all folders."""
    return find_spec("numba") is not None


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, and keep it on disk for other processes where there is a place for it."""
    from numba import njit

    try:
        return njit(cache=True, fastmath=FASTMATH, nogil=True)(function)
    except RuntimeError:  # nowhere to write
        return njit(fastmath=FASTMATH, nogil=True)(function)
