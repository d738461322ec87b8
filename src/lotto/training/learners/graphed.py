"""A module whose forward and backward are replayed as CUDA graphs.

A small network's step is hundreds of kernels of microseconds each, and a card waits for the processor that starts them.
torch records a forward and a backward once, with buffers that stay where they are, and starts all of it by one call
(`torch.cuda.make_graphed_callables`). What is recorded knows one shape of inputs; others are computed as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.weights import clone
from lotto.recipe.recipe import Recipe
from lotto.training.network import device_of, is_ours

CLOSE = 0.05
"""A recorded pass may be so far from one that is not, in norms: bfloat16 sums of another order are ten times nearer."""


class Graphed(nn.Module):
    """A module that is recorded at its first batch in training mode.

    Args:
        module: its forward takes one tensor, gives one, and draws no random numbers.

    Raises:
        UsageError: at the first batch, if what is replayed gives other outputs or gradients than the module itself.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._replayed: _Shell | None = None
        self._known: tuple[Any, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the module; gradients flow to its parameters."""
        if not (self.module.training and torch.is_grad_enabled()):
            return cast(Tensor, self.module(x))
        replayed = self._replayed or self._record(x)
        return cast(Tensor, replayed(x) if _kind(x) == self._known else self.module(x))

    def _record(self, x: Tensor) -> _Shell:
        """Record passes of a batch like ``x``; the module's buffers, which trial passes move, are as before."""
        with _untouched(self.module):
            expected = _passed(self.module, self.module, x)
            shell = _Shell(self.module)
            torch.cuda.make_graphed_callables(shell, (torch.empty_like(x).copy_(x),))
        with _untouched(self.module):
            found = _passed(shell, self.module, x)
        for one, other in zip(found, expected, strict=True):
            if not float((one - other).norm()) <= CLOSE * float(other.norm()):  # NaN is no agreement either
                raise UsageError(
                    f"Replayed as CUDA graphs, {type(self.module).__name__} gives other outputs or gradients than "
                    "without: does its forward depend on more than its input? Train it without graphs."
                )
        self._replayed, self._known = shell, _kind(x)
        return shell


class _Shell(nn.Module):
    """What is recorded in the module's place, whose own forward stays as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))


def check_graphs(recipe: Recipe, ranks: int = 1) -> None:
    """Raise ``UsageError`` where steps cannot be replayed: on a processor, in parts, of a module not ours."""
    if not recipe.graphs:
        return
    if ranks > 1:
        raise UsageError(f"graphs=True replays whole batches: {ranks} processes that have parts of them go without it.")
    if device_of(recipe).type != "cuda":
        raise UsageError("graphs=True replays CUDA graphs, which needs a GPU: take device='cuda', or leave it out.")
    if not is_ours(recipe):
        raise UsageError(
            "graphs=True is for lotto's own models, losses and data: what a forward of yours draws at random, or "
            "decides by its input, would be replayed as it was at the first batch. Take compile=True, or leave it out."
        )


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Put buffers and gradients back afterwards."""
    buffers = clone(dict(module.named_buffers()))
    gradients = [p.grad for p in module.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient


def _passed(run: nn.Module, module: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs of a batch, and the gradients of half their squared norm, as copies."""
    for parameter in module.parameters():
        parameter.grad = None
    outputs = run(x)
    outputs.float().square().sum().div(2).backward()
    gradients = [p.grad.detach().clone() for p in module.parameters() if p.grad is not None]
    return [outputs.detach().clone(), *gradients]


def _kind(x: Tensor) -> tuple[Any, ...]:
    """What a recording depends on: shape, layout, type."""
    return (x.shape, x.stride(), x.dtype, x.device)
