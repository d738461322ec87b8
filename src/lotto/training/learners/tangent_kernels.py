"""What curvature needs between convolutions, over activations that lie channel × height × width × batch.

Layouts and shapes are those of `batchnorm_kernels`; what is written is written in place. NaN stays.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np

from lotto.core.jit import jit_part

_ZERO, _ONE = np.float32(0), np.float32(1)


@jit_part
def settle(memory, at, added_at, shape, bias, add, relu):  # type: ignore[no-untyped-def]
    """``x = relu(x + bias + added)``, the sum only with ``add``, ReLU only with ``relu``."""
    rows, columns, run = shape
    for c in range(len(bias)):
        for h in range(rows):
            for w in range(columns):
                a = at[0] + c * at[1] + h * at[2] + w * at[3]
                b = added_at[0] + c * added_at[1] + h * added_at[2] + w * added_at[3]
                row, other = memory[a : a + run], memory[b : b + run]
                if add and relu:
                    for i in range(run):
                        value = row[i] + bias[c] + other[i]
                        row[i] = _ZERO if value <= _ZERO else value
                elif add:
                    for i in range(run):
                        row[i] += bias[c] + other[i]
                elif relu:
                    for i in range(run):
                        value = row[i] + bias[c]
                        row[i] = _ZERO if value <= _ZERO else value
                else:
                    for i in range(run):
                        row[i] += bias[c]


@jit_part
def gate(memory, at, added_at, open_at, shape, channels, add, relu):  # type: ignore[no-untyped-def]
    """``x + added`` where ``open`` is not 0 or less, else 0: ReLU's derivative; ``add`` and ``relu`` as above."""
    rows, columns, run = shape
    for c in range(channels):
        for h in range(rows):
            for w in range(columns):
                a = at[0] + c * at[1] + h * at[2] + w * at[3]
                b = added_at[0] + c * added_at[1] + h * added_at[2] + w * added_at[3]
                o = open_at[0] + c * open_at[1] + h * open_at[2] + w * open_at[3]
                row, other, through = memory[a : a + run], memory[b : b + run], memory[o : o + run]
                if add and relu:
                    for i in range(run):
                        value = row[i] + other[i]
                        row[i] = _ZERO if through[i] <= _ZERO else value
                elif add:
                    for i in range(run):
                        row[i] += other[i]
                elif relu:
                    for i in range(run):
                        value = row[i]
                        row[i] = _ZERO if through[i] <= _ZERO else value


@jit_part
def pick(memory, x_at, out_at, from_at, to_at, shape, channels, block, whole):  # type: ignore[no-untyped-def]
    """Of each block what stands in ``from`` where the first of the greatest inputs is: the derivative of `greatest`.

    Args:
        memory: of all activations.
        x_at, out_at: inputs and outputs of the pooling.
        from_at, to_at: what is picked from, and where it is written.
        shape, channels, block, whole: see `pooling_kernels.greatest`.
    """
    height, width, batch = shape
    free = np.empty(batch, np.float32)  # 1 until a number of the block has been the greatest
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                z = out_at[0] + c * out_at[1] + h * out_at[2] + w * out_at[3]
                t = to_at[0] + c * to_at[1] + h * to_at[2] + w * to_at[3]
                most, result = memory[z : z + batch], memory[t : t + batch]
                top, left = h * block[2] - block[4], w * block[3] - block[5]
                free[:] = _ONE
                result[:] = _ZERO
                for i in range(max(0, top), min(whole[0], top + block[0])):
                    for j in range(max(0, left), min(whole[1], left + block[1])):
                        a = x_at[0] + c * x_at[1] + i * x_at[2] + j * x_at[3]
                        f = from_at[0] + c * from_at[1] + i * from_at[2] + j * from_at[3]
                        row, found = memory[a : a + batch], memory[f : f + batch]
                        for b in range(batch):
                            here = (row[b] == most[b]) & (free[b] != _ZERO)  # `and` would branch
                            result[b] = found[b] if here else result[b]
                            free[b] = _ZERO if here else free[b]


@jit_part
def clear(numbers):  # type: ignore[no-untyped-def]
    """Set all numbers to 0."""
    numbers[:] = _ZERO
