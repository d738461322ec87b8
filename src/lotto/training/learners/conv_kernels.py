"""Convolutions of activations that lie channel × height × width × batch: compiled loops over contiguous rows.

A convolution is given by a list of offsets: where in the inputs each weight's number lies, seen from an output's place.
The input gradient is the same with the list turned around, and a sparse layer is the same with a list of its unpruned
weights.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np

from lotto.core.jit import jit_part
from lotto.training.learners.storage import BYTES, lanes
from lotto.training.learners.vector_blocks import (
    LANES,
    VECTORS,
    WIDTH,
    multiply_four,
    multiply_one,
    sum_four,
    sum_four_narrow,
    sum_one,
    sum_one_narrow,
)

DENSE_TILE, SPARSE_TILE = 8, 64
"""Vectors of a row for which all outputs are summed up before the next: inputs are read from the nearest memories, by
lists of few weights in runs that a processor reads ahead."""
CHUNK = 64
"""Vectors of a row that are gone through at a time, so that several rows fit into the nearest memory."""


@jit_part
def correlate(memory, weights, offsets, begins, ends, rows, geometry, more):  # type: ignore[no-untyped-def]
    """Sums of weights times inputs, for every place of every output.

    Args:
        memory: of all activations, see `storage`.
        weights: the address of the weights in float32, ``rows`` for each entry of ``offsets``.
        offsets: where an input lies, from an output's place.
        begins, ends: which offsets a block of ``rows`` outputs has.
        rows: outputs of a block, 1 or 4.
        geometry: height, width and vectors of the outputs; start, row and column of the inputs; start, row, column and
            channel of the outputs: the distances from one to the next.
        more: whether sums are added to what is there.
    """
    height, width, vectors, x_start, x_row, x_column, out_start, out_row, out_column, channel = geometry
    run = lanes(memory)
    if x_column == out_column == run * vectors:  # a row is contiguous
        width, vectors = 1, width * vectors
    base, size, number = memory.ctypes.data, BYTES // run, np.int64(more)
    list_, weights = offsets.ctypes.data, np.int64(weights)
    blocks, at_once = len(begins), max(1, (VECTORS if rows == 4 else WIDTH) * LANES // run)
    step = DENSE_TILE if rows == 4 else SPARSE_TILE
    for h in range(height):
        for w in range(width):
            x_place = base + size * (x_start + h * x_row + w * x_column)
            out_place = base + size * (out_start + h * out_row + w * out_column)
            for tile in range(0, vectors, step):
                end = min(tile + step, vectors)
                for b in range(blocks):
                    begin, count = begins[b], ends[b] - begins[b]
                    o, p = np.uint64(list_ + 8 * begin), np.uint64(weights + 4 * rows * begin)
                    block = out_place + size * b * rows * channel
                    v = tile
                    while v < end:
                        a, z = np.uint64(x_place + BYTES * v), np.uint64(block + BYTES * v)
                        wide = v + at_once <= end
                        if rows == 4:
                            if wide:
                                sum_four(memory, a, o, p, count, z, channel, number)
                            else:
                                sum_four_narrow(memory, a, o, p, count, z, channel, number)
                        elif wide:
                            sum_one(memory, a, o, p, count, z, channel, number)
                        else:
                            sum_one_narrow(memory, a, o, p, count, z, channel, number)
                        v += at_once if wide else 1


@jit_part
def products(memory, packed, offsets, begins, ends, rows, geometry):  # type: ignore[no-untyped-def]
    """Weight gradients, packed as the weights: for each a sum over places and batch of output gradient times input.

    Args:
        memory: see `correlate`.
        packed: the address of the sums in float32; what is there is added to.
        offsets, begins, ends, rows: see `correlate`; offsets come in fours, of which the last may be repeated.
        geometry: see there, with the outputs' gradients in their place.
    """
    height, width, vectors, x_start, x_row, x_column, g_start, g_row, g_column, channel = geometry
    base, size, list_, packed = memory.ctypes.data, BYTES // lanes(memory), offsets.ctypes.data, np.int64(packed)
    chunk = max(1, CHUNK // vectors)
    for h in range(height):
        for first in range(0, width, chunk):
            places = min(chunk, width - first)
            x_place = np.uint64(base + size * (x_start + h * x_row + first * x_column))
            g_place = base + size * (g_start + h * g_row + first * g_column)
            for b in range(len(begins)):
                block = np.uint64(g_place + size * b * rows * channel)
                for k in range(begins[b], ends[b], 4):
                    o, z = np.uint64(list_ + 8 * k), np.uint64(packed + 4 * rows * k)
                    if rows == 4:
                        multiply_four(memory, block, channel, x_place, o, places, vectors, g_column, x_column, z)
                    else:
                        multiply_one(memory, block, channel, x_place, o, places, vectors, g_column, x_column, z)


@jit_part
def pack(weights, places, packed):  # type: ignore[no-untyped-def]
    """``packed[i] = weights[places[i]]``, 0 where the place is -1."""
    for i in range(len(places)):
        packed[i] = weights[places[i]] if places[i] >= 0 else np.float32(0)


@jit_part
def unpack(packed, places, weights):  # type: ignore[no-untyped-def]
    """``weights[places[i]] = packed[i]``, but for places -1."""
    for i in range(len(places)):
        if places[i] >= 0:
            weights[places[i]] = packed[i]
