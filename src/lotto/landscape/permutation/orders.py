"""Permutations of a network's units as values, and what they make of weights and of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.core.rng import stream
from lotto.core.weights import Weights
from lotto.landscape.permutation.groups import UnitGroup, first_inputs, float64_network
from lotto.pruning.masks import Mask
from lotto.recipe.recipe import Recipe

EQUAL = 1e-10
"""How far outputs in float64 may be apart, against the largest of them, when units are permuted."""
COMPARED = 16
"""Examples on which outputs are compared."""


@checked
@dataclass(frozen=True)
class Permutation:
    """An order of the units of each group.

    Attributes:
        groups: of the network.
        orders: for each of them, which unit comes to each place: the new unit ``i`` is the old ``order[i]``.

    Raises:
        UsageError: if an order is no permutation of its group's units.

    >>> groups = lotto.landscape.permutation.unit_groups(recipe)
    >>> turned = Permutation(groups, tuple(tuple(range(g.size))[::-1] for g in groups))
    >>> turned, turned.inverse == turned
    (Permutation(40 of 40 units moved in 2 groups), True)
    """

    groups: tuple[UnitGroup, ...]
    orders: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.orders) != len(self.groups):
            raise UsageError(f"There is an order for each of {len(self.groups)} groups; got {len(self.orders)}.")
        for group, order in zip(self.groups, self.orders, strict=True):
            if sorted(order) != [*range(group.size)]:
                raise UsageError(
                    f"An order of the {group.size} units of {group.name!r} has each of the numbers 0 to "
                    f"{group.size - 1} once; got {list(order)}."
                )

    @classmethod
    def identity(cls, groups: Sequence[UnitGroup]) -> Permutation:
        """Every unit in its place."""
        return cls(tuple(groups), tuple(tuple(range(group.size)) for group in groups))

    @property
    def inverse(self) -> Permutation:
        """What puts every unit back."""
        turned = (sorted(range(len(order)), key=order.__getitem__) for order in self.orders)
        return Permutation(self.groups, tuple(map(tuple, turned)))

    @property
    def moved(self) -> int:
        """How many units are in another place."""
        return sum(i != unit for order in self.orders for i, unit in enumerate(order))

    def __repr__(self) -> str:
        units = sum(group.size for group in self.groups)
        return f"Permutation({self.moved} of {units} units moved in {len(self.groups)} groups)"


@checked
def permuted(permutation: Permutation, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights or a mask with the units in another order; what is no part of any group is the same tensor.

    Args:
        permutation: of the network that they belong to.
        tensors: by name: a whole state dict, a part of one, or a mask. Of a `Mask` comes a `Mask`.

    Raises:
        UsageError: if none of them is of that network, or a shape does not fit.

    >>> from lotto.landscape.permutation import random_permutation, unit_groups
    >>> order = random_permutation(unit_groups(recipe), seed=0)
    >>> lotto.pruning.masks.density(permuted(order, mask)) == lotto.pruning.masks.density(mask)
    True
    >>> back = permuted(order.inverse, permuted(order, weights))
    >>> all(torch.equal(back[name], weights[name]) for name in weights)
    True
    """
    found = dict(tensors)
    known = {axis.name for group in permutation.groups for axis in group.axes}
    if not known & set(found):
        raise UsageError(f"None of these tensors is permuted: the units lie in {', '.join(sorted(known)[:3])}, ...")
    for group, order in zip(permutation.groups, permutation.orders, strict=True):
        for axis in group.axes:
            if axis.name in found:
                found[axis.name] = reordered(found[axis.name], axis.axis, order, axis.positions, axis.name)
    return Mask(found, getattr(tensors, "shared", None)) if isinstance(tensors, Mask) else found


def reordered(tensor: Tensor, axis: int, order: Sequence[int], positions: int = 1, name: str = "") -> Tensor:
    """A tensor with the units along an axis in another order, each with its positions."""
    if axis >= tensor.dim() or tensor.shape[axis] != len(order) * positions:
        raise UsageError(
            f"{name!r} has the shape {tuple(tensor.shape)}; the permutation is of {len(order)} units with {positions} "
            f"positions each along axis {axis}."
        )
    first = torch.tensor(order, device=tensor.device)[:, None] * positions
    return tensor.index_select(axis, (first + torch.arange(positions, device=tensor.device)).flatten())


@checked
def random_permutation(groups: Sequence[UnitGroup], seed: int = 0) -> Permutation:
    """An order drawn at random for each group.

    >>> groups = lotto.landscape.permutation.unit_groups(recipe)
    >>> random_permutation(groups, 1) == random_permutation(groups, 1) != random_permutation(groups, 2)
    True
    """
    drawn = (stream(seed, f"permutation:{group.name}").permutation(group.size) for group in groups)
    return Permutation(tuple(groups), tuple(tuple(map(int, order)) for order in drawn))


@torch.no_grad()
def check_permutation(recipe: Recipe, permutation: Permutation, weights: Weights) -> None:
    """Compare a network's outputs with those of the permuted one, in float64.

    Raises:
        UsageError: if they differ: the network does something that its traced forward does not show.
    """
    inputs = first_inputs(recipe, COMPARED)
    before, after = (
        [leaf for leaf in flatten(float64_network(recipe, given)(inputs)) if isinstance(leaf, Tensor)]
        for given in (weights, permuted(permutation, weights))
    )
    away = max(float((one - two).abs().max()) for one, two in zip(before, after, strict=True))
    size = max(1.0, *(float(one.abs().max()) for one in before))
    if not away <= EQUAL * size:
        raise UsageError(
            f"Permuting units changes this network's outputs by {away:.3g}: its forward reads them in another way than "
            "its layers say, so its units cannot be matched."
        )
