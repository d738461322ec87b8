"""Multi-layer perceptrons without autograd: the same sums in fewer steps, and only unpruned ones where few are left.

A layer whose density is below a crossover trains its unpruned weights alone (`sparse_linear`): they are one vector, and
optimizer and momentum see nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.models.fully_connected import is_plain_mlp
from lotto.recipe.objectives import Objective
from lotto.recipe.optimizers import SGD, OptimizerState
from lotto.training.job import Job, State
from lotto.training.learners.base import SingleLearner
from lotto.training.learners.cross_entropy import by_operators, cross_entropy
from lotto.training.learners.sparse_linear import SMALL, SPARSE, SparseLayer, is_faster_sparse
from lotto.training.network import Network


class Perceptron(SingleLearner):
    """See `SingleLearner`.

    Args:
        jobs, network, states: see `Learner`; the network is not trained but evaluated.
        crossover: density below which a layer is sparse.
        small: where one layer is sparse, so are those with at most so many weights left.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        network: Network,
        states: Sequence[State],
        crossover: float = SPARSE,
        small: int = SMALL,
    ) -> None:
        (self.job,), (start,) = jobs, states
        self.network = network
        optimizer = self.job.recipe.optimizer
        state = {n: t.detach().clone() for n, t in network.module.state_dict().items()}
        names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
        crossover = 0.0 if self.job.recipe.arithmetic == "dense" else crossover
        named = _layers(state, names, self.job.mask or {}, crossover, small)
        self.layers: list[Any] = list(named.values())
        self.loss = loss_of(self.job, outputs=len(self.layers[-1].bias))
        self.parameters = {
            f"{name}.{part}": getattr(layer, part) for name, layer in named.items() for part in ("weight", "bias")
        }
        self.sparse = {f"{name}.weight": layer for name, layer in named.items() if isinstance(layer, SparseLayer)}
        self.feature_major = bool(self.sparse)
        self.optimizer_state = OptimizerState(optimizer, self.parameters, self.job.recipe.clip_norm)
        # Without momentum and decay the products themselves move the weights, and gradients are nowhere.
        self.plain = (
            isinstance(optimizer, SGD) and optimizer.plain and self.job.recipe.clip_norm is None
        )  # of our class: `learner_of`
        self.restore(start.optimizer)

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """One network, loss and data of ours: a perceptron on a CPU in full precision, all trained, weights masked."""
        recipe, module = jobs[0].recipe, network.module
        ours = len(jobs) == 1 and isinstance(recipe.loss, str) and type(recipe.arrays) in (Arrays, ImageFolder)
        precise = network.device.type == "cpu" and network.dtype != torch.bfloat16
        return (
            ours
            and precise
            and is_plain_mlp(module, network.dtype)
            and all(parameter.requires_grad for parameter in module.parameters())
            and all(name.endswith(".weight") for name in jobs[0].mask or {})
        )

    def train_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """See `Learner.train_step`; inputs have the shape (features, batch) where `feature_major`."""
        lr = self.job.recipe.learning_rate(step)
        if self.plain:
            return self._backward(*batch, lr)
        loss = self._backward(*batch)
        self.optimizer_state.step(lr)
        return loss

    @torch.no_grad()
    def _backward(self, x: Tensor, y: Tensor, lr: float | None = None) -> Tensor:
        """Set the gradients, or with a learning rate go down along them at once; returns the loss."""
        activations = [(x if self.feature_major else x.flatten(1)).to(self.network.dtype)]
        for layer in self.layers:
            forward = layer.forward_feature_major if self.feature_major else layer.forward
            activations.append(forward(activations[-1], layer is not self.layers[-1]))
        outputs = activations.pop()
        loss, gradient = self.loss(outputs.t() if self.feature_major else outputs, y)
        if self.feature_major:
            gradient = gradient.t()
        for layer, below in zip(reversed(self.layers), reversed(activations), strict=True):
            given = gradient
            if layer is not self.layers[0]:
                gradient = layer.input_gradient(given, below, self.feature_major)
            if lr is None:
                layer.set_gradients(given, below, self.feature_major)
            else:
                layer.sgd_step(given, below, self.feature_major, lr)
        return loss

    def describe(self) -> str:
        return f"perceptron, {len(self.sparse)} of {len(self.layers)} layers sparse"

    def weights(self) -> dict[str, Tensor]:
        return {name: self.to_dense(name, parameter) for name, parameter in self.parameters.items()}

    def eval_network(self, i: int = 0) -> Network:
        self.network.load(self.weights())
        return self.network

    def to_dense(self, name: str, tensor: Tensor) -> Tensor:
        if name in self.sparse and tensor.dim() == 1:
            return self.sparse[name].to_dense(tensor)
        return tensor.detach().clone()

    def from_dense(self, name: str, tensor: Tensor) -> Tensor:
        if name in self.sparse and tensor.dim() == 2:
            return tensor.flatten()[self.sparse[name].indices]
        return tensor.clone()


