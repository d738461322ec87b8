"""Fully connected networks: LeNet-300-100 and any other multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lotto.models.plain import is_plain


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


def is_plain_mlp(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a module is an MLP of ours that nobody has changed, with all its weights in ``dtype``.

    Then its outputs are those of its weights and biases alone: ``fc1``, ReLU, ``fc2``, ..., and nothing else happens.
    """
    if type(module) is not MLP or not is_plain(module, (MLP, nn.Linear)):
        return False
    layers = [f"fc{i}" for i in range(1, module.depth + 1)]
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    return list(tensors) == names and all(t.dtype == dtype for t in tensors.values())
