"""Fully connected networks: LeNet-300-100 and any other multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers ``fc1``, ``fc2``, ... with ReLU between them; the input is flattened."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        for i, (a, b) in enumerate(pairwise([inputs, *hidden, classes]), start=1):
            self.add_module(f"fc{i}", nn.Linear(a, b))
        self.depth = len(hidden) + 1

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(1, self.depth):
            x = getattr(self, f"fc{i}")(x).relu()
        return getattr(self, f"fc{self.depth}")(x)


def mlp(hidden: Sequence[int], shape: Sequence[int], classes: int) -> MLP:
    """An MLP for inputs of ``shape`` (without the batch axis)."""
    return MLP(math.prod(shape), hidden, classes)
