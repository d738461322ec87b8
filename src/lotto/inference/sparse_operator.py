"""``lotto::sparse_network``: a network of kept weights as an operator of torch.

A program of `torch.export` that uses it holds these weights and their places only. Importing this module makes it
known. On a CPU, in float32 and with numba, kernels compute it; anywhere else torch's dense layers do, from weights made
whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lotto.core.errors import UsageError
from lotto.core.jit import can_compile
from lotto.inference import steps
from lotto.inference.steps import Step

if TYPE_CHECKING:
    from lotto.inference.kernel_plan import KernelPlan

NAME = "lotto::sparse_network"
SCHEMA = "(Tensor x, Tensor values, Tensor places, Tensor biases, str description) -> Tensor"
KEPT = 64
"""Shapes of inputs whose plan is kept for a network."""


@lru_cache(maxsize=256)
def steps_of(description: str) -> tuple[Step, ...]:
    """The steps of a description."""
    return tuple(steps.from_text(description))


def by_torch(x: Tensor, values: Tensor, places: Tensor, biases: Tensor, description: str) -> Tensor:
    """The operator by torch's own: see `steps.by_torch`."""
    found = steps_of(description)
    steps.shapes(found, x.shape[1:])
    return steps.by_torch(found, x, values, places, biases).contiguous()


def by_kernels(x: Tensor, values: Tensor, places: Tensor, biases: Tensor, description: str) -> Tensor:
    """The same by kernels where these can compute it."""
    if not can_compile() or not len(x) or any(t.dtype != torch.float32 for t in (x, values, biases)):
        return by_torch(x, values, places, biases, description)
    plan = _plan(x, values, places, biases, description)
    return plan.outputs(x.detach(), values.detach().contiguous(), biases.detach().contiguous())


def _without_numbers(x: Tensor, values: Tensor, places: Tensor, biases: Tensor, description: str) -> Tensor:
    """Outputs that have a shape only."""
    return x.new_empty([x.shape[0], *steps.shapes(steps_of(description), x.shape[1:])[-1]])


def _refuse(*_: Any) -> Any:
    raise UsageError("The kept weights of a sparse network give no gradients; they are of the network that was pruned.")


class _Known:
    """What has been made for a network's places, and these as they were then."""

    def __init__(self, places: np.ndarray) -> None:
        self.places = places.copy()
        self.plans: dict[Any, KernelPlan] = {}


_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""By the tensor of a network's places, with which it goes: an operator has no state of its own."""


def _plan(x: Tensor, values: Tensor, places: Tensor, biases: Tensor, description: str) -> KernelPlan:
    """A network's plan for inputs of this shape, made once as long as the places are the same numbers."""
    from lotto.inference.kernel_plan import KernelPlan

    now, known = places.numpy(), _KNOWN.get(places)
    if known is None or not np.array_equal(known.places, now):
        _KNOWN[places] = known = _Known(now)
    if (len(values), len(places), len(biases)) != steps.count(steps_of(description)):
        raise UsageError("These weights are not those of the network that is described.")
    key = (x.shape, description)
    if key not in known.plans:
        steps.check(steps_of(description), places)
        if len(known.plans) >= KEPT:
            known.plans.clear()
        known.plans[key] = KernelPlan(steps_of(description), now, x.shape)
    found: KernelPlan = known.plans[key]
    return found


torch.library.define(NAME, SCHEMA)
torch.library.impl(NAME, "default", by_torch)
torch.library.impl(NAME, "cpu", by_kernels)
torch.library.register_fake(NAME, _without_numbers)
torch.library.register_autograd(NAME, _refuse)
