"""Biases with ReLU and pooling over activations that lie channel × height × width × batch; see `batchnorm_kernels`.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np

from lotto.core.jit import jit_part

_BLOCK = 1024
_ZERO = np.float32(0)


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
def greatest(memory, x_at, out_at, shape, channels, size):  # type: ignore[no-untyped-def]
    """The greatest number of each block of ``size`` (rows, columns); ``shape`` is the outputs', with the batch."""
    height, width, batch = shape
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                result = memory[z : z + batch]
                first = x_at[0] + c * x_at[1] + h * size[0] * x_at[2] + w * size[1] * x_at[3]
                for b in range(batch):  # an assignment of arrays takes seconds to compile
                    result[b] = memory[first + b]
                for i in range(size[0]):
                    for j in range(size[1]):
                        a = first + i * x_at[2] + j * x_at[3]
                        row = memory[a : a + batch]
                        for b in range(batch):
                            value, is_none = row[b], row[b] != row[b]  # NaN stays
                            result[b] = value if value > result[b] or is_none else result[b]


@jit_part
def greatest_back(memory, x_at, out_at, given_at, back_at, shape, channels, size, whole):  # type: ignore[no-untyped-def]
    """The gradient of `greatest`: to the first of a block that is the greatest, 0 for all others of ``whole``."""
    height, width, batch = shape
    for c in range(channels):
        for y in range(whole[0]):
            for x in range(whole[1]):
                to = back_at[0] + c * back_at[1] + y * back_at[2] + x * back_at[3]
                result = memory[to : to + batch]
                h, w = y // size[0], x // size[1]
                result[:] = _ZERO
                if h >= height or w >= width:
                    continue
                a = x_at[0] + c * x_at[1] + y * x_at[2] + x * x_at[3]
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                g = given_at[0] + c * given_at[1] + h * given_at[2] + w * given_at[3]
                row, most, gradient = memory[a : a + batch], memory[z : z + batch], memory[g : g + batch]
                for b in range(batch):
                    result[b] = gradient[b] if row[b] == most[b] else _ZERO
                for i in range(y % size[0] + 1):  # where an earlier one is as great
                    for j in range(size[1] if i < y % size[0] else x % size[1]):
                        e = x_at[0] + c * x_at[1] + (h * size[0] + i) * x_at[2] + (w * size[1] + j) * x_at[3]
                        earlier = memory[e : e + batch]
                        for b in range(batch):
                            result[b] = _ZERO if earlier[b] == most[b] else result[b]


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