def loss_of(job: Job, outputs: float = math.inf) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What gives the loss of so many outputs and its gradient."""
    data = job.recipe.arrays
    if job.recipe.loss != "cross-entropy" or not data.class_targets:
        return partial(differentiated, job.recipe.loss_function)
    # torch leaves out class -100, and refuses a class without an output; the kernel looks for neither. A subclass's
    # batches may have other targets than its arrays.
    every = type(data) is ImageFolder or (type(data) is Arrays and int(data.y["train"].min()) >= 0)
    return cross_entropy if every and data.classes <= outputs else by_operators


@torch.enable_grad()
def differentiated(loss_function: Objective, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Any loss and its gradient with respect to the outputs, by autograd."""
    outputs.requires_grad_()
    loss = loss_function(outputs, y)
    (gradient,) = torch.autograd.grad(loss, outputs)
    return loss.detach(), gradient


class DenseLayer:
    """A layer with all its weights, shape (outputs, inputs), and perhaps a mask."""

    def __init__(self, weight: Tensor, bias: Tensor, mask: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.transposed, self.column = weight.t(), bias[:, None]
        self.mask = None if bool(mask.all()) else mask.to(weight.dtype)

    def forward(self, x: Tensor, relu: bool) -> Tensor:
        """Shape (batch, inputs) to (batch, outputs), perhaps with ReLU."""
        outputs = torch.mm(x, self.transposed).add_(self.bias)  # a tenth quicker than addmm
        return outputs.relu_() if relu else outputs

    def forward_feature_major(self, x: Tensor, relu: bool) -> Tensor:
        """Shape (inputs, batch) to (outputs, batch), perhaps with ReLU."""
        outputs = torch.mm(self.weight, x).add_(self.column)
        return outputs.relu_() if relu else outputs

    def input_gradient(self, gradient: Tensor, x: Tensor, feature_major: bool) -> Tensor:
        """The gradient with respect to the layer's inputs, in the shape of these; 0 where ReLU made them 0."""
        passed = torch.mm(self.transposed, gradient) if feature_major else torch.mm(gradient, self.weight)
        return torch.ops.aten.threshold_backward.default(passed, x, 0)

    def set_gradients(self, gradient: Tensor, x: Tensor, feature_major: bool) -> None:
        """Masked, so that pruned weights and their momentum stay 0."""
        found = torch.mm(gradient, x.t()) if feature_major else torch.mm(gradient.t(), x)
        self.weight.grad = found if self.mask is None else found.mul_(self.mask)
        self.bias.grad = gradient.sum(1 if feature_major else 0)

    def sgd_step(self, gradient: Tensor, x: Tensor, feature_major: bool, lr: float) -> None:
        """A step of plain gradient descent, in which the product is added to the weights as it is made."""
        if feature_major:
            self.weight.addmm_(gradient, x.t(), alpha=-lr)
        else:
            self.weight.addmm_(gradient.t(), x, alpha=-lr)
        if self.mask is not None:
            self.weight.mul_(self.mask)
        self.bias.add_(gradient.sum(1 if feature_major else 0), alpha=-lr)


def _layers(
    state: Mapping[str, Tensor], names: Sequence[str], mask: Mapping[str, Tensor], crossover: float, small: int
) -> dict[str, DenseLayer | SparseLayer]:
    """Layers are sparse where that is faster; if one is, small ones are, too: the kernels' fixed costs are lower."""
    found = {}
    for name in names:
        weight, m = state[f"{name}.weight"], mask.get(f"{name}.weight")
        found[name] = torch.ones_like(weight, dtype=torch.bool) if m is None else m
    faster = {name for name, m in found.items() if is_faster_sparse(m, crossover)}
    if faster:
        faster |= {name for name, m in found.items() if 0 < int(m.sum()) <= small}
    return {
        name: (SparseLayer if name in faster else DenseLayer)(state[f"{name}.weight"], state[f"{name}.bias"], m)
        for name, m in found.items()
    }
