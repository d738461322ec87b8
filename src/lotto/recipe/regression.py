"""Metrics of regressions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.recipe.outputs import prediction


def r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """The coefficient of determination, ``1 - sum of squares / that around the mean``; the mean over several outputs.

    NaN if the targets of an output are all alike.

    Raises:
        UsageError: if the targets are classes.

    >>> float(r2(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])))
    1.0
    """
    if not targets.is_floating_point():
        raise UsageError(f"r2 is of floating targets; got {targets.dtype}.")
    y = targets.double().reshape(len(targets), -1)
    error = prediction(outputs).double().reshape(y.shape) - y
    around = (y - y.mean(0)).square().sum(0)
    return (1 - error.square().sum(0) / torch.where(around > 0, around, math.nan)).mean()
