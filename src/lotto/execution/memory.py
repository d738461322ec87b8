"""Let the C library keep freed memory, which every training step takes again."""

from __future__ import annotations

import contextlib
import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's ``mallopt`` (malloc.h)."""


def keep_freed_memory() -> bool:
    """Stop this process from giving memory back between steps; returns whether the C library accepted.

    glibc returns large freed blocks to the system at once. Activations and gradients are such blocks: each step
    would fault them in again page by page, which costs a convolutional network about a third of its time on a CPU.
    """
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        accepted = [mallopt(MMAP_THRESHOLD, 32 << 20), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, 64 << 20)]
        return all(accepted)
    return False
