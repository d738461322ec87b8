"""Optimizers as frozen data; the functions of torch.optim do the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from lotto.core.check import checked
from lotto.core.errors import UsageError, check_positional
from lotto.core.fingerprint import affects
from lotto.recipe.groups import Groups, checked_groups, grouped

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Optimizer:
    """What every optimizer has: a peak learning rate that the schedule multiplies, and groups of parameters.

    Attributes:
        lr: the peak learning rate.
        weight_decay: see each.
        groups: patterns over parameter names (several with ``|`` between them) with the fields that are others there:
            ``{"*.bias|*norm*": {"weight_decay": 0}, "head.*": {"lr": 0.01}}``. The first that matches a name counts; a
            pattern that matches none is refused. Parameters in groups are moved by autograd's learner, and in stacks.

    One of a user's own says what it remembers of a parameter, and takes a step in place; see docs/optimizers.md.

    >>> class Sign(Optimizer):
    ...     def init_state(self, parameter):
    ...         return {}
    ...     def update(self, parameters, gradients, states, lr):
    ...         for weight, gradient in zip(parameters, gradients):
    ...             weight.sub_(lr * gradient.sign())
    >>> weight = torch.zeros(2)
    >>> Sign(0.5).update([weight], [torch.tensor([3.0, -2.0])], [{}], 0.5)
    >>> weight
    tensor([-0.5000,  0.5000])
    """

    lr: float
    weight_decay: float = field(default=0.0, kw_only=True)
    groups: Groups | None = field(default=None, kw_only=True, repr=False, metadata=affects("training", unless=None))

    BY_POSITION: ClassVar[tuple[str, ...]] = ("lr",)

    def __new__(cls, *given: Any, **named: Any) -> Self:
        check_positional(cls, len(given), cls.BY_POSITION)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for f in fields(self):
            value, is_number = getattr(self, f.name), f.type in ("float", "int", float, int)
            if is_number and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise UsageError(f"{f.name} of {type(self).__name__} is a number; got {value!r}.")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"A learning rate is greater than 0; got {self.lr!r}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"Weight decay is 0 or more; got {self.weight_decay!r}.")
        # With eps = 0 a pruned weight would be 0 / 0.
        if not getattr(self, "eps", 1.0) > 0:
            raise UsageError(f"eps is greater than 0; got {self.eps!r}.")  # type: ignore[attr-defined]
        if self.groups is not None:
            object.__setattr__(self, "groups", checked_groups(self, self.groups))

    def __repr__(self) -> str:
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return _with_groups(self, f"{type(self).__qualname__}({values})")

    def __str__(self) -> str:
        return _with_groups(self, repr(self))  # a subclass of somebody's own may have a repr of its own

    def init_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What the optimizer remembers of a parameter before its first step: tensors of its shape, or numbers."""
        raise UsageError(f"Pass one of SGD, Adam, AdamW, RMSprop, or give {type(self).__name__} a method init_state.")

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], states: Sequence[dict[str, Tensor]], lr: float
    ) -> None:
        """One step, in place."""
        raise UsageError(f"Pass one of SGD, Adam, AdamW, RMSprop, or give {type(self).__name__} a method update.")


def _with_groups(optimizer: Optimizer, said: str) -> str:
    if optimizer.groups is None or "groups=" in said:
        return said
    return f"{said[:-1]}, groups={optimizer.groups!r})"


@checked
@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum; weight decay is added to the gradient.

    >>> lotto.SGD(0.1, momentum=0.9, weight_decay=1e-4)
    SGD(lr=0.1, weight_decay=0.0001, momentum=0.9, nesterov=False)
    >>> lotto.SGD(0.1).plain
    True
    """

    momentum: float = 0.0
    nesterov: bool = field(default=False, kw_only=True)

    BY_POSITION = ("lr", "momentum")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum < 0 or (self.nesterov and not self.momentum):
            raise UsageError(f"Momentum is 0 or more, and greater than 0 for Nesterov's; got {self.momentum!r}.")

    @property
    def plain(self) -> bool:
        """Whether a step is nothing but ``-lr`` times the gradient."""
        return not self.momentum and not self.weight_decay

    def init_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The momentum; zeros give the same first step as no buffer."""
        return {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)} if self.momentum else {}

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], states: Sequence[dict[str, Tensor]], lr: float
    ) -> None:
        """See `torch.optim.SGD`."""
        if self.plain:  # one kernel less around the same arithmetic
            torch._foreach_add_(parameters, gradients, alpha=-lr)
            return
        sgd(
            parameters,
            gradients,
            [state.get("momentum_buffer") for state in states],
            fused=True,  # one kernel per step
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
        )


