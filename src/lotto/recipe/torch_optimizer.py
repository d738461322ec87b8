"""Any optimizer of torch's as a recipe's, by the class itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lotto.core.errors import UsageError, text
from lotto.core.frozen import FrozenDict
from lotto.recipe.optimizers import Optimizer


@dataclass(frozen=True, init=False, repr=False)
class TorchOptimizer(Optimizer):
    """An optimizer class of torch, or of anybody in its manner: ``TorchOptimizer(torch.optim.NAdam, 1e-3)``.

    Its cost: the first in a process imports torch's compiler, which takes seconds; an object of the class is made at
    every step, which takes longer than the arithmetic of a small network's; networks are trained by autograd one by
    one, and pruned weights are put back to 0 after each step. `SGD`, `Adam`, `AdamW` and `RMSprop` of ours need none of
    this.

    Args:
        of: the class; what it remembers of a parameter has to be tensors.
        lr: the peak learning rate.
        groups: see `Optimizer`.
        options: other arguments of the class.

    >>> TorchOptimizer(torch.optim.NAdam, 1e-3, momentum_decay=0.01)
    TorchOptimizer(NAdam, lr=0.001, momentum_decay=0.01)
    """

    of: type[torch.optim.Optimizer] = torch.optim.SGD
    options: Mapping[str, Any] = field(default_factory=FrozenDict)

    BY_POSITION = ("of", "lr")

    def __init__(
        self, of: type[torch.optim.Optimizer], lr: float, *, groups: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        if not (isinstance(of, type) and issubclass(of, torch.optim.Optimizer)):
            raise UsageError(f"TorchOptimizer takes a class of torch.optim, such as torch.optim.NAdam; got {text(of)}.")
        options = {**options.pop("options", {}), **options}  # as `dataclasses.replace` gives them
        decay = options.pop("weight_decay", 0.0)
        for name, value in (("lr", lr), ("weight_decay", decay), ("groups", groups), ("of", of)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "options", FrozenDict(options))
        self._checked()

    def _checked(self) -> None:
        try:
            self._made([torch.zeros(1, requires_grad=True)], self.lr)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"{self.of.__name__} cannot be made: {error}.") from error
        super().__post_init__()

    def __post_init__(self) -> None:
        """All is checked by the constructor."""

    def _made(self, parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
        decay: dict[str, Any] = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        return self.of(parameters, lr=lr, **decay, **self.options)  # type: ignore[call-arg]

    def __repr__(self) -> str:
        named: dict[str, Any] = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        named |= self.options
        named |= {"groups": self.groups} if self.groups is not None else {}
        return "".join([
            f"TorchOptimizer({self.of.__name__}, lr={self.lr!r}", *(f", {n}={v!r}" for n, v in named.items()), ")"
        ])  # fmt: skip

    def init_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Nothing before the first step, which makes what there is."""
        return {}

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], states: Sequence[dict[str, Tensor]], lr: float
    ) -> None:
        """A step of an object that is made for it."""
        if not parameters:
            return
        optimizer = self._made(parameters, lr)
        for parameter, state in zip(parameters, states, strict=True):
            if state:
                optimizer.state[parameter] = dict(state)
        with torch.enable_grad():  # as its own loop has it
            optimizer.step()
        for parameter, state in zip(parameters, states, strict=True):
            for name, value in optimizer.state[parameter].items():
                if not isinstance(value, Tensor):
                    raise UsageError(
                        f"{self.of.__name__} remembers {name}={text(value)} of a parameter, which is no tensor and "
                        "cannot be kept: train it in a loop of your own, lotto.Trainable."
                    )
                state[name] = value
