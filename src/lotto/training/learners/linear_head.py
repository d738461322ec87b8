"""The linear layers at the end of a convolutional network, over inputs of shape (features, batch).

Where few enough weights are left, these alone are multiplied, by the kernels of `sparse_linear`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners.activations import RELU, Activation
from lotto.training.learners.sparse_linear import compressed, kernels


class Linear(NamedTuple):
    """A linear layer as its tensors.

    Attributes:
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.
        by_weight, by_bias: their gradients.
        mask: of the weight; None = all are trained.
    """

    weight: Tensor
    bias: Tensor | None
    by_weight: Tensor
    by_bias: Tensor | None
    mask: Tensor | None


class DenseLinear:
    """A layer that multiplies all its weights; see `Linear`."""

    def __init__(self, layer: Linear) -> None:
        self.layer = layer
        self.mask = None if layer.mask is None or bool(layer.mask.all()) else layer.mask.to(layer.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (inputs, batch) to (outputs, batch)."""
        layer = self.layer
        return layer.weight @ x if layer.bias is None else torch.addmm(layer.bias[:, None], layer.weight, x)

    def set_gradients(self, given: Tensor, x: Tensor) -> None:
        """Of the parameters, from that of the outputs, shape (outputs, batch)."""
        torch.mm(given, x.t(), out=self.layer.by_weight)
        if self.mask is not None:
            self.layer.by_weight.mul_(self.mask)
        if self.layer.by_bias is not None:
            torch.sum(given, 1, out=self.layer.by_bias)

    def input_gradient(self, given: Tensor, x: Tensor, relu: bool) -> Tensor:
        """Shape (inputs, batch); with ``relu`` 0 where ``x`` is not above 0."""
        found = torch.mm(self.layer.weight.t(), given)
        return RELU.back(found, x) if relu else found


class SparseLinear:
    """A layer that multiplies its unpruned weights alone; see `DenseLinear`. Gradients of others are not written."""

    def __init__(self, layer: Linear) -> None:
        assert layer.mask is not None
        self.layer, (outputs, self.inputs) = layer, layer.weight.shape
        self.rows, self.columns = compressed(layer.mask)
        self.indices = layer.mask.flatten().nonzero().squeeze(1)
        self.values, self.by_values = (layer.weight.new_empty(len(self.indices)) for _ in range(2))
        self.bias = layer.weight.new_zeros(outputs) if layer.bias is None else layer.bias
        self.by_bias = torch.empty_like(self.bias) if layer.by_bias is None else layer.by_bias
        self.kernels = kernels(self.values.numpy().dtype)
        self.zero = np.float32(0)

    def forward(self, x: Tensor) -> Tensor:
        """See `DenseLinear.forward`."""
        torch.index_select(self.layer.weight.view(-1), 0, self.indices, out=self.values)
        outputs = x.new_empty(len(self.bias), x.shape[1])
        arrays = (self.values.numpy(), self.bias.numpy(), x.contiguous().numpy())
        self.kernels.multiply(*self.rows, *arrays, False, outputs.numpy())
        return outputs

    def set_gradients(self, given: Tensor, x: Tensor) -> None:
        """See `DenseLinear.set_gradients`."""
        found = (self.by_values.numpy(), self.by_bias.numpy())
        self.kernels.outer(*self.rows, given.contiguous().numpy(), x.contiguous().numpy(), *found, self.zero)
        self.layer.by_weight.view(-1).index_copy_(0, self.indices, self.by_values)

    def input_gradient(self, given: Tensor, x: Tensor, relu: bool) -> Tensor:
        """See `DenseLinear.input_gradient`; of the weights that `forward` has multiplied."""
        found = given.new_empty(self.inputs, given.shape[1])
        arrays = (self.values.numpy(), given.contiguous().numpy(), x.contiguous().numpy())
        self.kernels.multiply_transposed(*self.columns, *arrays, relu, found.numpy())
        return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch's products computed by one thread: the order of their sums depends on how many there are."""
    count = torch.get_num_threads()
    if count > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if count > 1:
            torch.set_num_threads(count)


class Head:
    """Linear layers, with activations between them. Bits do not depend on the number of threads.

    Args:
        layers: one after another.
        before: what each of them reads its inputs through, or None.
    """

    def __init__(self, layers: Sequence[DenseLinear | SparseLinear], before: Sequence[Activation | None]) -> None:
        self.layers, self.before = layers, before
        self.inputs: list[Tensor] = []

    @property
    def outputs(self) -> int:
        """How many there are."""
        return len(self.layers[-1].layer.weight)

    @property
    def _threads(self) -> AbstractContextManager[None]:
        whole = any(isinstance(layer, DenseLinear) for layer in self.layers)
        return one_thread() if whole else nullcontext()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch); the inputs of all layers are kept for `backward`."""
        self.inputs = []
        with self._threads:
            for layer, activation in zip(self.layers, self.before, strict=True):
                if activation is not None:
                    x = activation(x if self.inputs else x.clone())
                self.inputs.append(x)
                x = layer.forward(x)
        return x

    def backward(self, given: Tensor) -> Tensor:
        """Set the gradients, from those of the outputs; returns that of the inputs."""
        with self._threads:
            for i, layer in reversed([*enumerate(self.layers)]):
                x, activation = self.inputs[i], self.before[i]
                layer.set_gradients(given, x)
                given = layer.input_gradient(given, x, relu=activation == RELU)
                if activation not in (None, RELU):
                    given = activation.back(given, x)
        return given
