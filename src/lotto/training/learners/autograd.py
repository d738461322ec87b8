"""Gradients of any module and any loss by autograd."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.rng import seed_torch, torch_seed
from lotto.core.weights import clone
from lotto.data.batch import Batch, count
from lotto.data.batch import examples as some
from lotto.models.norm_relu import by_operators
from lotto.recipe.optimizers import OptimizerState, is_one_of_ours
from lotto.recipe.totals import mean_of
from lotto.training.job import Job, State
from lotto.training.learners.base import SingleLearner
from lotto.training.learners.graphed import Graphed
from lotto.training.network import Network, is_ours, trainable_parameters
from lotto.training.reported import Average


class Autograd(SingleLearner):
    """See `SingleLearner`; the weights are those of the network's own module."""

    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State]) -> None:
        (self.job,), (state,) = jobs, states
        recipe = self.job.recipe
        self.network = network
        self.module = network.module.train()
        self.parameters = trainable_parameters(self.module)
        # The start is masked, and so are all gradients: with weights, momentum and moments at 0, no optimizer
        # can move a pruned weight, and weight decay has nothing to decay.
        by_name = dict(self.module.named_parameters(remove_duplicate=False))  # a tied weight has several names
        self.masked = [
            (by_name[n], network.like(m.to(by_name[n].dtype), by_name[n])) for n, m in (self.job.mask or {}).items()
        ]
        self.draws = not is_ours(recipe)  # someone's own model or loss may draw random numbers (dropout)
        self.optimizer_state = OptimizerState(recipe.optimizer, self.parameters, recipe.clip_norm)
        # An optimizer of someone's own may move a weight that has no gradient: decay towards another point, noise.
        moves_any = not is_one_of_ours(recipe.optimizer)
        names = {id(p): name for name, p in self.parameters.items()}
        self.cleared = [
            (p, m, self.optimizer_state.states.get(names.get(id(p), ""), {})) for p, m in self.masked if moves_any
        ]
        self.outputs = self._forward(self.module)
        self.restore(state.optimizer)
        self.average = None if recipe.ema is None else Average(recipe, network, state)

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """Whatever one network does."""
        return len(jobs) == 1

    def _forward(self, module: nn.Module) -> Network:
        """What gives the outputs of a module, perhaps compiled or replayed."""
        if self.job.recipe.graphs:
            return self.network.with_module(Graphed(module), caches_casts=False)
        if self.job.recipe.compile:
            by_operators(module)
            module = cast(nn.Module, torch.compile(module))
        return self.network.with_module(module)

    def train_step(self, batch: Batch, step: int) -> Tensor:
        recipe = self.job.recipe
        with _explained(recipe.name) if recipe.compile else contextlib.nullcontext():
            loss = self._backward(batch, step)
        self.optimizer_state.step(recipe.learning_rate(step))
        if self.cleared:
            self._clear()
        if self.average is not None:
            self.average.step()
        return loss

    @torch.no_grad()
    def _clear(self) -> None:
        """Put pruned weights, and what the optimizer remembers of them, back to 0."""
        for parameter, mask, state in self.cleared:
            parameter.mul_(mask)
            for remembered in state.values():
                if remembered.shape == mask.shape:
                    remembered.mul_(mask)

    def gradients(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Gradients of a step's batch by parameter, 0 where it is pruned; none for what has no part in the loss."""
        self._backward(batch, step)
        return {n: p.grad.to("cpu", copy=True).contiguous() for n, p in self.parameters.items() if p.grad is not None}

    def _backward(self, batch: Any, step: int) -> Tensor:
        """Set the gradients of a batch, 0 where the mask is; returns its loss."""
        loss = self._gradients(batch, step)
        if pairs := [(p.grad, m) for p, m in self.masked if p.grad is not None]:
            torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])
        return loss.detach()

    def _gradients(self, batch: Any, step: int) -> Tensor:
        x, y = batch
        if self.draws:
            seed_torch(torch_seed(self.job.order_seed, "forward", step), self.network.device)
        if self.job.recipe.accumulate > 1:
            return self._accumulated(x, y)
        loss = self.job.recipe.loss_function(self.outputs(x), y)
        self._clear_gradients()
        loss.backward()
        return loss

    def _clear_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None  # as zero_grad does, without its profiling

    def _accumulated(self, x: Any, y: Any) -> Tensor:
        """Set the gradients of the mean loss of a step's examples, as many at once as a batch has; returns that mean.

        Each part's mean counts as much as what it is a mean of: examples, targets that are not left out.
        """
        self._clear_gradients()
        recipe, size = self.job.recipe, self.job.recipe.batch_size
        mean, total, weight = mean_of(recipe.loss_function), torch.zeros((), dtype=torch.float64), 0.0
        for first in range(0, count(y), size):
            part, targets = (some(tree, first, first + size) for tree in (x, y))
            outputs = self.outputs(part)
            loss, weighs = (
                (recipe.loss_function(outputs, targets), count(targets)) if mean is None else mean(outputs, targets)
            )
            if not (weighs := float(weighs)):
                continue  # no target of it counts, so that it has no loss
            (loss * weighs).backward()
            total, weight = total + loss.detach().double().cpu() * weighs, weight + weighs
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if gradients:
            torch._foreach_div_(gradients, weight)
        return total / weight if weight else total * math.nan

    def describe(self) -> str:
        recipe = self.job.recipe
        compiled = ", compiled" if recipe.compile else ", CUDA graphs" if recipe.graphs else ""
        missing = (
            recipe.by_autograd_alone or self.network.described
        )  # why kernels of ours do not compute a network of convolutions
        return f"autograd{compiled}" + (f" (no kernels: {missing})" if isinstance(missing, str) and missing else "")

    def weights(self) -> dict[str, Tensor]:
        check_same_trained(self.module, self.parameters)
        network = self.eval_network() if self.average is None else self.network
        return clone(network.module.state_dict())

    def state(self, i: int = 0) -> State:
        found = super().state(i)
        return found if self.average is None else State(found.weights, {**found.optimizer, **self.average.entries()})

    def eval_network(self, i: int = 0) -> Network:
        return self.network if self.average is None else self.average.network()

    def to_dense(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", copy=True).contiguous()

    def from_dense(self, name: str, tensor: Tensor) -> Tensor:
        parameter = self.parameters[name]
        if tensor.shape == parameter.shape:
            return self.network.like(tensor, parameter)
        return tensor.clone().to(parameter.device)


def check_same_trained(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Raise ``UsageError`` if a forward has frozen or released a parameter: what is trained is settled before."""
    if changed := set(parameters) ^ {name for name, p in module.named_parameters() if p.requires_grad}:
        raise UsageError(
            f"The forward of {type(module).__name__} changes requires_grad of {sorted(changed)[0]!r}. What is trained "
            "is settled by the constructor; train the stages as runs of their own, each from the weights of the last."
        )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """A compiler that fails, or that is not there, in one sentence."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__
        raise UsageError(f"{name} cannot be compiled: {reason}. Train it without compile.") from error
