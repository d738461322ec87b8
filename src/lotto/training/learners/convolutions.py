"""Convolutional networks without autograd, with the batch innermost: each step costs what its unpruned weights cost.

Activations lie channel × height × width × batch. A dense layer's sums stay in registers for four outputs at a time; a
layer of which few enough weights are left multiplies each of them with contiguous rows and nothing else. All parameters
are views of one vector, which the optimizer moves as a whole; gradients of pruned weights are never written and stay 0.
With the precision bfloat16, activations and their gradients lie in memory so; sums and statistics are float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lotto.core.jit import can_compile
from lotto.recipe.optimizers import OptimizerState
from lotto.training.job import Job, State
from lotto.training.learners.arithmetic import crossovers_of
from lotto.training.learners.base import SingleLearner
from lotto.training.learners.conv_networks import description_of
from lotto.training.learners.descriptions import channels_and_size, last_size
from lotto.training.learners.network_layers import Layers, views
from lotto.training.learners.perceptron import loss_of
from lotto.training.network import Network, has_own_data

_ALL = "parameters"
"""What the optimizer calls the vector of all parameters."""


class Convolutions(SingleLearner):
    """See `SingleLearner`.

    Args:
        jobs, network, states: see `Learner`; the network is not trained but evaluated.
        crossovers: see `Layers`; by default what is quicker, see `choice`.
    """

    feature_major = True

    def __init__(
        self,
        jobs: Sequence[Job],
        network: Network,
        states: Sequence[State],
        crossovers: Mapping[str, float] | None = None,
    ) -> None:
        from lotto.training.learners.network_pass import NetworkPass

        (self.job,), (start,) = jobs, states
        self.network = network
        module = network.module
        found = description_of(network, self.job.recipe.arrays.shape)
        assert found is not None  # `supports` has said so
        chosen = self.choice(self.job, network) if crossovers is None else crossovers
        self.crossovers = usual = chosen if isinstance(chosen, Mapping) else {}  # whoever names this learner means it
        self.layers = Layers(module, found, self.job.mask or {}, usual)
        self.parameters = self.layers.parameters
        self.optimizer_state = OptimizerState(
            self.job.recipe.optimizer, {_ALL: self.layers.flat}, self.job.recipe.clip_norm
        )
        self.restore(start.optimizer)
        self.loss = loss_of(self.job, outputs=self.layers.network.head.outputs)
        self.made = partial(NetworkPass, half=network.dtype == torch.bfloat16)
        self.passes: dict[int, Any] = {}

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """What `computes` says, where it is quicker."""
        return cls.computes(jobs, network) and cls.choice(jobs[0], network) is not False

    @staticmethod
    def choice(job: Job, network: Network) -> Mapping[str, float] | bool:
        """What is quicker here for a job that `computes` knows; see `training.job.Crossovers`."""
        found = description_of(network, job.recipe.arrays.shape)
        assert found is not None
        chosen = crossovers_of(job, network, found)
        return False if chosen is None else chosen

    @classmethod
    def computes(cls, jobs: Sequence[Job], network: Network) -> bool:
        """Data and loss of ours, convolutions that kernels compute on a CPU, all trained, weights masked."""
        recipe, module = jobs[0].recipe, network.module
        if not (
            len(jobs) == 1
            and has_own_data(recipe)
            and isinstance(recipe.loss, str)
            and not recipe.compile
            and network.device.type == "cpu"
            and network.dtype in (torch.float32, torch.bfloat16)
            and recipe.arithmetic != "dense"
            and can_compile()
        ):
            return False
        found = description_of(network, recipe.arrays.shape)
        return (
            found is not None
            and all(parameter.requires_grad for parameter in module.parameters())
            and recipe.batch_size * math.prod(last_size(module, found, recipe.arrays.shape)) > 1
            and all(mask.dim() > 1 for mask in (jobs[0].mask or {}).values())
        )

    def train_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """See `Learner.train_step`; inputs have the shape (features, batch)."""
        loss = self._backward(*batch)
        self.optimizer_state.step(self.job.recipe.learning_rate(step))
        return loss

    @torch.no_grad()
    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set the gradients and move the running statistics; returns the loss."""
        passes = self._passes(x.shape[1])
        loss, gradient = self.loss(passes.forward(x).t(), y)
        passes.backward(gradient.t())
        self.layers.steps += 1
        return loss

    def _passes(self, batch: int) -> Any:
        """Memory for a size of batch; kept for the last one."""
        if batch not in self.passes:
            inputs = channels_and_size(self.job.recipe.arrays.shape)
            self.passes = {batch: self.made(self.layers.network, *inputs, batch)}
        return self.passes[batch]

    def describe(self) -> str:
        half = ", activations in bfloat16" if self.network.dtype == torch.bfloat16 else ""
        return f"convolutions, {self.layers.sparse} of {self.layers.count} layers sparse{half}"

    def weights(self) -> dict[str, Tensor]:
        found = self.layers.tensors()
        return {name: found[name].clone() for name in self.network.module.state_dict()}

    def eval_network(self, i: int = 0) -> Network:
        self.network.load(self.weights())
        return self.network

    def state(self, i: int = 0) -> State:
        optimizer = {
            f"{name}/{what}": part.clone()
            for what, value in self.optimizer_state.states[_ALL].items()
            for name, part in zip(self.parameters, self._parts(value), strict=True)
        }
        return State(self.weights(), optimizer)

    def restore(self, optimizer: Mapping[str, Tensor]) -> None:
        for what, value in self.optimizer_state.states[_ALL].items():
            for name, part in zip(self.parameters, self._parts(value), strict=True):
                if f"{name}/{what}" in optimizer:
                    part.copy_(optimizer[f"{name}/{what}"])

    def _parts(self, value: Tensor) -> list[Tensor]:
        """An optimizer's tensor of the whole vector, by parameter; what is one number is all parameters'."""
        return views(value, self.parameters) if value.dim() else [value] * len(self.parameters)

    def to_dense(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    def from_dense(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.clone()
