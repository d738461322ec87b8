"""Bytes to normalised floats, in one pass over a batch instead of three or four.

The kernels round twice, as torch's operators do, so the bits are the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.compiled import can_compile

WORD = 4
"""Bytes that are turned together."""

PADDING = 16
"""Words after a row of a turned batch: rows of a power of two would share few lines of a processor's first cache."""


def suits(x: Tensor) -> bool:
    """Whether there are kernels for these inputs, here."""
    return x.dtype == torch.uint8 and x.device.type == "cpu" and x.is_contiguous() and x.dim() > 1 and can_compile()


def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` in float32.

    Args:
        x: uint8, shape (n, channels, ...).
        scale: float32; one number, or one for each channel, in a shape that ``x`` is broadcast with.
        shift: likewise.
    """
    if not suits(x):
        return x.to(torch.float32).mul_(scale).add_(shift)
    return picked(x, torch.arange(len(x)), scale, shift)


def picked(x: Tensor, index: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``normalised(x[index], scale, shift)`` of inputs that `suits`."""
    out = torch.empty((len(index), *x.shape[1:]), dtype=torch.float32)
    if out.numel():
        channels = scale.numel()
        rows, made = (t.view(len(t), channels, -1).numpy() for t in (x, out))
        _kernels()[0](rows, index.numpy(), scale.view(-1).numpy(), shift.view(-1).numpy(), made)
    return out


def picked_by_feature(x: Tensor, index: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``normalised(x[index], ...).flatten(1).t()`` of inputs that `suits`, contiguous, shape (features, len(index)).

    Args:
        x: uint8, shape (n, ...).
        index: of the examples that are picked, int64.
        scale: one float32 for each feature.
        shift: likewise.
    """
    rows = x.flatten(1).numpy()
    features, word = rows.shape[1], np.uint32 if rows.shape[1] % WORD == 0 else np.uint8
    words = rows.view(word)
    turned = np.empty((words.shape[1], len(index) + PADDING), word)
    out = torch.empty((features, len(index)), dtype=torch.float32)
    _kernels()[1](words, index.numpy(), scale.numpy(), shift.numpy(), turned, out.numpy())
    return out


@cache
def _kernels() -> tuple[Any, Any]:
    """Compiled at first use in a process."""
    from numba import float32, njit

    @njit(nogil=True)
    def pick(x, index, scale, shift, out):  # type: ignore[no-untyped-def]
        for i in range(len(index)):
            for channel in range(x.shape[1]):
                row, made = x[index[i], channel], out[i, channel]
                a, b = scale[channel], shift[channel]
                for j in range(len(row)):
                    made[j] = float32(row[j]) * a + b

    @njit(nogil=True)
    def turn(words, index, scale, shift, turned, out):  # type: ignore[no-untyped-def]
        """Turn words of bytes, which are fewer, and take them apart where whole vectors of examples are at hand."""
        for i in range(len(index)):
            row = words[index[i]]
            for j in range(len(row)):
                turned[j, i] = row[j]
        each = words.itemsize
        for feature in range(len(out)):
            column, made = turned[feature // each], out[feature]
            a, b, bits = scale[feature], shift[feature], 8 * (feature % each)
            for i in range(len(made)):
                made[i] = float32((column[i] >> bits) & 255) * a + b

    return pick, turn
