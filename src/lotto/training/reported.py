"""Which weights of a training count, those that are pruned, compared and reported: the last, an average, or the best.

What is kept for it stands in the state beside what the optimizer remembers, so that a checkpoint, a fork and a mask
have it as they have momentum: ``NAME/ema`` (the average of a weight or buffer), ``NAME/best`` (the best so far) with
``/best_error`` and so on; and at a training's end, whose weights are those that count, ``NAME/raw``, from which it
would go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lotto.core.weights import clone
from lotto.recipe.recipe import Recipe
from lotto.training.job import State
from lotto.training.mask_entries import MASKS
from lotto.training.network import Network

EMA, BEST, RAW = "ema", "best", "raw"
KEPT = (EMA, BEST, RAW, *MASKS)
"""Quantities of a state that are none of the optimizer's."""


def tensors_of(optimizer: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """What a state holds under a quantity, by the names of weights and buffers."""
    return {name.removesuffix(f"/{what}"): t for name, t in optimizer.items() if name.endswith(f"/{what}")}


@dataclass(frozen=True)
class Best:
    """The best weights so far by the validation split.

    Attributes:
        error: of these, on the validation split; infinite before any.
        waited: evaluations since then.
        stopped: the step at which nothing better was waited for any longer; 0 = it goes on.
        weights: the whole state dict.

    >>> best = Best().seen(3.0, {"w": torch.ones(1)}, 10, patience=1).seen(4.0, {"w": torch.zeros(1)}, 20, patience=1)
    >>> best.error, best.waited, best.stopped, float(best.weights["w"])
    (3.0, 1, 20, 1.0)
    """

    error: float = math.inf
    waited: int = 0
    stopped: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State) -> Best:
        """As a state has it."""
        found = state.optimizer
        if "/best_error" not in found:
            return cls()
        numbers = (found[f"/{name}"].item() for name in ("best_error", "best_waited", "best_stopped"))
        error, waited, stopped = numbers
        return cls(error, int(waited), int(stopped), tensors_of(found, BEST))

    def seen(self, error: float, weights: Mapping[str, Tensor], step: int, patience: int | None) -> Best:
        """After an evaluation at a step."""
        if error < self.error:
            return Best(error, 0, 0, clone(weights))
        waited = self.waited + 1
        return replace(self, waited=waited, stopped=step if patience is not None and waited >= patience else 0)

    def put_into(self, state: State) -> State:
        """A state that has it."""
        numbers = {"best_error": self.error, "best_waited": self.waited, "best_stopped": self.stopped}
        more = {f"/{name}": torch.tensor(float(value), dtype=torch.float64) for name, value in numbers.items()}
        more |= {f"{name}/{BEST}": tensor for name, tensor in self.weights.items()}
        return State(state.weights, {**state.optimizer, **more})


def ended(state: State, recipe: Recipe, best: Mapping[str, Tensor] | None = None) -> State:
    """The state at a training's end: its weights are those that count.

    Args:
        state: with the weights that were moved last.
        recipe: says which count.
        best: the best weights; None or empty = those of the state.
    """
    if recipe.reported == "last":
        return state
    chosen = (best or tensors_of(state.optimizer, BEST)) if recipe.reported == "best" else None
    chosen = tensors_of(state.optimizer, EMA) if chosen is None else chosen
    raw = {f"{name}/{RAW}": tensor for name, tensor in state.weights.items()}
    return State({**state.weights, **chosen}, {**state.optimizer, **raw})


def begun(state: State) -> State:
    """The state that a training goes on from: after an end, the weights that were moved last."""
    if not (raw := tensors_of(state.optimizer, RAW)):
        return state
    return State(raw, {name: t for name, t in state.optimizer.items() if not name.endswith(f"/{RAW}")})


class Average:
    """The exponential average of weights and buffers along a training: ``a = decay * a + (1 - decay) * w`` each step.

    A pruned weight is 0 at every step and so is its average. Whole numbers (how many batches there were) are the last.

    Args:
        recipe: says how slow.
        network: whose weights they are.
        state: where it stands; without an average in it, that begins at the weights.
    """

    def __init__(self, recipe: Recipe, network: Network, state: State) -> None:
        assert recipe.ema is not None
        self.decay, self.recipe, self.module = recipe.ema, recipe, network.module
        before = tensors_of(state.optimizer, EMA)
        self.values = {
            name: before[name].to(t.device, t.dtype, copy=True) if name in before else t.clone()
            for name, t in self._live().items()
        }
        self._network: Network | None = None

    def _live(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in self.module.state_dict().items() if t.is_floating_point()}

    @torch.no_grad()
    def step(self) -> None:
        """After a step of the optimizer."""
        live = self._live()
        torch._foreach_lerp_([*self.values.values()], [live[name] for name in self.values], 1 - self.decay)

    def entries(self) -> dict[str, Tensor]:
        """For a state: copies on the CPU."""
        return {f"{name}/{EMA}": t.to("cpu", copy=True).contiguous() for name, t in self.values.items()}

    def network(self) -> Network:
        """The network with the average of its weights."""
        weights = {**self.module.state_dict(), **self.values}
        if self._network is None:
            self._network = Network(self.recipe, weights)
        self._network.load(weights)
        return self._network
