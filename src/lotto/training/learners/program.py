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

from lotto.core.jit import jit
from lotto.training.learners import batchnorm_kernels, conv_kernels, pooling_kernels, vector_blocks
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

CORRELATE, PRODUCTS, NORMALISE, NORMALISE_BACK, SHIFT, SHIFT_BACK, GREATEST, GREATEST_BACK, POOL, POOL_BACK = range(10)
AVERAGE, AVERAGE_BACK = 10, 11
SELDOM = (SHIFT, SHIFT_BACK, GREATEST, GREATEST_BACK, AVERAGE, AVERAGE_BACK)
"""Of networks without BatchNorm, or with pooling inside."""
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

    def run(program, memory, values, gradients, running, moments, lists, places, constants, packed):  # type: ignore[no-untyped-def]
        """Work off a program.

        Args:
            program: rows of whole numbers.
            memory: of activations, their gradients and packed weights.
            values, gradients: vectors of all parameters.
            running: vector of all running statistics.
            moments: of the batch, shape (2, channels of all layers).
            lists, places: see `Workspace`.
            constants: shape (layers, 2): momentum and eps.
            packed: where in memory weights are packed.
        """
        digest  # noqa: B018
        for i in range(len(program)):
            p = program[i]
            op = p[0]
            if op in (CORRELATE, PRODUCTS):
                geometry = (p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10])
                rows, blocks, count = p[11], p[12], p[13]
                offsets, begins = lists[p[14] : p[15]], lists[p[15] : p[15] + blocks]
                ends, where = lists[p[15] + blocks : p[15] + 2 * blocks], places[p[16] : p[16] + count]
                scratch = memory[packed : packed + count]
                if op == CORRELATE:
                    pack(values[p[17] : p[18]], where, scratch)
                    correlate(memory, packed, offsets, begins, ends, rows, geometry, p[19] != 0)
                else:
                    scratch[:] = np.float32(0)
                    products(memory, packed, offsets, begins, ends, rows, geometry)
                    unpack(scratch, where, gradients[p[17] : p[18]])
            elif op in (NORMALISE, NORMALISE_BACK):
                shape, channels = (p[1], p[2], p[3]), p[4]
                x, added = (p[5], p[6], p[7], p[8]), (p[9], p[10], p[11], p[12])
                out, given = (p[13], p[14], p[15], p[16]), (p[17], p[18], p[19], p[20])
                back = (p[21], p[22], p[23], p[24])
                weight, bias = slice(p[25], p[25] + channels), slice(p[26], p[26] + channels)
                mean, variance = slice(p[27], p[27] + channels), slice(p[28], p[28] + channels)
                batch = moments[:, p[29] : p[29] + channels]
                momentum, eps = constants[p[30]]
                add, relu = p[31] != 0, p[32] != 0
                if op == NORMALISE:
                    how = (momentum, eps, add, relu, p[33] != 0)
                    statistics, affine = (running[mean], running[variance]), (values[weight], values[bias])
                    normalise(memory, x, added, out, shape, affine, statistics, batch, how)
                else:
                    found = (gradients[weight], gradients[bias])
                    normalise_back(memory, x, out, given, back, shape, values[weight], found, batch, relu)
            elif seldom and op in (SHIFT, SHIFT_BACK):
                shape, channels, out = (p[1], p[2], p[3]), p[4], (p[13], p[14], p[15], p[16])
                read, written = (p[5], p[6], p[7], p[8]), (p[9], p[10], p[11], p[12])
                if op == SHIFT:
                    shift(memory, read, written, shape, values[p[17] : p[17] + channels], p[18] != 0)
                else:
                    shift_back(memory, read, written, out, shape, gradients[p[17] : p[17] + channels], p[18] != 0)
            elif seldom and op in (GREATEST, GREATEST_BACK, AVERAGE, AVERAGE_BACK):
                shape, channels, whole = (p[1], p[2], p[3]), p[4], (p[21], p[22])
                block = (p[23], p[24], p[25], p[26], p[27], p[28])
                x, out = (p[5], p[6], p[7], p[8]), (p[9], p[10], p[11], p[12])
                given, back = (p[13], p[14], p[15], p[16]), (p[17], p[18], p[19], p[20])
                if op == GREATEST:
                    greatest(memory, x, out, shape, channels, block, whole)
                elif op == GREATEST_BACK:
                    greatest_back(memory, x, out, given, back, shape, channels, block, whole)
                elif op == AVERAGE:
                    average(memory, x, out, shape, channels, block, whole)
                else:
                    average_back(memory, given, back, shape, channels, block, whole)
            else:
                shape, at, channels = (p[1], p[2], p[3]), (p[5], p[6], p[7], p[8]), p[4]
                pooled = memory[p[9] : p[9] + channels * p[3]].reshape(channels, p[3])
                if op == POOL:
                    pool(memory, at, shape, pooled)
                else:
                    pool_back(memory, at, shape, pooled)

    return jit(run)


MODULES = (vector_blocks, conv_kernels, batchnorm_kernels, pooling_kernels)
"""What is compiled into `runner`'s functions."""


def edition(modules: Sequence[ModuleType] = MODULES) -> str:
    """A digest of kernels' code."""
    files = [Path(str(module.__file__)).read_bytes() for module in modules]
    return hashlib.blake2b(b"".join(files), digest_size=8).hexdigest()
