"""A network's forward or backward pass as a list of instructions, which one compiled function works off.

A call from Python takes longer than a layer of a small network. Instructions are rows of whole numbers; all activations
lie in one memory, all parameters in one vector, all lists in one array, and what stands in a row are places in these.

Importing this module needs numba.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

import lotto.core.jit
from lotto.core.jit import jit
from lotto.training.learners import (
    activation_kernels,
    batchnorm_kernels,
    conv_kernels,
    pooling_kernels,
    storage,
    together,
    vector_blocks,
)
from lotto.training.learners.activation_kernels import bounds
from lotto.training.learners.batchnorm_kernels import normalise, normalise_back
from lotto.training.learners.conv_kernels import correlate, pack, products, unpack
from lotto.training.learners.pooling_kernels import (
    average,
    average_back,
    greatest,
    greatest_back,
    pool,
    pool_back,
    shift,
    shift_back,
)
from lotto.training.learners.team import Team
from lotto.training.learners.together import share, share_of_blocks, wait

CORRELATE, PRODUCTS, NORMALISE, NORMALISE_BACK, SHIFT, SHIFT_BACK, GREATEST, GREATEST_BACK, POOL, POOL_BACK = range(10)
AVERAGE, AVERAGE_BACK = 10, 11
SELDOM = (SHIFT, SHIFT_BACK, GREATEST, GREATEST_BACK, AVERAGE, AVERAGE_BACK)
"""Of networks with biases, with pooling inside, or with sums and activations that follow no BatchNorm."""
NUMBERS = 40
"""Of a row."""


def row(*numbers: int) -> np.ndarray:
    """An instruction, filled up with zeros."""
    return np.array([*numbers, *[0] * (NUMBERS - len(numbers))], np.int64)


def rows(instructions: Iterable[np.ndarray]) -> np.ndarray:
    """Instructions in one array."""
    return np.array([*instructions], np.int64).reshape(-1, NUMBERS)


def runner(instructions: np.ndarray) -> Any:
    """The compiled function that works off such instructions, see `rows`; it is made when it is first called.

    One that knows no instructions of `SELDOM` takes two thirds of the time to compile, and is all that a ResNet needs.
    """
    return _runner(bool(np.isin(instructions[:, 0], SELDOM).any()))


@cache
def _runner(seldom: bool) -> Any:
    return _compiled(edition(), seldom)


def _compiled(digest: str, seldom: bool) -> Any:
    """The function; ``digest`` tells it from one that calls other code; ``seldom``: whether it knows `SELDOM`."""

    def run(  # type: ignore[no-untyped-def]
        program, memory, values, gradients, running, moments, lists, places, constants, packed, means, who, arrived
    ):
        """Work off a program.

        Args:
            program: rows of whole numbers.
            memory: of activations and their gradients, see `storage`.
            values, gradients: vectors of all parameters.
            running: vector of all running statistics.
            moments: of the batch, shape (2, channels of all layers).
            lists, places: see `Workspace`.
            constants: shape (layers, 2): momentum and eps.
            packed: where weights, or sums of their gradients, are packed.
            means: of channels, over places.
            who: (which thread this is, how many there are); all are called.
            arrived: shape (1,), 0 at first: what they share.
        """
        digest  # noqa: B018
        thread, threads = who
        for i in range(len(program)):
            p = program[i]
            op = p[0]
            if op in (CORRELATE, PRODUCTS):
                rows, blocks, channel = p[11], p[12], p[10]
                offsets = lists[p[14] : p[15]]
                begins, ends = lists[p[15] : p[15] + blocks], lists[p[15] + blocks : p[15] + 2 * blocks]
                first, last = share_of_blocks(begins, ends, thread, threads)
                # What a thread packs it alone reads, and the other way round.
                begin = rows * (begins[first] if first < blocks else len(offsets))
                end = rows * (begins[last] if last < blocks else len(offsets))
                begins, ends, start = begins[first:last], ends[first:last], p[7] + first * rows * channel
                geometry = (p[1], p[2], p[3], p[4], p[5], p[6], start, p[8], p[9], channel)
                where, scratch = places[p[16] + begin : p[16] + end], packed[begin:end]
                if op == CORRELATE:
                    pack(values[p[17] : p[18]], where, scratch)
                    correlate(memory, packed.ctypes.data, offsets, begins, ends, rows, geometry, p[19] != 0)
                else:
                    scratch[:] = np.float32(0)
                    products(memory, packed.ctypes.data, offsets, begins, ends, rows, geometry)
                    unpack(scratch, where, gradients[p[17] : p[18]])
            elif op in (NORMALISE, NORMALISE_BACK):
                c, d = share(p[4], thread, threads)
                shape = (p[1], p[2], p[3])
                x, added, out = layout(p, 5, c), layout(p, 9, c), layout(p, 13, c)
                given, back = layout(p, 17, c), layout(p, 21, c)
                weight, bias = slice(p[25] + c, p[25] + d), slice(p[26] + c, p[26] + d)
                mean, variance = slice(p[27] + c, p[27] + d), slice(p[28] + c, p[28] + d)
                batch = moments[:, p[29] + c : p[29] + d]
                momentum, eps = constants[p[30]]
                act = bounds(p[34], p[35], p[36], p[37])
                if op == NORMALISE:
                    how = (momentum, eps, p[31] != 0, act, p[32] != 0)
                    statistics, affine = (running[mean], running[variance]), (values[weight], values[bias])
                    normalise(memory, x, added, out, shape, affine, statistics, batch, how)
                else:
                    found = (gradients[weight], gradients[bias])
                    normalise_back(memory, x, out, given, back, shape, values[weight], found, batch, act, p[33] != 0)
            elif seldom and op in (SHIFT, SHIFT_BACK):
                c, d = share(p[4], thread, threads)
                shape = (p[1], p[2], p[3])
                read, second, out = layout(p, 5, c), layout(p, 9, c), layout(p, 13, c)
                some = p[18] > p[17]
                bias = slice(p[17] + c if some else 0, p[17] + d if some else 0)
                act = bounds(p[20], p[21], p[22], p[23])
                if op == SHIFT:
                    shift(memory, read, second, out, shape, d - c, values[bias], p[19] != 0, act)
                else:
                    shift_back(memory, read, second, out, shape, d - c, gradients[bias], p[19] != 0, act)
            elif seldom and op in (GREATEST, GREATEST_BACK, AVERAGE, AVERAGE_BACK):
                c, d = share(p[4], thread, threads)
                shape, whole = (p[1], p[2], p[3]), (p[21], p[22])
                block, more = (p[23], p[24], p[25], p[26], p[27], p[28]), p[29] != 0
                x, out, given, back = layout(p, 5, c), layout(p, 9, c), layout(p, 13, c), layout(p, 17, c)
                if op == GREATEST:
                    greatest(memory, x, out, shape, d - c, block, whole)
                elif op == GREATEST_BACK:
                    greatest_back(memory, x, out, given, back, shape, d - c, block, whole, more)
                elif op == AVERAGE:
                    average(memory, x, out, shape, d - c, block, whole)
                else:
                    average_back(memory, given, back, shape, d - c, block, whole, more)
            else:
                c, d = share(p[4], thread, threads)
                shape, at = (p[1], p[2], p[3]), layout(p, 5, c)
                pooled = means[p[9] + c * p[3] : p[9] + d * p[3]].reshape(d - c, p[3])
                if op == POOL:
                    pool(memory, at, shape, pooled)
                else:
                    pool_back(memory, at, shape, pooled)
            if threads > 1:
                wait(arrived, threads * (i + 1))

    return jit(run)


@njit(inline="always")
def layout(p, k, channel):  # type: ignore[no-untyped-def]
    """The layout at place ``k`` of an instruction, from a channel on."""
    return p[k] + channel * p[k + 1], p[k + 1], p[k + 2], p[k + 3]


MODULES = (
    lotto.core.jit, together, storage, vector_blocks, activation_kernels, conv_kernels, batchnorm_kernels,
    pooling_kernels,
)  # fmt: skip
"""What is compiled into `runner`'s functions."""


def edition(modules: Sequence[ModuleType] = MODULES) -> str:
    """A digest of kernels' code."""
    files = [Path(str(module.__file__)).read_bytes() for module in modules]
    return hashlib.blake2b(b"".join(files), digest_size=8).hexdigest()


def work_off(team: Team, run: Any, program: np.ndarray, *arguments: Any) -> None:
    """Work off a program in all threads of a team; ``run`` is one of `runner`'s functions, of other arguments, too."""
    team.run(lambda thread, threads, arrived: run(program, *arguments, (thread, threads), arrived))
