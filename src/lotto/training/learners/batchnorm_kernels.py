"""BatchNorm, a sum and an activation over activations that lie channel × height × width × batch, channel by channel.

A channel of a batch mostly fits into a processor's nearest memory, so that its second and third passes cost little.
Sums are float32 over blocks and float64 over these.

All lie in one memory, see `storage`; a layout is (start, channel, row, column): where the first number is, and from
there the distances between neighbours. ``shape`` is (rows, columns, run): runs of so many contiguous numbers.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lotto.core.jit import jit_part
from lotto.training.learners.activation_kernels import activated, passed
from lotto.training.learners.storage import number, put

_inline = njit(inline="always")
_BLOCK = 1024
_ZERO = np.float32(0)


@_inline
def _total(x):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for first in range(0, len(x), _BLOCK):
        part, a = x[first : first + _BLOCK], _ZERO
        for i in range(len(part)):
            a += number(part, i)
        total += a
    return total


@_inline
def _squares(x, mean):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for first in range(0, len(x), _BLOCK):
        part, a = x[first : first + _BLOCK], _ZERO
        for i in range(len(part)):
            a += (number(part, i) - mean) * (number(part, i) - mean)
        total += a
    return total


@_inline
def _moments(memory, at, channel, shape):  # type: ignore[no-untyped-def]
    """Mean and sum of squared deviations of a channel."""
    rows, columns, run = shape
    start = at[0] + channel * at[1]
    total, squares = np.float64(0), np.float64(0)
    for h in range(rows):
        for w in range(columns):
            a = start + h * at[2] + w * at[3]
            total += _total(memory[a : a + run])
    mean = np.float32(total / (rows * columns * run))
    for h in range(rows):
        for w in range(columns):
            a = start + h * at[2] + w * at[3]
            squares += _squares(memory[a : a + run], mean)
    return mean, squares


@_inline
def _scaled(memory, x_at, added_at, out_at, channel, shape, scale, shift, add, act):  # type: ignore[no-untyped-def]
    """``out = act(x * scale + shift + added)`` of a channel."""
    rows, columns, run = shape
    for h in range(rows):
        for w in range(columns):
            a = x_at[0] + channel * x_at[1] + h * x_at[2] + w * x_at[3]
            b = added_at[0] + channel * added_at[1] + h * added_at[2] + w * added_at[3]
            z = out_at[0] + channel * out_at[1] + h * out_at[2] + w * out_at[3]
            row, other, result = memory[a : a + run], memory[b : b + run], memory[z : z + run]
            if add and act[0]:
                for i in range(run):
                    put(result, i, activated(number(row, i) * scale + shift + number(other, i), act))
            elif act[0]:
                for i in range(run):
                    put(result, i, activated(number(row, i) * scale + shift, act))
            elif add:
                for i in range(run):
                    put(result, i, number(row, i) * scale + shift + number(other, i))
            else:
                for i in range(run):
                    put(result, i, number(row, i) * scale + shift)


@jit_part
def normalise(memory, x_at, added_at, out_at, shape, affine, running, moments, how):  # type: ignore[no-untyped-def]
    """``out = act(BatchNorm(x) + added)``.

    Args:
        memory: see above.
        x_at, added_at, out_at: layouts.
        shape: see above.
        affine: weight and bias, shape (channels,) each.
        running: running mean and variance, which are moved towards the batch's.
        moments: shape (2, channels), where the batch's mean and inverse deviation are written.
        how: (momentum, eps, whether there is something added, the activation, whether it is by the running
            statistics: then these stay, and ``moments`` are not written).
    """
    momentum, eps, add, act, frozen = how
    weight, bias = affine
    mean_, variance_ = running
    count = shape[0] * shape[1] * shape[2]
    for c in range(len(weight)):
        if frozen:
            mean, deviation = mean_[c], 1 / np.sqrt(np.float64(variance_[c]) + eps)
        else:
            mean, squares = _moments(memory, x_at, c, shape)
            deviation = 1 / np.sqrt(squares / count + eps)
            moments[0, c], moments[1, c] = mean, deviation
            mean_[c] += np.float32(momentum) * (mean - mean_[c])
            variance_[c] += np.float32(momentum) * (np.float32(squares / (count - 1)) - variance_[c])
        scale = np.float32(weight[c] * deviation)
        shift = np.float32(bias[c] - np.float64(mean) * scale)
        _scaled(memory, x_at, added_at, out_at, c, shape, scale, shift, add, act)


@_inline
def _gated_sums(given, out, x, mean, act):  # type: ignore[no-untyped-def]
    """Pass the activation; sums of the gradient, and of its product with the centred input."""
    total, product = np.float64(0), np.float64(0)
    for first in range(0, len(x), _BLOCK):
        p, q = _ZERO, _ZERO
        g, gate, row = given[first : first + _BLOCK], out[first : first + _BLOCK], x[first : first + _BLOCK]
        if act[0]:
            for i in range(len(row)):
                put(g, i, passed(number(g, i), number(gate, i), act))
        for i in range(len(row)):
            p += number(g, i)
            q += number(g, i) * (number(row, i) - mean)
        total += p
        product += q
    return total, product


@jit_part
def normalise_back(memory, x_at, out_at, given_at, back_at, shape, weight, gradients, moments, act, more):  # type: ignore[no-untyped-def]
    """The gradients of `normalise`.

    Args:
        memory: see above.
        x_at: the inputs.
        out_at: the outputs, read if there is an activation.
        given_at: the outputs' gradient; with an activation it becomes that of the sum before.
        back_at: where the inputs' gradient is written; this may be ``given_at``.
        shape: see above.
        weight: shape (channels,).
        gradients: of weight and bias, written.
        moments: what `normalise` has written.
        act: the activation that followed.
        more: whether the inputs' gradient is added to what is there.
    """
    rows, columns, run = shape
    by_weight, by_bias = gradients
    count = rows * columns * run
    for c in range(len(weight)):
        start, gate = x_at[0] + c * x_at[1], out_at[0] + c * out_at[1]
        above, to = given_at[0] + c * given_at[1], back_at[0] + c * back_at[1]
        mean, deviation = np.float32(moments[0, c]), moments[1, c]
        total, product = np.float64(0), np.float64(0)
        for h in range(rows):
            for w in range(columns):
                a = start + h * x_at[2] + w * x_at[3]
                z = gate + h * out_at[2] + w * out_at[3]
                g = above + h * given_at[2] + w * given_at[3]
                p, q = _gated_sums(memory[g : g + run], memory[z : z + run], memory[a : a + run], mean, act)
                total += p
                product += q
        by_weight[c], by_bias[c] = product * deviation, total
        # With z = (x - mean) * deviation: dx = scale * (g - sum(g) / n - z * sum(g z) / n).
        factor = weight[c] * deviation
        slope = -factor * deviation * deviation * product / count
        offset = -factor * total / count - slope * mean
        scale, slope, offset = np.float32(factor), np.float32(slope), np.float32(offset)
        for h in range(rows):
            for w in range(columns):
                a = start + h * x_at[2] + w * x_at[3]
                g = above + h * given_at[2] + w * given_at[3]
                z = to + h * back_at[2] + w * back_at[3]
                row, result = memory[a : a + run], memory[z : z + run]
                gradient = memory[g : g + run]
                if g == z and not more:  # two names of one memory are gone through number by number
                    for i in range(run):
                        put(gradient, i, number(gradient, i) * scale + number(row, i) * slope + offset)
                elif more:
                    for i in range(run):
                        value = number(gradient, i) * scale + number(row, i) * slope + offset
                        put(result, i, number(result, i) + value)
                else:
                    for i in range(run):
                        put(result, i, number(gradient, i) * scale + number(row, i) * slope + offset)
