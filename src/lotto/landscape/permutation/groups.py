"""Which units of a network can be exchanged together: read from its traced forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.landscape.permutation.spaces import spaces_of
from lotto.pruning.channels import Space
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import examples_of
from lotto.training.network import Network

TRACED = 2
"""Examples of which a forward is traced: BatchNorm's mode is evaluation, so they need not be many."""


@dataclass(frozen=True)
class UnitAxis:
    """An axis of a tensor along which the units of a group lie.

    Attributes:
        name: of the tensor in the state dict.
        axis: which of its axes.
        positions: numbers in a row for each unit: more than 1 where a linear layer reads flattened channels.

    >>> UnitAxis("fc2.weight", 1)
    UnitAxis(name='fc2.weight', axis=1, positions=1)
    """

    name: str
    axis: int
    positions: int = 1


@dataclass(frozen=True)
class UnitGroup:
    """Units that can be exchanged for one another, in every tensor at once.

    Attributes:
        name: of the first layer whose outputs they are.
        size: how many there are.
        axes: where they lie: outputs and biases of layers, BatchNorm's vectors, what other layers read of them.
        readers: (layer, positions) of those that read them, whose inputs are the units' activations.

    >>> (group, _) = unit_groups(recipe)
    >>> group.name, group.size, [(axis.name, axis.axis) for axis in group.axes]
    ('fc1', 24, [('fc1.weight', 0), ('fc1.bias', 0), ('fc2.weight', 1)])
    """

    name: str
    size: int
    axes: tuple[UnitAxis, ...]
    readers: tuple[tuple[str, int], ...] = ()

    __repr__ = shown


@checked
def unit_groups(recipe: Recipe) -> tuple[UnitGroup, ...]:
    """The groups of units of a recipe's network that can be permuted without changing what it computes.

    Understands linear and convolution layers, BatchNorm, ReLU, pooling, flattening, sums and means over positions; the
    channels that a sum joins, as in residual networks, are one group. Units that anything else touches stay where they
    are, as inputs and outputs do.

    Args:
        recipe: its model and the shape of its inputs.

    Returns:
        In the order of the forward; those of one unit are left out.

    Raises:
        UsageError: if the forward cannot be traced (`torch.fx`), or nothing in it can be permuted.

    >>> [group.size for group in unit_groups(recipe)]
    [24, 16]
    """
    weights, example = recipe.initial(0), first_inputs(recipe, TRACED)
    network = Network(recipe.replace(device="cpu", precision="float32"), weights)
    spaces = spaces_of(network.module.eval(), network.cast(example))
    tied = {name for names in network.shared for name in names}
    found = [_group(space, weights) for space in spaces if space.size > 1]
    groups = tuple(group for group in found if group.readers and not tied & {axis.name for axis in group.axes})
    if not groups:
        raise UsageError(
            f"No units of {text(recipe.model)} can be permuted: none lie "
            "between linear and convolution layers with nothing but BatchNorm, ReLU, pooling, flattening and sums."
        )
    return groups


def _group(space: Space, weights: Weights) -> UnitGroup:
    axes = tuple(axis for axis in _axes(space) if axis.name in weights)
    return UnitGroup(space.producers[0], space.size, axes, tuple((name, p) for name, _, p in space.readers))


def _axes(space: Space) -> Iterator[UnitAxis]:
    for name in space.producers:
        yield UnitAxis(f"{name}.weight", 0)
        yield UnitAxis(f"{name}.bias", 0)
    for name in space.norms:
        yield from (UnitAxis(f"{name}.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var"))
    for name, _, positions in space.readers:
        yield UnitAxis(f"{name}.weight", 1, positions)


def float64_network(recipe: Recipe, weights: Weights) -> Network:
    """The network on the CPU in float64, in evaluation mode."""
    network = Network(recipe.replace(device="cpu", precision="float64"), weights)
    network.module.eval()
    return network


def first_inputs(recipe: Recipe, examples: int) -> Tensor:
    """The inputs of the first training examples.

    Raises:
        UsageError: if a loop of one's own has the data, or an example is no single tensor.
    """
    if recipe.loop is not None:
        raise UsageError("Units are matched on a recipe's data; a loop of one's own keeps its data to itself.")
    network = Network(recipe.replace(device="cpu"), recipe.initial(0))
    parts = [batch.inputs for batch in examples_of(recipe, network, "train", examples)]
    if not all(isinstance(part, Tensor) for part in parts):
        raise UsageError("Only networks that take one tensor can be read; the examples of these data are several.")
    return torch.cat(parts)
