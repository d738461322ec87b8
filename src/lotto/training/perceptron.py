"""Multi-layer perceptrons without autograd: the same sums in fewer steps, and only unpruned ones where few are left.

A layer whose density is below `SPARSE` trains its unpruned weights alone: they are one vector, products go through
sparse kernels (compressed rows), and optimizer and momentum see nothing else. Its cost falls with its density.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from lotto.job import Job
from lotto.models.mlp import MLP
from lotto.training.network import Network
from lotto.weights import clone

SPARSE = 0.12
"""Density below which a layer multiplies sparsely: about where both cost the same (`lotto bench sparse`)."""
SPARSE_GRADIENT = 0.08
"""Density below which the gradient of its weights is computed at the unpruned ones only."""


def suits(job: Job, network: Network) -> bool:
    """Whether a job's network is a perceptron of ours with its usual loss, on a CPU, in full precision."""
    plain = type(network.module) is MLP and job.recipe.loss == "cross-entropy"
    return plain and network.device.type == "cpu" and network.dtype != torch.bfloat16


class Perceptron:
    """What the loop trains, see `Autograd`.

    Args:
        job: what is trained.
        network: its module, with the start's weights; it is not trained but evaluated.
    """

    def __init__(self, job: Job, network: Network) -> None:
        self.network = network
        state = {n: t.detach().clone() for n, t in network.module.state_dict().items()}
        names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
        mask: Mapping[str, Tensor] = job.mask or {}
        self.layers = [_layer(state, name, mask.get(f"{name}.weight")) for name in names]
        self.by_name = dict(zip(names, self.layers, strict=True))
        self.parameters = {
            f"{name}.{part}": getattr(layer, part)
            for name, layer in self.by_name.items()
            for part in ("weight", "bias")
        }
        self.by_feature = any(isinstance(layer, SparseLayer) for layer in self.layers)

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Set the gradients of a batch; returns its loss (cross-entropy, mean over the batch)."""
        x = x.flatten(1).to(self.network.dtype)
        # Targets are classes or their probabilities.
        targets = y if y.is_floating_point() else F.one_hot(y, self.layers[-1].bias.shape[0])
        targets = targets.to(x.dtype)
        if self.by_feature:
            return self._by_feature(x, targets)
        return self._by_example(x, targets)

    def _by_example(self, x: Tensor, targets: Tensor) -> Tensor:
        """Activations of shape (batch, features): dense layers."""
        activations = [x]
        for layer in self.layers[:-1]:
            activations.append(torch.addmm(layer.bias, activations[-1], layer.weight.t()).relu_())
        last = self.layers[-1]
        outputs = torch.log_softmax(torch.addmm(last.bias, activations[-1], last.weight.t()), 1)
        loss = -(outputs * targets).sum() / len(x)
        gradient = outputs.exp_().mul_(targets.sum(1, keepdim=True)).sub_(targets).div_(len(x))
        for i in reversed(range(len(self.layers))):
            layer, below = self.layers[i], activations[i]
            layer.set_gradients(torch.mm(gradient.t(), below), gradient.sum(0))
            if i:
                gradient = torch.mm(gradient, layer.weight)
                gradient = torch.ops.aten.threshold_backward(gradient, below, 0)
        return loss

    def _by_feature(self, x: Tensor, targets: Tensor) -> Tensor:
        """Activations of shape (features, batch): what sparse rows multiply fastest."""
        targets = targets.t()
        activations = [x.t().contiguous()]
        for layer in self.layers[:-1]:
            activations.append(layer.forward(activations[-1]).relu_())
        outputs = torch.log_softmax(self.layers[-1].forward(activations[-1]), 0)
        loss = -(outputs * targets).sum() / len(x)
        gradient = outputs.exp_().mul_(targets.sum(0, keepdim=True)).sub_(targets).div_(len(x))
        for i in reversed(range(len(self.layers))):
            layer, below = self.layers[i], activations[i]
            layer.set_gradients(layer.weight_gradient(gradient, below), gradient.sum(1))
            if i:
                gradient = torch.ops.aten.threshold_backward(layer.input_gradient(gradient), below, 0)
        return loss

    def weights(self) -> dict[str, Tensor]:
        """A copy of the whole state dict."""
        return clone({n: self.expand(n, p) for n, p in self.parameters.items()})

    def evaluated(self) -> Network:
        """The network to evaluate, with the present weights."""
        self.network.load(self.weights())
        return self.network

    def expand(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the parameter ``name`` in the shape of the weight, pruned ones 0; a copy."""
        layer, part = self.by_name[name.rpartition(".")[0]], name.rpartition(".")[2]
        if part == "weight" and isinstance(layer, SparseLayer) and tensor.shape == layer.weight.shape:
            return layer.expand(tensor)
        return tensor.detach().clone()

    def compress(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `expand`."""
        layer, part = self.by_name[name.rpartition(".")[0]], name.rpartition(".")[2]
        if part == "weight" and isinstance(layer, SparseLayer) and tensor.dim() == 2:
            return tensor.flatten()[layer.places].clone()
        return tensor.clone()


class DenseLayer:
    """A layer with all its weights, shape (outputs, inputs), and perhaps a mask."""

    def __init__(self, weight: Tensor, bias: Tensor, mask: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.mask = None if mask is None or bool(mask.all()) else mask.to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (inputs, batch) to (outputs, batch)."""
        return torch.addmm(self.bias[:, None], self.weight, x)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Shape (outputs, batch) to (inputs, batch)."""
        return torch.mm(self.weight.t(), gradient)

    def weight_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """From shapes (outputs, batch) and (inputs, batch)."""
        return torch.mm(gradient, x.t())

    def set_gradients(self, weight: Tensor, bias: Tensor) -> None:
        """Masked, so that pruned weights and their momentum stay 0."""
        self.weight.grad = weight if self.mask is None else weight.mul_(self.mask)
        self.bias.grad = bias


class SparseLayer:
    """A layer whose parameter is the vector of its unpruned weights, in the order of the mask's rows."""

    def __init__(self, weight: Tensor, bias: Tensor, mask: Tensor) -> None:
        self.shape, self.bias = weight.shape, bias
        self.places = mask.flatten().nonzero().squeeze(1)
        self.weight = weight.flatten()[self.places]
        self.rows = _rows(mask, self.weight)
        order = torch.arange(len(self.places)).new_zeros(mask.shape)
        order[mask] = torch.arange(len(self.places))
        self.turned = order.t()[mask.t()]  # the order of the transposed matrix's rows
        self.columns = _rows(mask.t(), self.weight[self.turned])
        self.few = len(self.places) < SPARSE_GRADIENT * mask.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Shape (inputs, batch) to (outputs, batch)."""
        return torch.addmm(self.bias[:, None].expand(-1, x.shape[1]), self.rows, x)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Shape (outputs, batch) to (inputs, batch)."""
        torch.index_select(self.weight, 0, self.turned, out=self.columns.values())
        return self.columns @ gradient

    def weight_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """At the unpruned weights, from shapes (outputs, batch) and (inputs, batch)."""
        if self.few:
            return torch.sparse.sampled_addmm(self.rows, gradient, x.t(), beta=0.0).values()
        return torch.mm(gradient, x.t()).view(-1).index_select(0, self.places)

    def set_gradients(self, weight: Tensor, bias: Tensor) -> None:
        """There is nothing to mask."""
        self.weight.grad, self.bias.grad = weight, bias

    def expand(self, values: Tensor) -> Tensor:
        """Values at the unpruned places of a weight, 0 elsewhere."""
        return values.new_zeros(self.shape.numel()).index_copy_(0, self.places, values.detach()).view(self.shape)


def _rows(mask: Tensor, values: Tensor) -> Tensor:
    """Compressed rows that share the memory of ``values``."""
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(ends, mask.nonzero()[:, 1].int(), values, mask.shape, check_invariants=True)


def _layer(state: dict[str, Tensor], name: str, mask: Tensor | None) -> DenseLayer | SparseLayer:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if mask is not None and 0 < int(mask.sum()) < SPARSE * mask.numel():
        return SparseLayer(weight, bias, mask)
    return DenseLayer(weight, bias, mask)
