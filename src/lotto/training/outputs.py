"""A network's outputs and its BatchNorms' statistics where nothing is trained: by kernels of ours if it has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lotto.core.jit import can_compile
from lotto.recipe.recipe import Recipe
from lotto.training.learners.conv_networks import channels_and_size
from lotto.training.learners.network_layers import Layers, has_kernels
from lotto.training.network import Network

BATCH = 128
"""Examples at once: their activations fit into a processor's own memory."""


def outputs_of(recipe: Recipe, network: Network) -> Callable[[Tensor], Tensor]:
    """A function of a batch, equal to the network in evaluation mode up to rounding, with its present weights.

    Args:
        recipe: tells the shape of inputs.
        network: in evaluation mode.
    """
    if recipe.arithmetic == "dense" or not (_has_kernels(network) and recipe.arrays.has_tensors):
        return network
    from lotto.training.learners.outputs_pass import OutputsPass

    shape, layers = recipe.arrays.shape, _layers(network)
    by_kernels = OutputsPass(layers.network, *channels_and_size(shape), BATCH, frozen=True)

    def outputs(x: Tensor) -> Tensor:
        """Shape (examples, classes)."""
        return by_kernels(x) if _fits(recipe, x) else network(x)

    return outputs


@torch.no_grad()
def batch_statistics(recipe: Recipe, network: Network, x: Any) -> dict[str, Tensor] | None:
    """What running statistics are with momentum 1 after a batch in training mode, by name; None without kernels.

    Args:
        recipe: tells the shape of inputs.
        network: all its BatchNorms are trained.
        x: at least two examples.
    """
    if recipe.arithmetic == "dense" or not (_has_kernels(network) and _fits(recipe, x) and len(x) > 1):
        return None
    from lotto.training.learners.outputs_pass import OutputsPass

    layers = _layers(network)
    layers.forget()
    OutputsPass(layers.network, *channels_and_size(recipe.arrays.shape), len(x), frozen=False)(x)
    return layers.statistics


def _has_kernels(network: Network) -> bool:
    precise = network.device.type == "cpu" and network.dtype == torch.float32
    return precise and can_compile() and has_kernels(network.module) is not None


def _layers(network: Network) -> Layers:
    """With sparse layers where few weights are not 0."""
    return Layers(network.module, {name: p.detach() != 0 for name, p in network.module.named_parameters()})


def _fits(recipe: Recipe, x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape[1:] == recipe.arrays.shape
