"""Bytes to normalised floats, in one pass over a batch instead of three or four.

The kernels round twice, as torch's operators do, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.jit import can_compile, jit

WORD = 4
"""Bytes that are transposed together."""

Picker = Callable[[Tensor], Tensor]

PADDING = 16
"""Words after a row of a transposed batch: rows of a power of two would share few lines of the first cache."""


def supports(x: Tensor) -> bool:
    """Whether there are kernels for these inputs, here."""
    return x.dtype == torch.uint8 and x.device.type == "cpu" and x.is_contiguous() and x.dim() > 1 and can_compile()


def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` in float32.

    Args:
        x: uint8, shape (n, channels, ...).
        scale: float32; one number, or one for each channel, in a shape that ``x`` is broadcast with.
        shift: likewise.
    """
    if not supports(x) or not x.numel():
        return x.to(torch.float32).mul_(scale).add_(shift)
    return picker(x, scale, shift)(torch.arange(len(x)))


def picker(x: Tensor, scale: Tensor, shift: Tensor, feature_major: bool = False) -> Picker:
    """A function of indices: ``normalised(x[index], scale, shift)``, for inputs that it `supports`.

    With ``feature_major`` it gives the same as ``.flatten(1).t()``, contiguous, shape (features, len(index)).
    """
    return (_transposing if feature_major else _picking)(x, scale, shift)


def _picking(x: Tensor, scale: Tensor, shift: Tensor) -> Picker:
    pick, a, b = _kernels()[0], scale.numpy().reshape(-1), shift.numpy().reshape(-1)
    rows = x.numpy().reshape(len(x), len(a), -1)

    def picked(index: Tensor) -> Tensor:
        out = torch.empty((len(index), *x.shape[1:]), dtype=torch.float32)
        pick(rows, index.numpy(), a, b, out.numpy().reshape(len(index), len(a), -1))
        return out

    return picked


def _transposing(x: Tensor, scale: Tensor, shift: Tensor) -> Picker:
    transpose = _kernels()[1]
    a, b = (np.ascontiguousarray(t.expand(x.shape[1:]).numpy()).reshape(-1) for t in (scale, shift))
    words = x.numpy().reshape(len(x), len(a)).view(np.uint32 if len(a) % WORD == 0 else np.uint8)

    def transposed(index: Tensor) -> Tensor:
        out = torch.empty((len(a), len(index)), dtype=torch.float32)
        scratch = np.empty((words.shape[1], len(index) + PADDING), words.dtype)
        transpose(words, index.numpy(), a, b, scratch, out.numpy())
        return out

    return transposed


@cache
def _kernels() -> tuple[Any, Any]:
    """Compiled at first use, and kept on disk."""
    from numba import float32

    exact = partial(jit, fastmath=False)

    @exact
    def pick(x, index, scale, shift, out):  # type: ignore[no-untyped-def]
        for i in range(len(index)):
            for channel in range(x.shape[1]):
                row, made = x[index[i], channel], out[i, channel]
                a, b = scale[channel], shift[channel]
                for j in range(len(row)):
                    made[j] = float32(row[j]) * a + b

    @exact
    def transpose(words, index, scale, shift, transposed, out):  # type: ignore[no-untyped-def]
        """Transpose words of bytes, which are fewer, and split them where whole vectors of examples are at hand."""
        for i in range(len(index)):
            row = words[index[i]]
            for j in range(len(row)):
                transposed[j, i] = row[j]
        each = words.itemsize
        for feature in range(len(out)):
            column, made = transposed[feature // each], out[feature]
            a, b, bits = scale[feature], shift[feature], 8 * (feature % each)
            for i in range(len(made)):
                made[i] = float32((column[i] >> bits) & 255) * a + b

    return pick, transpose
