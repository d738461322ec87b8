"""How many examples a network gets at once where nothing is trained: by the memory of its activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lotto.core.rng import private_rng
from lotto.data.batch import count
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network

BATCH = 1000
"""Examples at once, if their largest activation takes at most `LEAST_BYTES`, or `STEPS` training batches no less."""
LEAST_BYTES = 64 << 20
STEPS = 8
PROBES = 2
"""Examples that memory is measured on."""


class Activations(NamedTuple):
    """Bytes for an example: of the largest tensor that a forward makes, and of all together."""

    largest: int
    total: int


def eval_batch(recipe: Recipe, network: Network) -> int:
    """Examples of an evaluation's batch: the recipe's, or `BATCH`, or fewer of a network with large activations.

    A training step keeps all activations of its batch, an evaluation's largest one is most of what it needs; so what
    takes no more than `STEPS` steps' activations fits wherever the training does. It is a function of the recipe, not
    of the machine, and changes results within rounding only.
    """
    if recipe.eval_batch_size is not None:
        return recipe.eval_batch_size
    found = activations(recipe, network)
    allowed = max(LEAST_BYTES, STEPS * recipe.batch_size * found.total)
    return max(1, min(BATCH, allowed // max(1, found.largest)))


def activations(recipe: Recipe, network: Network) -> Activations:
    """Measured on `PROBES` test examples, once for a network; (0, 0) of one that cannot be evaluated on these."""
    if network.activations is None:
        training = network.module.training
        network.module.eval()
        with private_rng(), torch.no_grad(), _Outputs() as seen:
            try:
                x, _ = next(recipe.arrays.to(network.device).evaluation("test", PROBES))
                seen.largest = seen.total = 0
                network(x)
                network.activations = (seen.largest // count(x), seen.total // count(x))
            except Exception:  # the evaluation itself says what is wrong
                network.activations = (0, 0)
        network.module.train(training)
    return Activations(*network.activations)


class _Outputs(TorchFunctionMode):
    """Counts the bytes of what each function makes; views of what is there are not counted.

    A mode of functions and not of the dispatcher, which would import torch's compiler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.total = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        # A copy of a weight in another precision is no activation: these have the examples in front, or second.
        for part in made if isinstance(made, tuple) else (made,):
            if isinstance(part, Tensor) and PROBES in part.shape[:2] and not _is_view(part, args):
                self.largest, self.total = max(self.largest, part.nbytes), self.total + part.nbytes
        return made


def _is_view(made: Tensor, given: Sequence[Any]) -> bool:
    return any(isinstance(g, Tensor) and g.data_ptr() == made.data_ptr() for g in given)
