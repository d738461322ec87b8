"""The mean cross-entropy and its gradient in closed form, without autograd's fixed costs.

These are a sixth of a small network's step, and torch's own operators on a few numbers are most of the rest.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.jit import can_compile, jit

_ATEN = torch.ops.aten
_MEAN, _NOT_A_CLASS = 1, -100
"""The reduction and the ignored class of torch's cross-entropy."""
SMALL = 1 << 14
"""Up to so many outputs a kernel in one piece is quicker than torch's operators."""


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of outputs (batch, classes) and classes (batch,), and its gradient.

    Args:
        outputs: in any layout; the gradient has the same.
        y: each at least 0 and less than the number of classes.
    """
    if outputs.numel() > SMALL or outputs.device.type != "cpu" or not can_compile():
        return by_operators(outputs, y)
    gradient = torch.empty_like(outputs)
    loss = _kernel(gradient.numpy().dtype)(outputs.numpy(), y.numpy(), gradient.numpy())
    return torch.scalar_tensor(loss, dtype=outputs.dtype), gradient


def by_operators(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same sums as autograd's, in the same bits."""
    logs = torch.log_softmax(outputs, 1)
    loss, total = _ATEN.nll_loss_forward(logs, y, None, _MEAN, _NOT_A_CLASS)
    gradient = _ATEN.nll_loss_backward(torch.ones_like(loss), logs, y, None, _MEAN, _NOT_A_CLASS, total)
    return loss, _ATEN._log_softmax_backward_data(gradient, logs, 1, logs.dtype)


@cache
def _kernel(dtype: np.dtype[Any]) -> Any:
    """Compiled at first use, about a second, and kept on disk; one version for every layout."""
    from numba import from_dtype, int64, types

    numbers = types.Array(from_dtype(dtype), 2, "A")

    def kernel(outputs, y, gradient):  # type: ignore[no-untyped-def]
        """Writes the gradient, returns the mean loss; NaN and infinity come through."""
        batch, classes = outputs.shape
        one = outputs.dtype.type(1)
        per_example = one / outputs.dtype.type(batch)
        loss = 0.0
        for j in range(batch):
            largest = outputs[j, 0]
            for c in range(1, classes):
                largest = max(largest, outputs[j, c])
            total = one - one
            for c in range(classes):
                weight = np.exp(outputs[j, c] - largest)
                gradient[j, c] = weight
                total += weight
            scale = per_example / total
            for c in range(classes):
                gradient[j, c] *= scale
            gradient[j, y[j]] -= per_example
            loss += np.log(total) + largest - outputs[j, y[j]]
        return loss / batch

    return jit(kernel, types.float64(numbers, int64[::1], numbers), fastmath=False)
