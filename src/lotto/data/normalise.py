"""Bytes to normalised floats, in one pass over a batch instead of three."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lotto.compiled import can_compile


def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` in float32.

    Args:
        x: uint8, shape (n, channels, ...).
        scale: float32; one number, or one for each channel, in a shape that ``x`` is broadcast with.
        shift: likewise.
    """
    if x.device.type != "cpu" or not x.is_contiguous() or x.dim() < 2 or not x.numel() or not can_compile():
        return x.to(torch.float32).mul_(scale).add_(shift)
    out = torch.empty(x.shape, dtype=torch.float32)
    channels = 1 if scale.numel() == 1 else x.shape[1]
    parts = (len(x) if channels > 1 else 1, channels, -1)
    _kernel()(x.view(parts).numpy(), scale.view(-1).numpy(), shift.view(-1).numpy(), out.view(parts).numpy())
    return out


@cache
def _kernel() -> Any:
    """Compiled at first use; the two roundings are those of torch, so the bits are, too."""
    from numba import float32, njit, uint8, void

    @njit(void(uint8[:, :, ::1], float32[::1], float32[::1], float32[:, :, ::1]), nogil=True)
    def kernel(x, scale, shift, out):  # type: ignore[no-untyped-def]
        for i in range(x.shape[0]):
            for channel in range(x.shape[1]):
                row, made = x[i, channel], out[i, channel]
                a, b = scale[channel], shift[channel]
                for j in range(len(row)):
                    made[j] = float32(row[j]) * a + b

    return kernel
