"""Functions of single numbers between layers: ReLU, ReLU6, Hardtanh, LeakyReLU."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NONE, CLAMP, LEAKY = 0, 1, 2
"""Kinds, as kernels are told."""


class Activation(NamedTuple):
    """``min(max(x, low), high)``; with a slope, ``x`` above 0 and ``slope * x`` elsewhere.

    Attributes:
        low, high: the bounds; ReLU's are 0 and infinity.
        slope: of LeakyReLU, above 0, with the bounds of ReLU.

    >>> Activation(high=6.0)(torch.tensor([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """

    low: float = 0.0
    high: float = math.inf
    slope: float = 0.0

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """As they stand in an instruction: kind, and the bits of three numbers of float32."""
        low, high, slope = (int(np.float32(value).view(np.int32)) for value in self)
        return (LEAKY if self.slope else CLAMP), low, high, slope

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs, in place."""
        if self.slope:
            return torch.nn.functional.leaky_relu_(x, self.slope)
        return x.relu_() if self == RELU else x.clamp_(self.low, self.high)

    def back(self, gradient: Tensor, outputs: Tensor) -> Tensor:
        """The gradient before, from the one after and the outputs."""
        if self == RELU:
            return torch.ops.aten.threshold_backward.default(gradient, outputs, 0)
        if self.slope:
            return torch.where(outputs > 0, gradient, gradient * self.slope)
        return torch.where((outputs > self.low) & (outputs < self.high), gradient, 0.0)


RELU = Activation()
NOTHING = (NONE, 0, 0, 0)
"""The numbers of no activation."""
