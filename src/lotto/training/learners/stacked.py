"""Gradients of several networks of one architecture at once, along a leading axis (`torch.func.vmap`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lotto.core.errors import UsageError
from lotto.core.rng import host_state
from lotto.models.norm_relu import by_operators
from lotto.models.plain import has_separate_parameters, is_unhooked
from lotto.recipe.optimizers import OptimizerState, is_one_of_ours
from lotto.training.job import Job, State
from lotto.training.learners.base import Learner
from lotto.training.network import Network, trainable_parameters
from lotto.training.reported import KEPT

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-2, torch.bfloat16: 0.3}
"""Up to which a stack's first gradients may differ from those of a network by itself: by rounding, and by ReLUs and
maxima that rounding turns to the other side."""
NEGLIGIBLE = 0.05
"""A gradient of less than this share of the largest may be nothing but rounding."""


class Stacked(Learner):
    """Parameters of shape (networks, ...), optimizer and masks likewise; see `Learner`.

    Every network's arithmetic is its own, but sums are taken by other kernels than for one: the outcome equals that of
    `Autograd` up to rounding, and may depend on how many train together. Each job has its own mask and data order;
    numbers that an optimizer keeps for a whole tensor are the same for all.
    """

    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State]) -> None:
        self.jobs, self.recipe, self.network = jobs, jobs[0].recipe, network
        module = self.network.module.train()
        if not (is_unhooked(module) and has_separate_parameters(module)):
            raise self._refused("it has hooks, or parameters that share their memory.")
        if not self.recipe.arrays.has_tensors:
            raise self._refused("a batch has several tensors.")
        if self.recipe.accumulate > 1:
            raise self._refused("a step sees several batches (accumulate).")
        if self.recipe.batch_groups > 1:
            raise self._refused("a batch is computed in groups (batch_groups).")
        if self.recipe.ema is not None:
            raise self._refused("weights are averaged along the training (ema).")
        if self.recipe.patience is not None:
            raise self._refused("each network would stop at a step of its own (patience).")
        if not is_one_of_ours(self.recipe.optimizer):
            raise self._refused("its optimizer would get the weights of all networks as one tensor.")
        self.proved, self.places, self.undrawn = False, _places(module), host_state()
        by_operators(module)
        parameters: list[dict[str, Tensor]] = []
        buffers: list[dict[str, Tensor]] = []
        for state in states:
            self.network.load(state.weights)
            parameters.append({n: p.detach().clone() for n, p in module.named_parameters()})
            buffers.append({n: b.detach().clone() for n, b in module.named_buffers()})
        trained = trainable_parameters(module)
        self.whole = {n: t.requires_grad_(n in trained) for n, t in _stacked(parameters).items()}
        self.parameters = {n: t for n, t in self.whole.items() if n in trained}
        self.buffers = _stacked(buffers)
        self.masked = self._masks()
        self.optimizer_state = OptimizerState(self.recipe.optimizer, self.parameters, self.recipe.clip_norm, len(jobs))
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
                parameter = self.whole[by_name[name]]
                if by_name[name] not in found:
                    found[by_name[name]] = torch.ones_like(parameter, requires_grad=False)
                found[by_name[name]][i] *= mask.to(parameter.device, parameter.dtype)
        return [(self.whole[n], m) for n, m in found.items()]

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
            raise self._refused((str(error).splitlines() or [type(error).__name__])[0]) from error
        if not self.proved and host_state() != self.undrawn:
            raise self._refused("it draws from Python's random or from numpy.random, each network its own numbers.")
        losses.sum().backward()
        if not self.proved:
            self._prove(x[0], y[0], losses[0].detach())
        if self.masked:
            pairs = [(p.grad, m) for p, m in self.masked if p.grad is not None]
            torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])
        self.optimizer_state.step(self.recipe.learning_rate(step))
        return losses.detach()

    def _refused(self, why: str) -> UsageError:
        return UsageError(f"{self.recipe.name} cannot train stacked: {why} Use a stack of 1.")

    def _prove(self, x: Tensor, y: Tensor, loss: Tensor) -> None:
        """Raise ``UsageError`` unless the first network, called by itself, has the same loss and gradients.

        A stack gives a module other tensors in the place of its parameters; a module that reads its own in another
        way (from a list that it keeps, say) or changes their gradients is seen here, at the first step.
        """
        module = self.eval_network(0).module
        single = self.recipe.loss_function(self.network(x), y)
        single.backward()
        own = dict(module.named_parameters())
        pairs = [(own[n].grad, None if p.grad is None else p.grad[0]) for n, p in self.parameters.items()]
        pairs = [(a, b) for a, b in pairs if a is not None or b is not None]
        module.zero_grad(set_to_none=True)
        near = TOLERANCE[self.network.dtype]
        size = max((float(g.norm()) for pair in pairs for g in pair if g is not None), default=0.0)
        gaps = [
            a is None or b is None or float((a - b).norm()) > near * (float(a.norm()) + NEGLIGIBLE * size)
            for a, b in pairs
        ]
        finite = bool(torch.isfinite(loss)) and bool(torch.isfinite(single)) and math.isfinite(size)
        if finite and (any(gaps) or not torch.isclose(single.detach(), loss, rtol=near, atol=near)):
            raise self._refused("a network of the stack computes something else than by itself.")
        self.proved = True

    def _outputs(self, x: Tensor) -> Tensor:
        dtype, module, places = self.network.dtype, self.network.module, self.places
        if x.is_floating_point() and dtype == torch.float64:
            x = x.double()

        def outputs(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            tensors = {**parameters, **buffers}
            found: Tensor = functional_call(
                module, {place: tensors[name] for place, name in places}, (x,), tie_weights=False
            )
            return found

        mapped = vmap(outputs, randomness="error")
        if dtype != torch.bfloat16:
            return mapped(self.whole, self.buffers, x)
        with torch.autocast(x.device.type, torch.bfloat16):
            found = mapped(self.whole, self.buffers, x)
        return found.float()

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Learner.batches`: those of all data orders; equal orders share one."""
        self.undrawn = host_state()
        seeds, recipe = [job.order_seed for job in self.jobs], self.recipe
        data = recipe.arrays.to(self.network.device)
        streams = {s: data.batches(s, first, last, recipe.batch_size, recipe.augment) for s in dict.fromkeys(seeds)}
        for found in zip(*streams.values(), strict=True):
            if len(found) == 1:
                yield tuple(t.expand(len(seeds), *t.shape) for t in found[0])
                continue
            by_seed = dict(zip(streams, found, strict=True))
            yield torch.stack([by_seed[s][0] for s in seeds]), torch.stack([by_seed[s][1] for s in seeds])

    def weigh(self, batch: tuple[Tensor, Tensor], weight: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([weight(targets) for targets in batch[1]])

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
            parameter.copy_(self.whole[name][i])
        for name, buffer in module.named_buffers():
            buffer.copy_(self.buffers[name][i])
        return self.network

    @torch.no_grad()
    def _restore(self, i: int, optimizer: Mapping[str, Tensor]) -> None:
        for name, tensor in optimizer.items():
            parameter, _, what = name.rpartition("/")
            if parameter in self.optimizer_state.states and what not in KEPT:
                kept = self.optimizer_state.states[parameter][what]
                (kept[i] if kept.dim() else kept).copy_(tensor)


def steps_taken(state: State) -> float:
    """How many steps a state's optimizer has behind it, if it counts them: those that differ cannot be stacked."""
    return max((float(t) for n, t in state.optimizer.items() if n.endswith("/step")), default=0.0)


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}


def _places(module: nn.Module) -> list[tuple[str, str]]:
    """Where parameters and buffers stand in a module, each place once, and the one name under which each is stacked.

    A tied weight stands in several places; a layer that has two names is one place.
    """
    found: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    for layer, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                place = f"{layer}.{name}" if layer else name
                found.append((place, names.setdefault(id(tensor), place)))
    return found
