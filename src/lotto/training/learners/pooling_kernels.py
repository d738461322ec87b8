"""Biases, sums, activations and pooling over channel × height × width × batch; see `batchnorm_kernels`.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np

from lotto.core.jit import jit_part
from lotto.training.learners.activation_kernels import activated, passed
from lotto.training.learners.storage import number, put

_BLOCK = 1024
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit_part
def shift(memory, x_at, added_at, out_at, shape, channels, bias, add, act):  # type: ignore[no-untyped-def]
    """``out = act(x + bias + added)``.

    Args:
        memory, x_at, added_at, out_at, shape: as those of `batchnorm_kernels.normalise`; ``out_at`` may be ``x_at``.
        channels: of all of them.
        bias: shape (channels,), or (0,): there is none.
        add: whether there is something added.
        act: the activation.
    """
    rows, columns, run = shape
    for c in range(channels):
        more = bias[c] if len(bias) else _ZERO
        for h in range(rows):
            for w in range(columns):
                a = x_at[0] + c * x_at[1] + h * x_at[2] + w * x_at[3]
                b = added_at[0] + c * added_at[1] + h * added_at[2] + w * added_at[3]
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                row, other, result = memory[a : a + run], memory[b : b + run], memory[z : z + run]
                if a == z and not add and not act[0]:  # two names of one memory are gone through number by number
                    for i in range(run):
                        put(row, i, number(row, i) + more)
                elif add:
                    for i in range(run):
                        value = number(row, i) + more + number(other, i)
                        put(result, i, activated(value, act) if act[0] else value)
                else:
                    for i in range(run):
                        value = number(row, i) + more
                        put(result, i, activated(value, act) if act[0] else value)


@jit_part
def shift_back(memory, given_at, back_at, out_at, shape, channels, by_bias, more, act):  # type: ignore[no-untyped-def]
    """The gradient of `shift`, written to ``back_at`` or with ``more`` added; that of the bias to ``by_bias``.

    Args:
        memory, given_at, back_at, out_at, shape: as those of `batchnorm_kernels.normalise_back`.
        channels, by_bias, act: see `shift`.
        more: see above.
    """
    rows, columns, run = shape
    for c in range(channels):
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
                    if g == a:
                        if act[0]:
                            for i in range(last - first):
                                put(row, i, passed(number(row, i), number(gate, i), act))
                        for i in range(last - first):
                            part += number(row, i)
                    else:
                        for i in range(last - first):
                            value = passed(number(row, i), number(gate, i), act) if act[0] else number(row, i)
                            put(result, i, number(result, i) + value if more else value)
                            part += value
                    total += part
        if len(by_bias):
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
                                value, best = number(row, b), number(result, b)
                                put(result, b, value if value > best or value != value else best)  # NaN stays
                        first = False


@jit_part
def greatest_back(memory, x_at, out_at, given_at, back_at, shape, channels, block, whole, more):  # type: ignore[no-untyped-def]
    """The gradient of `greatest`: to the first of a block that is the greatest, 0 for what no block reads.

    With ``more`` it is added to what is there.
    """
    height, width, batch = shape
    free = np.empty(batch, np.float32)  # 1 until a number of the block has been the greatest
    for c in range(channels):
        if not more:
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
                            here = (number(row, b) == number(most, b)) & (free[b] != _ZERO)  # `and` would branch
                            put(result, b, number(result, b) + (number(gradient, b) if here else _ZERO))
                            free[b] = _ZERO if here else free[b]


@jit_part
def average(memory, x_at, out_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """The mean of each block, of which what lies outside the inputs is 0; arguments as those of `greatest`."""
    height, width, batch = shape
    sums = np.empty(batch, np.float32)
    scale = np.float32(1.0 / (block[0] * block[1]))
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                result = memory[z : z + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                sums[:] = _ZERO
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        a = x_at[0] + c * x_at[1] + i * x_at[2] + j * x_at[3]
                        row = memory[a : a + batch]
                        for b in range(batch):
                            sums[b] += number(row, b)
                for b in range(batch):
                    put(result, b, sums[b] * scale)


@jit_part
def average_back(memory, given_at, back_at, shape, channels, block, whole, more):  # type: ignore[no-untyped-def]
    """The gradient of `average`; with ``more`` it is added to what is there."""
    height, width, batch = shape
    scale = np.float32(1.0 / (block[0] * block[1]))
    for c in range(channels):
        if not more:
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
                            put(result, b, number(result, b) + number(gradient, b) * scale)


@jit_part
def clear(memory, at, c, whole, batch):  # type: ignore[no-untyped-def]
    """Set a channel to 0."""
    for y in range(whole[0]):
        for x in range(whole[1]):
            to = at[0] + c * at[1] + y * at[2] + x * at[3]
            memory[to : to + batch] = 0


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
                    row[b] += number(part, b)
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
                    put(part, b, row[b] * scale)
