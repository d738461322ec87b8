"""A network's outputs and its BatchNorms' statistics where nothing is trained: by kernels of ours if it has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lotto.core.jit import can_compile
from lotto.recipe.recipe import Recipe
from lotto.training.learners.conv_networks import description_of
from lotto.training.learners.descriptions import Description, channels_and_size
from lotto.training.learners.network_layers import Layers, are_quicker
from lotto.training.network import Network

if TYPE_CHECKING:
    from lotto.training.learners.outputs_pass import OutputsPass

BATCH = 128
"""Examples at once: their activations fit into a processor's own memory."""
HELD_BYTES = 1 << 30
"""Up to so much memory is kept with a network, for the next weights that it is given."""


def outputs_of(recipe: Recipe, network: Network) -> Callable[[Tensor], Tensor]:
    """A function of a batch, equal to the network in evaluation mode up to rounding, with its present weights.

    Args:
        recipe: tells the shape of inputs.
        network: in evaluation mode.
    """
    if recipe.arithmetic == "dense" or not recipe.arrays.has_tensors or (found := _found(recipe, network)) is None:
        return network
    by_kernels = _pass(recipe, network, found, BATCH, frozen=True).outputs

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
    made = _pass(recipe, network, found, len(x), frozen=False)
    made.layers.forget()
    made.outputs(x)
    return made.layers.statistics


def _found(recipe: Recipe, network: Network) -> Description | None:
    """What the network computes, if kernels compute it and quicker."""
    on_cpu = network.device.type == "cpu" and network.dtype == torch.float32
    possible = on_cpu and can_compile() and are_quicker(network.module)
    return description_of(network, recipe.arrays.shape) if possible else None


@dataclass
class _Pass:
    """Kernels for a network, the weights that they do not take as 0, and what has the weights and computes."""

    kept: dict[str, Tensor]
    layers: Layers
    outputs: OutputsPass


def _pass(recipe: Recipe, network: Network, found: Description, batch: int, frozen: bool) -> _Pass:
    """With the network's present weights; lists and memory are made once, while the same weights are 0."""
    from lotto.training.learners.outputs_pass import OutputsPass

    kept = {name: p.detach() != 0 for name, p in network.module.named_parameters()}
    known: _Pass | None = network.passes.get((batch, frozen))
    if known is not None and all(torch.equal(kept[name], mask) for name, mask in known.kept.items()):
        known.layers.load(network.module)
        return known
    network.passes.pop((batch, frozen), None)  # not both at once
    layers = Layers(network.module, found, kept)
    inputs = channels_and_size(recipe.arrays.shape)
    made = _Pass(kept, layers, OutputsPass(layers.network, *inputs, batch, frozen=frozen))
    if made.outputs.space.memory.nbytes <= HELD_BYTES:
        network.passes[batch, frozen] = made
    return made


def fits(recipe: Recipe, x: Any) -> bool:
    """Whether inputs are such as kernels read."""
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape[1:] == recipe.arrays.shape
