"""Biases with ReLU and pooling over activations that lie channel × height × width × batch; see `batchnorm_kernels`.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np

from lotto.core.jit import jit_part

_BLOCK = 1024
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit_part
def shift(memory, x_at, out_at, shape, bias, relu):  # type: ignore[no-untyped-def]
    """``out = x + bias``, with ReLU if ``relu``; arguments as those of `batchnorm_kernels.normalise`."""
    rows, columns, run = shape
    for c in range(len(bias)):
        for h in range(rows):
            for w in range(columns):
                a = x_at[0] + c * x_at[1] + h * x_at[2] + w * x_at[3]
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                row, result = memory[a : a + run], memory[z : z + run]
                for i in range(run):
                    value = row[i] + bias[c]
                    result[i] = _ZERO if relu and value <= _ZERO else value  # NaN stays


@jit_part
def shift_back(memory, given_at, back_at, out_at, shape, by_bias, relu):  # type: ignore[no-untyped-def]
    """The gradients of `shift`; that of the bias is written to ``by_bias``."""
    rows, columns, run = shape
    for c in range(len(by_bias)):
        total = np.float64(0)
        for h in range(rows):
            for w in range(columns):
                g = given_at[0] + c * given_at[1] + h * given_at[2] + w * given_at[3]
                a = back_at[0] + c * back_at[1] + h * back_at[2] + w * back_at[3]
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                for first in range(0, run, _BLOCK):
                    last = min(first + _BLOCK, run)
                    row, gate = memory[g + first : g + last], memory[z + first : z + last]
                    result = memory[a + first : a + last]
                    part = _ZERO
                    for i in range(last - first):
                        value = _ZERO if relu and gate[i] <= _ZERO else row[i]
                        result[i] = value
                        part += value
                    total += part
        by_bias[c] = total


@jit_part
def greatest(memory, x_at, out_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """The greatest number of each block.

    Args:
        memory: of all activations.
        x_at, out_at: where inputs and outputs lie, see `Plane.layout`.
        shape: of the outputs, (height, width, batch).
        channels: of both.
        block: its height and width, the distances from one to the next, rows and columns before the inputs; what
            lies outside the inputs is not read.
        whole: height and width of the inputs.
    """
    height, width, batch = shape
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                result = memory[z : z + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                first = True
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        a = x_at[0] + c * x_at[1] + i * x_at[2] + j * x_at[3]
                        row = memory[a : a + batch]
                        if first:
                            for b in range(batch):  # an assignment of arrays takes seconds to compile
                                result[b] = row[b]
                        else:
                            for b in range(batch):
                                value, is_none = row[b], row[b] != row[b]  # NaN stays
                                result[b] = value if value > result[b] or is_none else result[b]
                        first = False


@jit_part
def greatest_back(memory, x_at, out_at, given_at, back_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """The gradient of `greatest`: to the first of a block that is the greatest, 0 for what no block reads."""
    height, width, batch = shape
    free = np.empty(batch, np.float32)  # 1 until a number of the block has been the greatest
    for c in range(channels):
        clear(memory, back_at, c, whole, batch)
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                g = given_at[0] + c * given_at[1] + h * given_at[2] + w * given_at[3]
                most, gradient = memory[z : z + batch], memory[g : g + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                free[:] = _ONE
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        a = x_at[0] + c * x_at[1] + i * x_at[2] + j * x_at[3]
                        to = back_at[0] + c * back_at[1] + i * back_at[2] + j * back_at[3]
                        row, result = memory[a : a + batch], memory[to : to + batch]
                        for b in range(batch):
                            here = (row[b] == most[b]) & (free[b] != _ZERO)  # `and` would branch
                            result[b] += gradient[b] if here else _ZERO
                            free[b] = _ZERO if here else free[b]


@jit_part
def average(memory, x_at, out_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """The mean of each block, of which what lies outside the inputs is 0; arguments as those of `greatest`."""
    height, width, batch = shape
    scale = np.float32(1.0 / (block[0] * block[1]))
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                result = memory[z : z + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                result[:] = _ZERO
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        a = x_at[0] + c * x_at[1] + i * x_at[2] + j * x_at[3]
                        row = memory[a : a + batch]
                        for b in range(batch):
                            result[b] += row[b]
                for b in range(batch):
                    result[b] *= scale


@jit_part
def average_back(memory, given_at, back_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """The gradient of `average`."""
    height, width, batch = shape
    scale = np.float32(1.0 / (block[0] * block[1]))
    for c in range(channels):
        clear(memory, back_at, c, whole, batch)
        for h in range(height):
            for w in range(width):
                g = given_at[0] + c * given_at[1] + h * given_at[2] + w * given_at[3]
                gradient = memory[g : g + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        to = back_at[0] + c * back_at[1] + i * back_at[2] + j * back_at[3]
                        result = memory[to : to + batch]
                        for b in range(batch):
                            result[b] += gradient[b] * scale


@jit_part
def clear(memory, at, c, whole, batch):  # type: ignore[no-untyped-def]
    """Set a channel to 0."""
    for y in range(whole[0]):
        for x in range(whole[1]):
            to = at[0] + c * at[1] + y * at[2] + x * at[3]
            memory[to : to + batch] = _ZERO


@jit_part
def pool(memory, at, shape, out):  # type: ignore[no-untyped-def]
    """``out[c, b]``, shape (channels, batch): the mean over places; ``shape`` is (height, width, batch)."""
    height, width, batch = shape
    scale = np.float32(1.0 / (height * width))
    for c in range(len(out)):
        row = out[c]
        row[:] = _ZERO
        for h in range(height):
            for w in range(width):
                a = at[0] + c * at[1] + h * at[2] + w * at[3]
                part = memory[a : a + batch]
                for b in range(batch):
                    row[b] += part[b]
        for b in range(batch):
            row[b] *= scale


@jit_part
def pool_back(memory, at, shape, gradient):  # type: ignore[no-untyped-def]
    """The gradient of `pool`, written where the activation's is."""
    height, width, batch = shape
    scale = np.float32(1.0 / (height * width))
    for c in range(len(gradient)):
        row = gradient[c]
        for h in range(height):
            for w in range(width):
                a = at[0] + c * at[1] + h * at[2] + w * at[3]
                part = memory[a : a + batch]
                for b in range(batch):
                    part[b] = row[b] * scale
