"""Where the kept weights of a layer find their inputs, for inference: lists for one size of inputs.

Activations lie channel × height × width × examples. Where there is padding or a stride, a layer's inputs are copied:
with zeros around them, and those that a stride leaves between in planes of their own. Then every kept weight is one
product with a run of contiguous numbers over all places and examples, however few examples there are. A linear layer is
a convolution of one place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lotto.training.learners.batch_innermost import LANES, TOGETHER, Entries, Pair, Shape, rounded_up
from lotto.training.learners.conv_layers import DENSE, SPARSE, grouped
from lotto.training.learners.network_layers import CROSSOVER

BLOCK, REST = 8, 2
"""Vectors that are summed up at once, and how many more are quicker one by one than as another block."""

USUAL = 9
"""Weights of a kernel: layers with fewer sum over so many more channels at a time."""


class Weights(NamedTuple):
    """The stored weights of a layer.

    Attributes:
        shape: of a convolution; a linear layer has a kernel of one place.
        outputs, inputs: channels.
        groups: of these; outputs of one read its inputs only.
        places: where in the whole weight they stand, ascending.
        first: of them in the vector of all values.
    """

    shape: Shape
    outputs: int
    inputs: int
    groups: int
    places: np.ndarray
    first: int


class LayerLists(NamedTuple):
    """A layer for one size of inputs.

    Attributes:
        rows: outputs of a block, `SPARSE` or `DENSE`.
        vectors: of a run.
        plane: numbers of a padded plane.
        size: its (height, width).
        phases: row and column of the first input of each kind of plane; none where inputs are read as they are.
        entries: see `Entries`; places are those in the vector of all values.
        raw: where in the memory of a layer the sums begin.
        memory: numbers that the layer needs for itself.
        reach: numbers that are read from the first input on; sums over those behind the last are dropped.
    """

    rows: int
    vectors: int
    plane: int
    size: Pair
    phases: list[Pair]
    entries: list[Entries]
    raw: int
    memory: int
    reach: int


def lists_of(weights: Weights, size: Pair, examples: int) -> LayerLists:
    """Lists for inputs of a height and width.

    Args:
        weights: of the layer.
        size: (height, width) of the inputs.
        examples: that are computed at a time.
    """
    shape, outputs, inputs, groups, kept, first = weights
    out = shape.outputs(size)
    height, width = (
        -(-((out[d] - 1) * shape.stride[d] + shape.dilation[d] * (shape.kernel[d] - 1) + 1) // shape.stride[d])
        for d in range(2)
    )
    copied = (shape.stride, shape.padding) != ((1, 1), (0, 0))
    plane = rounded_up(height * width * examples, LANES) if copied else height * width * examples
    taps = [[divmod(tap[d] * shape.dilation[d], shape.stride[d]) for d in range(2)] for tap in shape.taps]
    phases = sorted({(h[1], w[1]) for h, w in taps})
    at = [phases.index((h[1], w[1])) * inputs * plane + (h[0] * width + w[0]) * examples for h, w in taps]
    offsets = np.add.outer(np.arange(inputs) * plane, at).reshape(-1)
    mask, where = np.zeros(outputs * len(offsets), bool), np.zeros(outputs * len(offsets), np.int64)
    output, within = np.divmod(kept, len(offsets) // groups)
    at_inputs = output * len(offsets) + output // (outputs // groups) * (len(offsets) // groups) + within
    mask[at_inputs], where[at_inputs] = True, np.arange(first, first + len(kept))
    density, flat = len(kept) / len(mask), (outputs, len(offsets))
    one_by_one = groups > 1 and outputs // groups % TOGETHER  # a block of outputs is of one group
    rows = SPARSE if one_by_one or density * groups < CROSSOVER else DENSE
    together = max(len(taps), USUAL)
    entries = grouped(mask.reshape(flat), where.reshape(flat), offsets, together, rows, density)
    vectors = _vectors(((out[0] - 1) * width + out[1]) * examples)
    phases = phases if copied else []
    raw, reach = len(phases) * inputs * plane, int(offsets.max()) + vectors * LANES
    memory = max(raw + rounded_up(outputs, TOGETHER) * vectors * LANES, reach)
    return LayerLists(rows, vectors, plane, (height, width), phases, entries, raw, memory, reach)


def _vectors(numbers: int) -> int:
    """Vectors of a run: rather another block than several single ones."""
    vectors = -(-numbers // LANES)
    return vectors if vectors % BLOCK <= REST else rounded_up(vectors, BLOCK)
