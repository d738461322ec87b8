"""How many multiplications trainings take, in those of one dense training, by the masks that they have on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lotto.data.batch import call
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network


def multiplications(recipe: Recipe) -> dict[str, int]:
    """Multiplications of each prunable weight matrix in one example's forward pass: its weights, times their places.

    A matrix that no module multiplies by itself (of a recurrent cell, of attention) counts as having one place.

    Args:
        recipe: whose network it is.
    """
    mask, counts = masks.ones(recipe), dict[str, int]()
    network = Network(recipe, recipe.initial(0))
    module = network.module.eval()
    names = {id(p): name for name, p in module.named_parameters(remove_duplicate=False) if name in mask}

    def count(part: nn.Module, inputs: object, outputs: object) -> None:
        weight = getattr(part, "weight", None)
        if isinstance(outputs, Tensor) and isinstance(weight, Tensor) and id(weight) in names:
            places = outputs[0].numel() // weight.shape[0]
            name = names[id(weight)]
            counts[name] = counts.get(name, 0) + weight.numel() * max(1, places)

    handles = [part.register_forward_hook(count) for part in module.modules()]
    try:
        with torch.no_grad():
            batch = next(iter(recipe.arrays.to(network.device).batches(0, 0, 1, 2, None)))
            call(module, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: counts.get(name, keep.numel()) for name, keep in mask.items()}


def pass_fraction(mask: Mapping[str, Tensor], each: Mapping[str, int]) -> float:
    """Multiplications of a masked network's pass over those of the dense one's.

    Args:
        mask: of the network.
        each: see `multiplications`.

    >>> pass_fraction({"a": torch.tensor([True, False]), "b": torch.tensor([True, True])}, {"a": 200, "b": 100})
    0.6666666666666666
    """
    kept = sum(each[name] * int(keep.sum()) / keep.numel() for name, keep in mask.items())
    return kept / sum(each.values())


def training_fraction(parts: Sequence[tuple[int, float]], total: int, dense_gradients: int = 0) -> float:
    """Multiplications of a training over those of a dense one: a step is three passes (RigL, appendix H).

    Args:
        parts: steps and the fraction of a pass that each of them takes.
        total: steps of a dense training.
        dense_gradients: of how many batches the gradient of all weights is computed besides: two sparse passes and a
            dense one.

    >>> training_fraction([(50, 1.0), (50, 0.5)], 100)
    0.75
    """
    steps = sum(count * fraction for count, fraction in parts)
    mean = steps / max(1, sum(count for count, _ in parts))
    return (steps + dense_gradients * (2 * mean + 1) / 3) / total
