"""How many multiplications trainings take, in those of one dense training, by the masks that they have on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lotto.data.batch import call
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run
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


def levels_fraction(
    kept: Sequence[Mapping[str, Tensor]], rewind_step: int, total: int, each: Mapping[str, int], particles: int = 1
) -> float:
    """Multiplications of a dense training and of levels from the rewind step on, over those of the dense training.

    Args:
        kept: masks of the levels, the dense one first.
        rewind_step: where all trainings but the first begin, in iterations.
        total: steps of a dense training.
        each: see `multiplications`.
        particles: trainings of each level; those of the dense network have its first steps in common.

    >>> whole, half = ({"a": torch.tensor([True, kept])} for kept in (True, False))
    >>> levels_fraction([whole, half], 20, 100, {"a": 200})
    1.4
    """
    later = total - rewind_step
    parts = [((particles - (level == 0)) * later, pass_fraction(mask, each)) for level, mask in enumerate(kept)]
    return training_fraction([(total, 1.0), *parts], total)


def job_fraction(job: Job, run: Run, each: Mapping[str, int]) -> float:
    """Multiplications of one training, from where it begins, over those of a whole dense one.

    Args:
        job: what was trained; a training that prunes gradually keeps the steps after its updates.
        run: what came of it.
        each: see `multiplications`. What SET and RigL exchange leaves every layer's density as it is.
    """
    total, sparsity, mask = job.recipe.total, job.sparsity, job.mask or masks.ones(job.recipe)
    if sparsity is None or sparsity.exchanges:
        number = len(sparsity.updates(job.recipe).steps) if sparsity is not None and sparsity.kind == "rigl" else 0
        return training_fraction([(job.end - job.from_step, pass_fraction(mask, each))], total, number)
    bounds = [job.from_step, *(step - 1 for step in job.keep), job.end]
    kept: list[Mapping[str, Tensor] | None] = [mask, *(run.mask_at(step) for step in job.keep)]
    pairs = zip(pairwise(bounds), kept, strict=True)
    return training_fraction([(b - a, pass_fraction(found or {}, each)) for (a, b), found in pairs], total)
