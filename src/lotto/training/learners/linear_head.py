"""The linear layers at the end of a convolutional network, over inputs of shape (features, batch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Linear(NamedTuple):
    """Weight (outputs, inputs), bias or None, their gradients, and the weight's mask as numbers, or None."""

    weight: Tensor
    bias: Tensor | None
    by_weight: Tensor
    by_bias: Tensor | None
    mask: Tensor | None


class Head:
    """Linear layers with ReLU between them.

    Args:
        layers: see `Linear`.
    """

    def __init__(self, layers: Sequence[Linear]) -> None:
        self.layers = layers
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch); the inputs of all layers are kept for `backward`."""
        self.inputs = []
        for layer in self.layers:
            x = x.relu_() if self.inputs else x
            self.inputs.append(x)
            x = layer.weight @ x if layer.bias is None else torch.addmm(layer.bias[:, None], layer.weight, x)
        return x

    def backward(self, given: Tensor) -> Tensor:
        """Set the gradients, from those of the outputs; returns that of the inputs."""
        for i, layer in reversed([*enumerate(self.layers)]):
            torch.mm(given, self.inputs[i].t(), out=layer.by_weight)
            if layer.mask is not None:
                layer.by_weight.mul_(layer.mask)
            if layer.by_bias is not None:
                torch.sum(given, 1, out=layer.by_bias)
            given = torch.mm(layer.weight.t(), given)
            if i:
                given.mul_(self.inputs[i] > 0)
        return given

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs (examples, classes) for inputs of shape (examples, features)."""
        for i, layer in enumerate(self.layers):
            x = x.relu_() if i else x
            x = x @ layer.weight.t() if layer.bias is None else torch.addmm(layer.bias, x, layer.weight.t())
        return x
