"""Several threads that work off one program together: each has its share of an instruction, and waits for the others.

Shares are of outputs or channels, of which no sum has parts: bits do not depend on the number of threads.

Importing this module needs numba.
"""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

PATIENCE = 1000
"""Looks at the others before a thread lets another one have its core."""

_LONG = ir.IntType(64)


def _arriving(context: Any, address: Any) -> Any:
    """Add one to a number that several threads share; returns what it was."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        place = builder.inttoptr(given[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_LONG, 1), "acq_rel")

    return types.int64(types.uint64), codegen


def _looking(context: Any, address: Any) -> Any:
    """A number that several threads share."""

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(given[0], _LONG.as_pointer()), "acquire", 8)

    return types.int64(types.uint64), codegen


_arrive: Any = intrinsic(_arriving)
_arrived: Any = intrinsic(_looking)
_give_way: Any = types.ExternalFunction("sched_yield", types.int32())
CAN_GIVE_WAY = hasattr(os, "sched_yield")
"""Whether the system has such a call."""


@njit(nogil=True)
def wait(count, goal):  # type: ignore[no-untyped-def]
    """Wait until all threads have arrived so often that ``count[0]`` is ``goal``."""
    address, looks = count.ctypes.data, 0
    _arrive(address)
    while _arrived(address) < goal:
        looks += 1
        if CAN_GIVE_WAY and looks > PATIENCE:
            _give_way()


@njit(inline="always")
def share(count, thread, threads):  # type: ignore[no-untyped-def]
    """First and last but one of so many that are a thread's."""
    return count * thread // threads, count * (thread + 1) // threads


@njit(nogil=True)
def share_of_blocks(begins, ends, thread, threads):  # type: ignore[no-untyped-def]
    """The same of blocks, each of which costs what its list is long, and a little more."""
    if threads == 1:
        return 0, len(begins)
    total = 0
    for b in range(len(begins)):
        total += ends[b] - begins[b] + 4
    first = last = -1
    done = 0
    for b in range(len(begins)):
        if first < 0 and done * threads >= total * thread:
            first = b
        if last < 0 and done * threads >= total * (thread + 1):
            last = b
        done += ends[b] - begins[b] + 4
    return (len(begins) if first < 0 else first), (len(begins) if last < 0 else last)
