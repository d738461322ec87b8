"""BatchNorm, a sum and ReLU as one layer, which a CPU computes in two passes over the activations instead of five.

On a CPU these layers are bound by memory. In training, in bfloat16 and channels-last, kernels of our own read and write
each activation once for the statistics and once for the outcome, forward and backward alike; sums are float32 over
blocks and float64 over these. Anywhere else torch's functions compute the same.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 64
"""Rows of fewer channels are joined to rows of so many numbers: a processor's vectors are wider than 16 channels."""


class NormReLU(nn.BatchNorm2d):
    """``relu(BatchNorm(x) + residual)``; names and values of the state are those of `torch.nn.BatchNorm2d`.

    Attributes:
        fused: whether the kernels may be used; see `by_operators`.
    """

    fused = True

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shape (batch, channels, height, width); ``residual`` has the same."""
        if self.training and self.fused and _supports(x, residual) and self._has_plain_statistics():
            return self._fused(x, residual)
        out = super().forward(x)
        if residual is not None:
            out += residual
        return out.relu_()

    def _has_plain_statistics(self) -> bool:
        return self.affine and self.track_running_stats and self.weight.dtype == torch.float32

    def _fused(self, x: Tensor, residual: Tensor | None) -> Tensor:
        out, mean, variance = _Fused.apply(x, residual, self.weight, self.bias, self.eps)
        running = (self.running_mean, self.running_var, self.num_batches_tracked)
        with torch.no_grad():
            running_mean, running_var, tracked = (tensor for tensor in running if tensor is not None)
            count = x.numel() // x.shape[1]
            tracked += 1
            factor = 1.0 / float(tracked) if self.momentum is None else self.momentum
            running_mean.lerp_(mean, factor)
            running_var.lerp_(variance * (count / (count - 1)), factor)
        return out


def by_operators(module: nn.Module) -> None:
    """Have all of a module's layers use torch's operators: other transforms know nothing of our kernels."""
    for layer in module.modules():
        if isinstance(layer, NormReLU):
            layer.fused = False


def _supports(x: Tensor, residual: Tensor | None) -> bool:
    return (
        torch.get_num_threads() == 1  # as the kernels have
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]
        and (residual is None or (residual.dtype == x.dtype and residual.shape == x.shape))
        and torch.is_grad_enabled()
        and _can_compile()
    )


@cache
def _can_compile() -> bool:
    """Looked up once: a layer asks in every step, and where numba is missing the search goes through all folders."""
    return find_spec("numba") is not None


class _Fused(torch.autograd.Function):
    """Outputs, and the batch's mean and biased variance by channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, kernel = x.shape[1], kernels()
        rows = _rows(x)
        sums = np.zeros((2, rows.shape[1]))
        kernel.sums(rows, *sums)
        total, squares = sums.reshape(2, -1, channels).sum(1)
        count = x.numel() // channels
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        deviation = 1.0 / np.sqrt(variance + eps)
        scale = weight.detach().numpy() * deviation
        shift = bias.detach().numpy() - mean * scale
        out = torch.empty_like(x)
        if residual is None:
            kernel.scale(rows, *_tiled(rows, scale, shift), _rows(out))
        else:
            residual = residual.contiguous(memory_format=torch.channels_last)
            kernel.scale_add(rows, *_tiled(rows, scale, shift), _rows(residual), _rows(out))
        ctx.save_for_backward(x, out, weight)
        ctx.moments, ctx.added = (mean, deviation), residual is not None
        found = [torch.from_numpy(v.astype(np.float32)) for v in (mean, variance)]
        ctx.mark_non_differentiable(*found)
        return out, found[0], found[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, out, weight = ctx.saved_tensors
        (mean, deviation), kernel = ctx.moments, kernels()
        channels, rows, outs = x.shape[1], _rows(x), _rows(out)
        given = _rows(gradient.contiguous(memory_format=torch.channels_last))
        sums = np.zeros((2, rows.shape[1]))
        kernel.gradient_sums(rows, outs, given, *_tiled(rows, mean), *sums)
        total, product = sums.reshape(2, -1, channels).sum(1)
        count = x.numel() // channels
        # With z = (x - mean) * deviation: dx = scale * (g - sum(g) / n - z * sum(g z) / n).
        scale = weight.detach().numpy() * deviation
        slope = -scale * deviation**2 * product / count
        offset = -scale * total / count - slope * mean
        inputs = torch.empty_like(x)
        factors = _tiled(rows, scale, slope, offset)
        added = torch.empty_like(x) if ctx.added else None
        if added is None:
            kernel.gradient(rows, outs, given, *factors, _rows(inputs))
        else:
            kernel.gradient_add(rows, outs, given, *factors, _rows(inputs), _rows(added))
        by_weight = torch.from_numpy((product * deviation).astype(np.float32))
        return inputs, added, by_weight, torch.from_numpy(total.astype(np.float32)), None


def _rows(x: Tensor) -> np.ndarray:
    """The bits of a channels-last tensor, shape (rows, channels or a multiple of them)."""
    channels = x.shape[1]
    joined = channels
    while joined < WIDTH and x.numel() % (2 * joined) == 0:
        joined *= 2
    return x.permute(0, 2, 3, 1).reshape(-1, joined).view(torch.uint16).numpy()


def _tiled(rows: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """One number per channel, repeated for the joined rows, in float32."""
    return [np.tile(v.astype(np.float32), rows.shape[1] // len(v)) for v in values]


class Kernels(NamedTuple):
    """Compiled functions over the bits of bfloat16 numbers, shape (rows, width)."""

    sums: Any
    scale: Any
    scale_add: Any
    gradient_sums: Any
    gradient: Any
    gradient_add: Any


@cache
def kernels() -> Kernels:
    """Compile the kernels, a few seconds in each process that trains such a network."""
    from numba import njit

    compiled = njit(fastmath={"reassoc", "contract", "nsz"}, nogil=True)
    inline = njit(inline="always")
    block = 256
    high, half = np.uint32(16), np.uint32(0x8000)
    zero, nothing = np.float32(0), np.uint16(0)

    @inline
    def number(bits):  # type: ignore[no-untyped-def]
        return np.uint32(np.uint32(bits) << high).view(np.float32)

    @inline
    def rounded(value):  # type: ignore[no-untyped-def]
        bits = np.float32(value).view(np.uint32)
        return np.uint16((bits + half) >> high)  # to the nearest, ties away from 0: fewer operations than to even

    @compiled
    def sums(x, total, squares):  # type: ignore[no-untyped-def]
        width = x.shape[1]
        a, b = np.empty(width, np.float32), np.empty(width, np.float32)
        for start in range(0, len(x), block):
            a[:], b[:] = zero, zero
            for i in range(start, min(start + block, len(x))):
                row = x[i]
                for j in range(width):
                    value = number(row[j])
                    a[j] += value
                    b[j] += value * value
            for j in range(width):
                total[j] += a[j]
                squares[j] += b[j]

    @compiled
    def scale(x, factor, shift, out):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            row, to = x[i], out[i]
            for j in range(len(factor)):
                value = number(row[j]) * factor[j] + shift[j]
                to[j] = rounded(zero if value <= zero else value)  # NaN stays

    @compiled
    def scale_add(x, factor, shift, residual, out):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            row, other, to = x[i], residual[i], out[i]
            for j in range(len(factor)):
                value = number(row[j]) * factor[j] + shift[j] + number(other[j])
                to[j] = rounded(zero if value <= zero else value)

    @compiled
    def gradient_sums(x, out, given, mean, total, product):  # type: ignore[no-untyped-def]
        width = x.shape[1]
        a, b = np.empty(width, np.float32), np.empty(width, np.float32)
        for start in range(0, len(x), block):
            a[:], b[:] = zero, zero
            end = min(start + block, len(x))
            for i in range(start, end - 1, 2):  # two rows at a time, so the sums are passed less often
                row, gate, gradient = x[i], out[i], given[i]
                next_row, next_gate, next_gradient = x[i + 1], out[i + 1], given[i + 1]
                for j in range(width):
                    value = number(gradient[j] if gate[j] else nothing)
                    next_value = number(next_gradient[j] if next_gate[j] else nothing)
                    a[j] += value + next_value
                    b[j] += value * (number(row[j]) - mean[j]) + next_value * (number(next_row[j]) - mean[j])
            if (end - start) % 2:
                row, gate, gradient = x[end - 1], out[end - 1], given[end - 1]
                for j in range(width):
                    value = number(gradient[j] if gate[j] else nothing)
                    a[j] += value
                    b[j] += value * (number(row[j]) - mean[j])
            for j in range(width):
                total[j] += a[j]
                product[j] += b[j]

    @compiled
    def gradient(x, out, given, factor, slope, offset, inputs):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            row, gate, gradient, to = x[i], out[i], given[i], inputs[i]
            for j in range(len(factor)):
                value = number(gradient[j] if gate[j] else nothing)
                to[j] = rounded(value * factor[j] + number(row[j]) * slope[j] + offset[j])

    @compiled
    def gradient_add(x, out, given, factor, slope, offset, inputs, residual):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            row, gate, gradient, to, other = x[i], out[i], given[i], inputs[i], residual[i]
            for j in range(len(factor)):
                bits = gradient[j] if gate[j] else nothing
                other[j] = bits
                to[j] = rounded(number(bits) * factor[j] + number(row[j]) * slope[j] + offset[j])

    return Kernels(sums, scale, scale_add, gradient_sums, gradient, gradient_add)
