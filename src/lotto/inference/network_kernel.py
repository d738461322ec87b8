"""All steps of a network of kept weights, worked off by one compiled function; see `kernel_plan`.

Importing this module needs numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lotto.core.jit import jit, jit_part
from lotto.training.learners.batch_innermost import LANES
from lotto.training.learners.conv_kernels import correlate
from lotto.training.learners.program import edition

LAYER, SUM, MEAN, GREATEST, AVERAGE = range(5)
FIELDS = (
    "kind", "x_at", "out_at", "added_at", "relu", "examples", "inputs", "height", "width",
    "outputs", "out_height", "out_width", "step_h", "step_w", "before_h", "before_w", "block_h", "block_w",
    "gap_h", "gap_w", "scratch", "rows", "vectors", "plane", "padded_height", "padded_width", "raw", "bias",
    "first_phase", "phases", "first_group", "groups",
)  # fmt: skip
"""Of a row, which is a step; -1 where nothing is added."""


@jit_part
def _place(memory, p, phases):  # type: ignore[no-untyped-def]
    """Copy a layer's inputs with zeros around them, one plane after another."""
    x_at, examples, channels, rows, columns = p[1], p[5], p[6], p[7], p[8]
    step_h, step_w, before_h, before_w = p[12], p[13], p[14], p[15]
    plane, height, width = p[23], p[24], p[25]
    zero = np.float32(0)
    for phase in range(len(phases)):
        for channel in range(channels):
            start = p[20] + (phase * channels + channel) * plane
            memory[start + height * width * examples : start + plane] = zero  # numbers left there may be slow to add
            for i in range(height):
                row = i * step_h + phases[phase, 0] - before_h
                line = memory[start + i * width * examples : start + (i + 1) * width * examples]
                if row < 0 or row >= rows:
                    line[:] = zero
                    continue
                at = x_at + (channel * rows + row) * columns * examples
                if step_w == 1:  # the columns of a row are one run
                    head, length = before_w * examples, min(columns, width - before_w) * examples
                    found, to = memory[at : at + length], line[head : head + length]
                    line[:head] = zero
                    for k in range(length):
                        to[k] = found[k]
                    line[head + length :] = zero
                    continue
                for j in range(width):
                    column, to = j * step_w + phases[phase, 1] - before_w, line[j * examples : (j + 1) * examples]
                    if column < 0 or column >= columns:
                        to[:] = zero
                    else:
                        found = memory[at + column * examples : at + (column + 1) * examples]
                        for k in range(examples):
                            to[k] = found[k]


@jit_part
def _finish(memory, out_at, added_at, length, from_at, shift, relu):  # type: ignore[no-untyped-def]
    """A run of outputs: the sums, a bias, what is added, ReLU."""
    zero = np.float32(0)
    found, to = memory[from_at : from_at + length], memory[out_at : out_at + length]
    if added_at < 0:
        for k in range(length):
            value = found[k] + shift
            to[k] = zero if relu and value <= zero else value  # NaN stays
    else:
        more = memory[added_at : added_at + length]
        for k in range(length):
            value = found[k] + shift + more[k]
            to[k] = zero if relu and value <= zero else value


@jit_part
def _pool(memory, p):  # type: ignore[no-untyped-def]
    """The greatest number or the mean of each block of places; outside there is nothing."""
    x_at, out_at, examples, channels, rows, columns, height, width = p[1], p[2], p[5], p[6], p[7], p[8], p[10], p[11]
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                at = out_at + ((c * height + i) * width + j) * examples
                to = memory[at : at + examples]
                to[:] = -np.float32(np.inf) if p[0] == GREATEST else np.float32(0)
                for a in range(p[16]):
                    row = i * p[12] - p[14] + a * p[18]
                    for b in range(p[17]):
                        column = j * p[13] - p[15] + b * p[19]
                        if 0 <= row < rows and 0 <= column < columns:
                            from_at = x_at + ((c * rows + row) * columns + column) * examples
                            found = memory[from_at : from_at + examples]
                            if p[0] == GREATEST:
                                for k in range(examples):
                                    to[k] = to[k] if found[k] <= to[k] or to[k] != to[k] else found[k]  # NaN stays
                            else:
                                for k in range(examples):
                                    to[k] += found[k] / np.float32(p[16] * p[17])


