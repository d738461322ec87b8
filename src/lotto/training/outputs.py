"""What gives a network's outputs where nothing is trained: kernels of ours for networks that have them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lotto.core.jit import can_compile
from lotto.recipe.recipe import Recipe
from lotto.training.learners.resnet_layers import Layers, channels_and_size, has_kernels
from lotto.training.network import Network

BATCH = 128
"""Examples at once: their activations fit into a processor's own memory."""


def outputs_of(recipe: Recipe, network: Network) -> Callable[[Tensor], Tensor]:
    """A function of a batch, equal to the network in evaluation mode up to rounding, with its present weights.

    Args:
        recipe: tells the shape of inputs.
        network: in evaluation mode.
    """
    precise = network.device.type == "cpu" and network.dtype == torch.float32
    if not (precise and can_compile() and has_kernels(network.module)):
        return network
    from lotto.training.learners.residual_outputs import OutputsPass

    shape = recipe.arrays.shape
    layers = Layers(network.module, {name: p.detach() != 0 for name, p in network.module.named_parameters()})
    by_kernels = OutputsPass(layers.network, *channels_and_size(shape), BATCH, frozen=True)

    def outputs(x: Tensor) -> Tensor:
        """Shape (examples, classes)."""
        return by_kernels(x) if x.dtype == torch.float32 and x.shape[1:] == shape else network(x)

    return outputs
