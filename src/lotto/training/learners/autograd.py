"""Gradients of any module and any loss by autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.rng import torch_seed
from lotto.core.weights import clone
from lotto.models.norm_relu import by_operators
from lotto.recipe.optimizers import OptimizerState
from lotto.training.job import Job
from lotto.training.learners.channel_skipping import WORTH, Compacted, compacted
from lotto.training.network import Network


class Autograd:
    """What the loop trains: steps of the optimizer on batches, the weights as a state dict.

    Args:
        job: what is trained.
        network: its module, with the start's weights.
        worth: share of the multiplications below which it is trained without the units that nothing reads.
    """

    by_feature = False
    """Inputs have the batch first."""

    def __init__(self, job: Job, network: Network, worth: float = WORTH) -> None:
        self.job, self.network = job, network
        self.module = network.module.train()
        self.parameters: dict[str, Tensor] = dict(self.module.named_parameters())
        # The start is masked, and so are all gradients: with weights, momentum and moments at 0, no optimizer
        # can move a pruned weight, and weight decay has nothing to decay.
        by_name = dict(self.module.named_parameters(remove_duplicate=False))  # a tied weight has several names
        self.masked = [
            (by_name[n], network.like(m.to(by_name[n].dtype), by_name[n])) for n, m in (job.mask or {}).items()
        ]
        # Someone's own model or loss may draw random numbers (dropout); ours do not.
        self.draws = not (isinstance(job.recipe.model, str) and isinstance(job.recipe.loss, str))
        self.updates = OptimizerState(job.recipe.optimizer, self.parameters)
        self.whole = self._forward(self.module)
        self.small = compacted(job, network, worth)
        self.reduced = self.whole if self.small is None else self._forward(self.small)
        self.outputs = self.reduced

    def _forward(self, module: nn.Module) -> Network:
        if self.job.recipe.compile:
            by_operators(module)
            module = cast(nn.Module, torch.compile(module))
        return self.network.with_module(module)

    def train(self, x: Tensor, y: Tensor, step: int, lr: float) -> Tensor:
        """One step on a batch; returns its loss."""
        if self.small is not None:
            self._choose(self.small, step)
        with _explained(self.job.recipe.name) if self.job.recipe.compile else contextlib.nullcontext():
            loss = self._backward(x, y, step)
        self.updates.step(lr)
        return loss

    def _choose(self, small: Compacted, step: int) -> None:
        """The whole network for the last steps before a state is kept, see `compacted`; else what is left of it."""
        settling = any(kept - small.memory <= step < kept for kept in self.job.steps)
        if settling and self.outputs is not self.whole:
            small.put_back()
            self.outputs = self.whole
        elif not settling and self.outputs is self.whole:
            small.take()
            self.outputs = self.reduced

    def _backward(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Set the gradients of a batch; returns its loss."""
        if self.draws:
            torch.manual_seed(torch_seed(self.job.order_seed, "forward", step))
        loss = self.job.recipe.loss_function(self.outputs(x), y)
        for parameter in self.parameters.values():
            parameter.grad = None  # as zero_grad does, without its profiling
        loss.backward()
        if self.masked:
            pairs = [(p.grad, m) for p, m in self.masked if p.grad is not None]
            torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])
        return loss.detach()

    def describe(self) -> str:
        """For the record of a run."""
        less = "" if self.small is None else f", {self.small.share:.1%} of the multiplications"
        return "autograd" + less + (", compiled" if self.job.recipe.compile else "")

    def weights(self) -> dict[str, Tensor]:
        """A copy of the whole state dict, on the CPU."""
        return clone(self.evaluated().module.state_dict())

    def evaluated(self) -> Network:
        """The network to evaluate."""
        if self.small is not None and self.outputs is not self.whole:
            self.small.put_back()
        return self.network

    def expand(self, name: str, tensor: Tensor) -> Tensor:
        """An optimizer's tensor in the shape of the weight ``name``, on the CPU."""
        return tensor.detach().to("cpu", copy=True).contiguous()

    def compress(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `expand`."""
        parameter = self.parameters[name]
        if tensor.shape == parameter.shape:
            return self.network.like(tensor, parameter)
        return tensor.clone().to(parameter.device)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """A compiler that fails, or that is not there, in one sentence."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__
        raise UsageError(f"{name} cannot be compiled: {reason}. Train it without compile.") from error
