"""A linear layer that has its unpruned weights only: products whose cost falls with the density.

Activations have the shape (features, batch): the batch is the innermost, contiguous axis, so that each weight meets a
whole vector of numbers. Kernels run on one thread.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.core.jit import can_compile, jit

SMALL = 1 << 12
"""Weights of a layer that is quicker here than by torch's operators, even with all of them."""

SPARSE = 0.25
"""Density below which a layer is quicker sparse: about where both cost the same (`lotto bench sparse wide`)."""


class SparseLayer:
    """A layer whose parameter is the vector of its unpruned weights, in the order of the mask's rows.

    Args:
        weight: shape (outputs, inputs).
        bias: shape (outputs,).
        mask: of the weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor, mask: Tensor) -> None:
        self.shape, self.bias = weight.shape, bias
        self.indices = mask.flatten().nonzero().squeeze(1)
        self.weight = weight.flatten()[self.indices]
        self.weight.grad, self.bias.grad = torch.zeros_like(self.weight), torch.zeros_like(bias)
        self._rows, self._columns = compressed(mask)
        self._values, self._offsets = self.weight.numpy(), bias.numpy()
        self._gradients = (self.weight.grad.numpy(), self.bias.grad.numpy())
        self._kernels, self._zero = kernels(self._values.dtype), self._values.dtype.type(0)
        self._buffers: dict[int, Tensor] = {}

    def forward_feature_major(self, x: Tensor, relu: bool) -> Tensor:
        """Shape (inputs, batch) to (outputs, batch), perhaps with ReLU; valid until the next call."""
        outputs = self._buffer(0, x)
        self._kernels.multiply(*self._rows, self._values, self._offsets, x.numpy(), relu, outputs.numpy())
        return outputs

    def input_gradient(self, gradient: Tensor, x: Tensor, feature_major: bool = True) -> Tensor:
        """Shape (outputs, batch) to (inputs, batch), 0 where ReLU made ``x`` 0; valid until the next call."""
        inputs = self._buffer(1, gradient)
        self._kernels.multiply_transposed(
            *self._columns, self._values, gradient.contiguous().numpy(), x.numpy(), True, inputs.numpy()
        )
        return inputs

    def set_gradients(self, gradient: Tensor, x: Tensor, feature_major: bool = True) -> None:
        """At the unpruned weights, from shapes (outputs, batch) and (inputs, batch)."""
        self._kernels.outer(*self._rows, gradient.contiguous().numpy(), x.numpy(), *self._gradients, self._zero)

    def sgd_step(self, gradient: Tensor, x: Tensor, feature_major: bool, lr: float) -> None:
        """A step of plain gradient descent, in which gradients are nowhere."""
        moved, rate = (self._values, self._offsets), self._values.dtype.type(lr)
        self._kernels.outer(*self._rows, gradient.contiguous().numpy(), x.numpy(), *moved, rate)

    def to_dense(self, values: Tensor) -> Tensor:
        """Values at the unpruned positions of a weight, 0 elsewhere."""
        return values.new_zeros(self.shape.numel()).index_copy_(0, self.indices, values.detach()).view(self.shape)

    def _buffer(self, axis: int, like: Tensor) -> Tensor:
        found = self._buffers.get(axis)
        if found is None or found.shape[1] != like.shape[1]:
            found = self._buffers[axis] = like.new_empty(self.shape[axis], like.shape[1])
        return found


class Rows(NamedTuple):
    """Compressed rows: the weights of row i are ``values[ends[i]:ends[i + 1]]``, in these columns."""

    ends: np.ndarray
    columns: np.ndarray


class Columns(NamedTuple):
    """The same by columns: the weights of column i are ``values[order[ends[i]:ends[i + 1]]]``, in these rows."""

    ends: np.ndarray
    rows: np.ndarray
    order: np.ndarray


def compressed(mask: Tensor) -> tuple[Rows, Columns]:
    """Where the unpruned weights of a layer are, by rows and by columns.

    Args:
        mask: shape (outputs, inputs).

    >>> compressed(torch.tensor([[True, False], [True, True]]))[0].ends.tolist()
    [0, 1, 3]
    """
    outputs, inputs = mask.nonzero().numpy().T.astype(np.int32)
    order = np.argsort(inputs, kind="stable").astype(np.int32)
    return Rows(_ends(outputs, len(mask)), inputs), Columns(_ends(inputs, mask.shape[1]), outputs[order], order)


def _ends(lines: np.ndarray, count: int) -> np.ndarray:
    """Where each of ``count`` lines ends, after a 0."""
    return np.concatenate([[0], np.bincount(lines, minlength=count).cumsum()]).astype(np.int32)


def is_faster_sparse(mask: Tensor, crossover: float = SPARSE) -> bool:
    """Whether a layer with this mask is quicker sparse, here."""
    return can_compile() and 0 < int(mask.sum()) < crossover * mask.numel()


class Kernels(NamedTuple):
    """Compiled functions over compressed rows ``(ends, columns)`` and their values; see `kernels`."""

    multiply: Any
    multiply_transposed: Any
    outer: Any


@cache
def kernels(dtype: np.dtype[Any]) -> Kernels:
    """The kernels for one type of number: compiled at first use, in seconds, and kept on disk.

    Sums may be taken in any order, as in every product; NaN and infinity are kept.
    """
    zero = dtype.type(0)  # a constant for the compiler, which adds up in vectors only from a constant

    @jit
    def multiply(ends, columns, values, bias, x, relu, out):  # type: ignore[no-untyped-def]
        """``out = values @ x + bias``, perhaps with ReLU; four weights at a time, so ``out`` is passed less often."""
        batch = x.shape[1]
        for i in range(len(ends) - 1):
            row, k, end = out[i], ends[i], ends[i + 1]
            for j in range(batch):
                row[j] = bias[i]
            while k + 4 <= end:
                a, b, c, d = values[k], values[k + 1], values[k + 2], values[k + 3]
                xa, xb, xc, xd = x[columns[k]], x[columns[k + 1]], x[columns[k + 2]], x[columns[k + 3]]
                for j in range(batch):
                    row[j] += a * xa[j] + b * xb[j] + c * xc[j] + d * xd[j]
                k += 4
            while k < end:
                a, xa = values[k], x[columns[k]]
                for j in range(batch):
                    row[j] += a * xa[j]
                k += 1
            if relu:
                for j in range(batch):
                    row[j] = zero if row[j] < zero else row[j]  # NaN stays

    @jit
    def multiply_transposed(ends, rows, order, values, gradient, x, relu, out):  # type: ignore[no-untyped-def]
        """``out = values.T @ gradient``, with ``relu`` 0 where ``x`` is not above 0; four weights at a time."""
        batch = x.shape[1]
        for i in range(len(ends) - 1):
            row, seen, k, end = out[i], x[i], ends[i], ends[i + 1]
            for j in range(batch):
                row[j] = zero
            while k + 4 <= end:
                a, b, c, d = values[order[k]], values[order[k + 1]], values[order[k + 2]], values[order[k + 3]]
                ga, gb, gc, gd = gradient[rows[k]], gradient[rows[k + 1]], gradient[rows[k + 2]], gradient[rows[k + 3]]
                for j in range(batch):
                    row[j] += a * ga[j] + b * gb[j] + c * gc[j] + d * gd[j]
                k += 4
            while k < end:
                a, ga = values[order[k]], gradient[rows[k]]
                for j in range(batch):
                    row[j] += a * ga[j]
                k += 1
            if relu:
                for j in range(batch):
                    row[j] = zero if seen[j] <= zero else row[j]

    @jit
    def outer(ends, columns, gradient, x, out, sums, rate):  # type: ignore[no-untyped-def]
        """``out = gradient @ x.T`` at the unpruned positions, four of a row at a time, and the rows' ``sums``.

        With a ``rate`` other than 0 both are not set, but moved against it.
        """
        batch = x.shape[1]
        for i in range(len(ends) - 1):
            row, k, end = gradient[i], ends[i], ends[i + 1]
            total = zero
            for j in range(batch):
                total += row[j]
            sums[i] = sums[i] - rate * total if rate else total
            while k + 4 <= end:
                xa, xb, xc, xd = x[columns[k]], x[columns[k + 1]], x[columns[k + 2]], x[columns[k + 3]]
                a, b, c, d = zero, zero, zero, zero
                for j in range(batch):
                    a += row[j] * xa[j]
                    b += row[j] * xb[j]
                    c += row[j] * xc[j]
                    d += row[j] * xd[j]
                if rate:
                    out[k] -= rate * a
                    out[k + 1] -= rate * b
                    out[k + 2] -= rate * c
                    out[k + 3] -= rate * d
                else:
                    out[k], out[k + 1], out[k + 2], out[k + 3] = a, b, c, d
                k += 4
            while k < end:
                a, xa = zero, x[columns[k]]
                for j in range(batch):
                    a += row[j] * xa[j]
                out[k] = out[k] - rate * a if rate else a
                k += 1

    return Kernels(multiply, multiply_transposed, outer)
