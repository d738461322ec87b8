"""A network's outputs and its BatchNorms' statistics where nothing is trained: by kernels of ours if it has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lotto.core.jit import can_compile
from lotto.recipe.recipe import Recipe
from lotto.training.learners.conv_networks import description_of
from lotto.training.learners.descriptions import Description, channels_and_size
from lotto.training.learners.network_layers import Layers, are_quicker
from lotto.training.network import Network

BATCH = 128
"""Examples at once: their activations fit into a processor's own memory."""


def outputs_of(recipe: Recipe, network: Network) -> Callable[[Tensor], Tensor]:
    """A function of a batch, equal to the network in evaluation mode up to rounding, with its present weights.

    Args:
        recipe: tells the shape of inputs.
        network: in evaluation mode.
    """
    if recipe.arithmetic == "dense" or not recipe.arrays.has_tensors or (found := _found(recipe, network)) is None:
        return network
    from lotto.training.learners.outputs_pass import OutputsPass

    shape, layers = recipe.arrays.shape, _layers(network, found)
    by_kernels = OutputsPass(layers.network, *channels_and_size(shape), BATCH, frozen=True)

    def outputs(x: Tensor) -> Tensor:
        """Shape (examples, classes)."""
        return by_kernels(x) if fits(recipe, x) else network(x)

    return outputs


@torch.no_grad()
def batch_statistics(recipe: Recipe, network: Network, x: Any) -> dict[str, Tensor] | None:
    """What running statistics are with momentum 1 after a batch in training mode, by name; None without kernels.

    Args:
        recipe: tells the shape of inputs.
        network: all its BatchNorms are trained.
        x: at least two examples.
    """
    possible = recipe.arithmetic != "dense" and fits(recipe, x) and len(x) > 1
    if not possible or (found := _found(recipe, network)) is None:
        return None
    from lotto.training.learners.outputs_pass import OutputsPass

    layers = _layers(network, found)
    layers.forget()
    OutputsPass(layers.network, *channels_and_size(recipe.arrays.shape), len(x), frozen=False)(x)
    return layers.statistics


def _found(recipe: Recipe, network: Network) -> Description | None:
    """What the network computes, if kernels compute it and quicker."""
    possible = network.device.type == "cpu" and can_compile() and are_quicker(network.module)
    return description_of(network, recipe.arrays.shape) if possible else None


def _layers(network: Network, found: Description) -> Layers:
    """With sparse layers where few weights are not 0."""
    return Layers(network.module, found, {name: p.detach() != 0 for name, p in network.module.named_parameters()})


def fits(recipe: Recipe, x: Any) -> bool:
    """Whether inputs are such as kernels read."""
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape[1:] == recipe.arrays.shape
