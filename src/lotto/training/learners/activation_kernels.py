"""Activations (see `activations`) of single numbers, to be compiled into loops.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_inline = njit(inline="always")
_LEAKY = 2
_ZERO = np.float32(0)


@_inline
def bounds(kind, low, high, slope):  # type: ignore[no-untyped-def]
    """An activation as the functions below take it, from the numbers of an instruction."""
    low, high, slope = np.int32(low), np.int32(high), np.int32(slope)
    return kind, low.view(np.float32), high.view(np.float32), slope.view(np.float32)


@_inline
def activated(value, how):  # type: ignore[no-untyped-def]
    """The outcome for a number; NaN stays."""
    below = value * how[3] if how[0] == _LEAKY else how[1]
    return below if value <= how[1] else (how[2] if value >= how[2] else value)


@_inline
def passed(gradient, outcome, how):  # type: ignore[no-untyped-def]
    """The gradient with respect to a number whose outcome is known."""
    below = gradient * how[3] if how[0] == _LEAKY else _ZERO
    return below if outcome <= how[1] else (_ZERO if outcome >= how[2] else gradient)
