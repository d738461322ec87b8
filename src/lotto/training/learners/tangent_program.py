"""As `program`, for what curvature needs; compiled apart from it, so that trainings' kernels stay the bits they are.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

from lotto.core.jit import jit
from lotto.training.learners import tangent_kernels
from lotto.training.learners.conv_kernels import correlate, pack, products, unpack
from lotto.training.learners.pooling_kernels import average, average_back, greatest, greatest_back, pool, pool_back
from lotto.training.learners.program import (
    AVERAGE,
    AVERAGE_BACK,
    CORRELATE,
    GREATEST,
    GREATEST_BACK,
    MODULES,
    POOL,
    PRODUCTS,
    edition,
)
from lotto.training.learners.tangent_kernels import clear, gate, pick, settle

SETTLE, GATE, PICK = 12, 13, 14
"""Instructions that `program` has not."""


def _compiled(digest: str) -> Any:
    """See `program._compiled`."""

    def run(program, memory, values, gradients, lists, places, packed):  # type: ignore[no-untyped-def]
        """Work off a program; see `program.runner`. Weight gradients may be added to those that are there."""
        digest  # noqa: B018
        for i in range(len(program)):
            p = program[i]
            op = p[0]
            if op in (CORRELATE, PRODUCTS):
                geometry = (p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10])
                rows, blocks, count = p[11], p[12], p[13]
                offsets, begins = lists[p[14] : p[15]], lists[p[15] : p[15] + blocks]
                ends, where = lists[p[15] + blocks : p[15] + 2 * blocks], places[p[16] : p[16] + count]
                scratch = packed[:count]
                if op == CORRELATE:
                    pack(values[p[17] : p[18]], where, scratch)
                    correlate(memory, scratch.ctypes.data, offsets, begins, ends, rows, geometry, p[19] != 0)
                else:
                    if p[19] != 0:
                        pack(gradients[p[17] : p[18]], where, scratch)
                    else:
                        clear(scratch)
                    products(memory, scratch.ctypes.data, offsets, begins, ends, rows, geometry)
                    unpack(scratch, where, gradients[p[17] : p[18]])
            elif op in (SETTLE, GATE):
                shape, channels, at = (p[1], p[2], p[3]), p[4], (p[5], p[6], p[7], p[8])
                added, through = (p[9], p[10], p[11], p[12]), (p[13], p[14], p[15], p[16])
                if op == SETTLE:
                    settle(memory, at, added, shape, values[p[17] : p[17] + channels], p[18] != 0, p[19] != 0)
                else:
                    gate(memory, at, added, through, shape, channels, p[18] != 0, p[19] != 0)
            elif op in (GREATEST, GREATEST_BACK, AVERAGE, AVERAGE_BACK, PICK):
                shape, channels, whole = (p[1], p[2], p[3]), p[4], (p[21], p[22])
                block = (p[23], p[24], p[25], p[26], p[27], p[28])
                x, out = (p[5], p[6], p[7], p[8]), (p[9], p[10], p[11], p[12])
                read, written = (p[13], p[14], p[15], p[16]), (p[17], p[18], p[19], p[20])
                if op == GREATEST:
                    greatest(memory, x, out, shape, channels, block, whole)
                elif op == GREATEST_BACK:
                    greatest_back(memory, x, out, read, written, shape, channels, block, whole, False)
                elif op == AVERAGE:
                    average(memory, x, out, shape, channels, block, whole)
                elif op == AVERAGE_BACK:
                    average_back(memory, read, written, shape, channels, block, whole, False)
                else:
                    pick(memory, x, out, read, written, shape, channels, block, whole)
            else:
                shape, at, channels = (p[1], p[2], p[3]), (p[5], p[6], p[7], p[8]), p[4]
                pooled = memory[p[9] : p[9] + channels * p[3]].reshape(channels, p[3])
                if op == POOL:
                    pool(memory, at, shape, pooled)
                else:
                    pool_back(memory, at, shape, pooled)

    return jit(run)


run = _compiled(edition((*MODULES, tangent_kernels)))