@jit_part
def _mean(memory, p):  # type: ignore[no-untyped-def]
    """The mean over all places."""
    examples, places = p[5], p[7] * p[8]
    for c in range(p[6]):
        to = memory[p[2] + c * examples : p[2] + (c + 1) * examples]
        to[:] = np.float32(0)
        for place in range(places):
            at = p[1] + (c * places + place) * examples
            found = memory[at : at + examples]
            for k in range(examples):
                to[k] += found[k]
        for k in range(examples):
            to[k] /= np.float32(places)


@jit_part
def _turn(x, first, count, memory, at, examples):  # type: ignore[no-untyped-def]
    """Copy inputs so that examples are innermost; where there are none are zeros."""
    for start in range(0, x.shape[1], LANES):  # as many numbers as are read together
        end = min(start + LANES, x.shape[1])
        for k in range(examples):
            for i in range(start, end):
                memory[at + i * examples + k] = x[first + k, i] if k < count else np.float32(0)


@jit_part
def _work_off(memory, program, weights, biases, phases, groups, offsets, begins, ends):  # type: ignore[no-untyped-def]
    """All steps for as many examples as there are at a time; ``weights`` is where they lie, from the memory's start."""
    for i in range(len(program)):
        p = program[i]
        if p[0] == LAYER:
            _place(memory, p, phases[p[28] : p[28] + p[29]])
            raw, vectors = p[20] + p[26], p[22]
            inputs = p[20] if p[29] else p[1]
            geometry = (1, 1, vectors, inputs, 0, 0, raw, 0, 0, vectors * LANES)
            for g in range(p[30], p[30] + p[31]):
                first, begin, end, at = groups[g]
                at = memory.ctypes.data + 4 * (at + weights)
                correlate(memory, at, offsets[first:], begins[begin:end], ends[begin:end], p[21], geometry, g > p[30])
            length, width = p[11] * p[5], p[25] * p[5]
            for o in range(p[9]):
                for row in range(p[10]):
                    place = (o * p[10] + row) * length
                    added = p[3] + place if p[3] >= 0 else -1
                    at = raw + o * vectors * LANES + row * width
                    _finish(memory, p[2] + place, added, length, at, biases[p[27] + o], p[4] != 0)
        elif p[0] == SUM:
            length = p[6] * p[7] * p[8] * p[5]
            _finish(memory, p[2], p[3], length, p[1], np.float32(0), p[4] != 0)
        elif p[0] == MEAN:
            _mean(memory, p)
        else:
            _pool(memory, p)


def _compiled(digest: str) -> Any:
    """The function; ``digest`` tells it from one that calls other code."""

    def run(x, out, examples, x_at, out_at, memory, program, packed, biases, phases, groups, offsets, begins, ends):  # type: ignore[no-untyped-def]
        """Set a network's outputs.

        Args:
            x, out: inputs and outputs, shape (batch, numbers of an example).
            examples: that are computed at a time.
            x_at, out_at: where in the memory these inputs and outputs lie.
            memory: of all activations, examples innermost, and of each layer's padded inputs and sums.
            program: a row of numbers for each step, see `FIELDS`.
            packed: the stored weights, in the order of the lists.
            biases: of all layers.
            phases: of all layers, see `LayerLists`.
            groups: where each list's offsets begin, its blocks begin and end, and its weights begin.
            offsets, begins, ends: see `Entries`.
        """
        digest  # noqa: B018
        weights = (packed.ctypes.data - memory.ctypes.data) // 4  # seen from the memory's first number
        for first in range(0, len(x), examples):
            count = min(examples, len(x) - first)
            _turn(x, first, count, memory, x_at, examples)
            _work_off(memory, program, weights, biases, phases, groups, offsets, begins, ends)
            for i in range(out.shape[1]):
                for k in range(count):
                    out[first + k, i] = memory[out_at + i * examples + k]

    return jit(run)


run = _compiled(edition())