@checked
@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam; weight decay is added to the gradient.

    >>> recipe.replace(optimizer=lotto.Adam(1e-3)).optimizer.beta1
    0.9
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError(f"beta1 and beta2 are at least 0 and less than 1; got {self.beta1!r}, {self.beta2!r}.")

    def init_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The number of steps and both moments."""
        moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], states: Sequence[dict[str, Tensor]], lr: float
    ) -> None:
        """See `torch.optim.Adam`, or `torch.optim.AdamW` for that class."""
        (adamw if isinstance(self, AdamW) else adam)(
            parameters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )


@checked
@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    >>> lotto.AdamW(1e-3, weight_decay=0.01).weight_decay
    0.01
    """


@checked
@dataclass(frozen=True, repr=False)
class RMSprop(Optimizer):
    """RMSprop with optional momentum.

    >>> lotto.RMSprop(1e-3, momentum=0.9).alpha
    0.99
    """

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.alpha < 1 and self.momentum >= 0):
            raise UsageError(
                f"alpha is at least 0 and less than 1, momentum 0 or more; got {self.alpha!r}, {self.momentum!r}."
            )

    def init_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The number of steps, the mean square, and the momentum if there is one."""
        names = ("square_avg", "momentum_buffer") if self.momentum else ("square_avg",)
        moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in names}
        return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], states: Sequence[dict[str, Tensor]], lr: float
    ) -> None:
        """See `torch.optim.RMSprop`."""
        rmsprop(
            parameters,
            gradients,
            [state["square_avg"] for state in states],
            [],
            [state["momentum_buffer"] for state in states] if self.momentum else [],
            [state["step"] for state in states],
            lr=lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            centered=False,
        )


TINY = 1e-6
"""Added to a norm before something is divided by it, as torch does."""
OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def is_one_of_ours(optimizer: Optimizer) -> bool:
    """Whether its arithmetic is known: each weight moves by itself, and one without gradient and memory stays at 0."""
    return type(optimizer) in OPTIMIZERS.values()


class OptimizerState:
    """An optimizer at work: what it remembers of each parameter.

    torch's own classes import a compiler when the first is made, seconds in every process, and take longer for a small
    network's step than its arithmetic does; their functions do not.

    Args:
        optimizer: which and how.
        parameters: by name; gradients are read from their ``grad``, and those without one are left alone.
        clip_norm: gradients whose norm, of all together, is larger are made so large; None = they are left.
        networks: how many networks the parameters hold along a leading axis, each with a norm of its own; 0 = one,
            without such an axis.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, Tensor],
        clip_norm: float | None = None,
        networks: int = 0,
    ) -> None:
        self.optimizer, self.clip_norm, self.networks = optimizer, clip_norm, networks
        self.states: dict[str, dict[str, Tensor]] = {}
        self._groups: list[tuple[Optimizer, float, list[tuple[Tensor, dict[str, Tensor]]]]] = []
        for part, names in grouped(optimizer, parameters):
            states = {name: part.init_state(parameters[name]) for name in names}
            self.states |= states
            pairs = [(parameters[name], state) for name, state in states.items()]
            self._groups.append((part, part.lr / optimizer.lr, pairs))
        self.states = {name: self.states[name] for name in parameters}
        self._parameters = [*parameters.values()]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step at a learning rate, which is the optimizer's own; that of a group is as many times as large."""
        if self.clip_norm is not None:
            clip([g for p in self._parameters if (g := p.grad) is not None], self.clip_norm, self.networks)
        for optimizer, factor, parts in self._groups:
            found = [(p, g, state) for p, state in parts if (g := p.grad) is not None]
            optimizer.update(
                [p for p, _, _ in found], [g for _, g, _ in found], [state for _, _, state in found], lr * factor
            )


def clip(gradients: list[Tensor], largest: float, networks: int = 0) -> None:
    """Scale gradients in place so that their norm, of all together, is at most ``largest``.

    Pruned weights have the gradient 0, so that the norm is that of the subnetwork alone. As
    `torch.nn.utils.clip_grad_norm_` does it; with ``networks`` each along the leading axis by itself.

    >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    >>> clip(gradients, 1.0)
    >>> [round(float(g), 3) for g in gradients]
    [0.6, 0.8]
    """
    if not gradients:
        return
    if not networks:
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (largest / (norm + TINY)).clamp(max=1.0))
        return
    squares = torch.stack([g.reshape(networks, -1).square().sum(1) for g in gradients])
    factors = (largest / (squares.sum(0).sqrt() + TINY)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.reshape(-1, *[1] * (gradient.dim() - 1)))
