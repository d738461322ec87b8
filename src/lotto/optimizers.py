"""Optimizers as frozen data; torch.optim does the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lotto.errors import UsageError


@dataclass(frozen=True)
class Optimizer:
    """What every optimizer has: a peak learning rate that the schedule multiplies."""

    lr: float
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "nesterov" and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise UsageError(f"{name} of {type(self).__name__} is a number; got {value!r}.")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"A learning rate is greater than 0; got {self.lr!r}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"Weight decay is 0 or more; got {self.weight_decay!r}.")
        # With eps = 0 a pruned weight would be 0 / 0.
        if not getattr(self, "eps", 1.0) > 0:
            raise UsageError(f"eps is greater than 0; got {self.eps!r}.")  # type: ignore[attr-defined]

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Make the torch optimizer; torch checks what depends on several values."""
        raise UsageError(f"Pass one of SGD, Adam, AdamW, RMSprop; got {type(self).__name__}.")


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum; weight decay is added to the gradient."""

    momentum: float = 0.0
    nesterov: bool = False

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,  # one kernel per step: a third of a small network's step time on the CPU
        )
        if self.momentum:
            # The same first step as without a buffer; the fused kernel needs one even for a parameter whose first
            # gradient comes late.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
        return optimizer


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam; weight decay is added to the gradient."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def _arguments(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "betas": (self.beta1, self.beta2),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "fused": True,
        }

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **self._arguments())


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, **self._arguments())


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop with optional momentum."""

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            parameters,
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}
