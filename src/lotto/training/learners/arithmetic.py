"""Which layers of a convolutional network kernels compute, and with which lists: what is quicker on this machine."""

from __future__ import annotations

from collections.abc import Mapping

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

    Networks of signals are always quicker by kernels: torch's operators are busy with being called.

    Args:
        job: tells the mask, the batch size and how the recipe chooses.
        network: what is trained.
        found: what it computes.
    """
    recipe, module = job.recipe, network.module
    if recipe.arithmetic == "sparse" or not of_images(module):
        return {}
    linear = {n: layer for n, layer in linear_layers_of(module, found).items() if layer.inputs * layer.outputs > SMALL}
    layers: dict[str, Layer | LinearLayer] = {**layers_of(module, found, recipe.arrays.shape), **linear}
    costs = costs_of(layers, recipe.batch_size)
    if costs is None:  # not to be measured each time
        return {} if are_quicker(module) else None
    mask = {name: (job.mask or {}).get(f"{name}.weight") for name in layers}
    density = {name: 1.0 if kept is None else float(kept.float().mean()) for name, kept in mask.items()}
    small = compacted(job, network)
    dense = sum(cost.torch for cost in costs.values()) * (1.0 if small is None else small.fraction)
    if sum(cost.by_kernels(density[name]) for name, cost in costs.items()) >= dense:
        return None
    return {name: cost.crossover for name, cost in costs.items()}
