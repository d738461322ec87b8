"""Which layers of a convolutional network kernels compute, and with which lists: what is quicker on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.learners.break_even import costs_of
from lotto.training.learners.channel_skipping import compacted
from lotto.training.learners.descriptions import Description, Layer, LinearLayer, layers_of, linear_layers_of, of_images
from lotto.training.learners.network_layers import are_quicker
from lotto.training.learners.sparse_linear import SMALL
from lotto.training.network import Network


def crossovers_of(job: Job, network: Network, found: Description) -> Mapping[str, float] | None:
    """The densities below which layers are lists of single weights, by name, where not the usual ones; None if dense
    layers, or those of the channels that something reads, are quicker.

    Args:
        job: tells the mask, the batch size and how the recipe chooses.
        network: what is trained.
        found: what it computes.
    """

    def fraction() -> float:
        small = compacted(job, network)
        return 1.0 if small is None else small.fraction

    return crossovers_where_quicker(job.recipe, network.module, found, job.mask or {}, fraction)


def crossovers_where_quicker(
    recipe: Recipe, module: nn.Module, found: Description, mask: Mapping[str, Tensor],
    fraction: Callable[[], float] = lambda: 1.0,
) -> Mapping[str, float] | None:  # fmt: skip
    """See `crossovers_of`.

    Networks of signals are always quicker by kernels: torch's operators are busy with being called.

    Args:
        recipe: tells the batch size and how it chooses.
        module: the network.
        found: what it computes.
        mask: of its parameters, by name.
        fraction: what share of its multiplications dense layers need; called only if that matters.
    """
    if recipe.arithmetic == "sparse" or not of_images(module):
        return {}
    linear = {n: layer for n, layer in linear_layers_of(module, found).items() if layer.inputs * layer.outputs > SMALL}
    layers: dict[str, Layer | LinearLayer] = {**layers_of(module, found, recipe.arrays.shape), **linear}
    half = recipe.precision == "bfloat16"
    costs = costs_of(layers, recipe.batch_size, half=half)
    if costs is None:  # not to be measured each time
        return {} if are_quicker(module, half) else None
    kept = {name: mask.get(f"{name}.weight") for name in layers}
    density = {name: 1.0 if k is None else float(k.float().mean()) for name, k in kept.items()}
    dense = sum(cost.torch for cost in costs.values()) * fraction()
    if sum(cost.by_kernels(density[name]) for name, cost in costs.items()) >= dense:
        return None
    return {name: cost.crossover for name, cost in costs.items()}
