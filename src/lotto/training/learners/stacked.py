"""Gradients of several networks of one architecture at once, along a leading axis (`torch.func.vmap`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from lotto.core.errors import UsageError
from lotto.models.norm_relu import by_operators
from lotto.recipe.optimizers import OptimizerState
from lotto.training.job import Job, State
from lotto.training.learners.base import Learner
from lotto.training.network import Network


class Stacked(Learner):
    """Parameters of shape (networks, ...), optimizer and masks likewise; see `Learner`.

    Every network's arithmetic is its own, but sums are taken by other kernels than for one: the outcome equals that of
    `Autograd` up to rounding, and may depend on how many train together. Each job has its own mask and data order;
    numbers that an optimizer keeps for a whole tensor are the same for all.
    """

    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State]) -> None:
        self.jobs, self.recipe, self.network = jobs, jobs[0].recipe, network
        module = self.network.module.train()
        by_operators(module)
        parameters: list[dict[str, Tensor]] = []
        buffers: list[dict[str, Tensor]] = []
        for state in states:
            self.network.load(state.weights)
            parameters.append({n: p.detach().clone() for n, p in module.named_parameters()})
            buffers.append({n: b.detach().clone() for n, b in module.named_buffers()})
        self.parameters = {n: t.requires_grad_() for n, t in _stacked(parameters).items()}
        self.buffers = _stacked(buffers)
        self.masked = self._masks()
        self.optimizer_state = OptimizerState(self.recipe.optimizer, self.parameters)
        for i, state in enumerate(states):
            self._restore(i, state.optimizer)

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """Several networks; whether they can be mapped over is seen at the first step."""
        return len(jobs) > 1

    def _masks(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs of a parameter and its mask of the same shape, all ones for jobs without one."""
        tied = {id(p): n for n, p in self.network.module.named_parameters()}
        by_name = {
            n: tied[id(p)] for n, p in self.network.module.named_parameters(remove_duplicate=False)
        }  # a tied weight has several names, one of which is stacked
        found: dict[str, Tensor] = {}
        for i, job in enumerate(self.jobs):
            for name, mask in (job.mask or {}).items():
                parameter = self.parameters[by_name[name]]
                if by_name[name] not in found:
                    found[by_name[name]] = torch.ones_like(parameter, requires_grad=False)
                found[by_name[name]][i] *= mask.to(parameter.device, parameter.dtype)
        return [(self.parameters[n], m) for n, m in found.items()]

    def train_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """See `Learner.train_step`; each network has a batch of its own, shape (networks, batch, ...).

        Raises:
            UsageError: if the module or the loss cannot be mapped over networks, or draws random numbers.
        """
        x, y = batch
        for parameter in self.parameters.values():
            parameter.grad = None
        try:
            losses = vmap(self.recipe.loss_function)(self._outputs(x), y)
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            lines = str(error).splitlines() or [type(error).__name__]
            raise UsageError(f"{self.recipe.name} cannot train stacked: {lines[0]} Use a stack of 1.") from error
        losses.sum().backward()
        if self.masked:
            pairs = [(p.grad, m) for p, m in self.masked if p.grad is not None]
            torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])
        self.optimizer_state.step(self.recipe.learning_rate(step))
        return losses.detach()

    def _outputs(self, x: Tensor) -> Tensor:
        dtype, module = self.network.dtype, self.network.module
        if x.is_floating_point() and dtype == torch.float64:
            x = x.double()

        def outputs(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            found: Tensor = functional_call(module, {**parameters, **buffers}, (x,))
            return found

        mapped = vmap(outputs, randomness="error")
        if dtype != torch.bfloat16:
            return mapped(self.parameters, self.buffers, x)
        with torch.autocast(x.device.type, torch.bfloat16):
            found = mapped(self.parameters, self.buffers, x)
        return found.float()

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Learner.batches`: those of all data orders; equal orders share one."""
        seeds, recipe = [job.order_seed for job in self.jobs], self.recipe
        data = recipe.arrays.to(self.network.device)
        streams = {s: data.batches(s, first, last, recipe.batch_size, recipe.augment) for s in dict.fromkeys(seeds)}
        for found in zip(*streams.values(), strict=True):
            if len(found) == 1:
                yield tuple(t.expand(len(seeds), *t.shape) for t in found[0])
                continue
            by_seed = dict(zip(streams, found, strict=True))
            yield torch.stack([by_seed[s][0] for s in seeds]), torch.stack([by_seed[s][1] for s in seeds])

    def state(self, i: int) -> State:
        optimizer = {
            f"{name}/{what}": (value[i] if value.dim() else value).detach().to("cpu", copy=True)
            for name, tensors in self.optimizer_state.states.items()
            for what, value in tensors.items()
        }
        weights = self.eval_network(i).module.state_dict()
        return State({n: t.detach().to("cpu", copy=True).contiguous() for n, t in weights.items()}, optimizer)

    def describe(self) -> str:
        return f"stacked, {len(self.jobs)} together"

    @torch.no_grad()
    def eval_network(self, i: int) -> Network:
        module = self.network.module
        for name, parameter in module.named_parameters():
            parameter.copy_(self.parameters[name][i])
        for name, buffer in module.named_buffers():
            buffer.copy_(self.buffers[name][i])
        return self.network

    @torch.no_grad()
    def _restore(self, i: int, optimizer: Mapping[str, Tensor]) -> None:
        for name, tensor in optimizer.items():
            parameter, _, what = name.rpartition("/")
            kept = self.optimizer_state.states[parameter][what]
            (kept[i] if kept.dim() else kept).copy_(tensor)


def steps_taken(state: State) -> float:
    """How many steps a state's optimizer has behind it, if it counts them: those that differ cannot be stacked."""
    return max((float(t) for n, t in state.optimizer.items() if n.endswith("/step")), default=0.0)


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}
