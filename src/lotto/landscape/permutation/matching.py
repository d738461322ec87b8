"""Which order of a network's units brings it nearest to another one: by their weights, or by their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.rng import stream
from lotto.core.weights import Weights
from lotto.landscape.permutation.groups import UnitGroup
from lotto.landscape.permutation.orders import Permutation, permuted, reordered
from lotto.training.network import Network

ROUNDS = 100
"""Passes over all groups; they end as soon as one finds nothing better, mostly after five to ten."""
STATISTICS = ("running_mean", "running_var")
"""No part of the weights' distance: they follow from the weights and are re-estimated."""


def match_by_weights(groups: Sequence[UnitGroup], a: Weights, b: Weights, seed: int = 0) -> Permutation:
    """The order of a's units whose weights are nearest to b's, by coordinate descent over the groups.

    Ainsworth et al. (2209.04836, section 3.2): with all other groups fixed, the best order of one is an assignment
    problem. Groups are taken in a random order until none of them finds anything better.
    """
    names = {axis.name for group in groups for axis in group.axes if not axis.name.endswith(STATISTICS)}
    one, two = ({name: weights[name].detach().cpu().double() for name in sorted(names)} for weights in (a, b))
    orders = [tuple(range(group.size)) for group in groups]
    reached = _alike(Permutation(tuple(groups), tuple(orders)), one, two)
    for number in range(ROUNDS):
        better = False
        for i in stream(seed, "matching", number).permutation(len(groups)):
            tried = [*orders]
            tried[i] = _assigned(_gains(groups, orders, int(i), one, two))
            found = _alike(Permutation(tuple(groups), tuple(tried)), one, two)
            if found > reached + 1e-12 * abs(reached):  # a tensor with one group on both axes may get worse
                orders, reached, better = tried, found, True
        if not better:
            break
    return Permutation(tuple(groups), tuple(orders))


def _alike(permutation: Permutation, one: Weights, two: Weights) -> float:
    """The inner product of two networks, which is large where their distance is small."""
    moved = permuted(permutation, one)
    return sum(float((moved[name] * two[name]).sum()) for name in one)


def _gains(
    groups: Sequence[UnitGroup], orders: Sequence[tuple[int, ...]], number: int, one: Weights, two: Weights
) -> np.ndarray:
    """For each place and each unit of a group: the inner product of their weights, all other groups in their order."""
    gains = torch.zeros(groups[number].size, groups[number].size, dtype=torch.float64)
    for axis in groups[number].axes:
        if axis.name not in one:
            continue
        tensor = one[axis.name]
        for other, order in zip(groups, orders, strict=True):
            for place in other.axes:
                if place.name == axis.name and place != axis:
                    tensor = reordered(tensor, place.axis, order, place.positions)
        moved, fixed = (_by_unit(t, axis.axis, groups[number].size) for t in (tensor, two[axis.name]))
        gains += fixed @ moved.T
    return gains.numpy()


def _by_unit(tensor: Tensor, axis: int, size: int) -> Tensor:
    """A row for each unit; the positions of one lie side by side."""
    first = tensor.movedim(axis, 0)
    return first.reshape(size, -1)


def _assigned(gains: np.ndarray) -> tuple[int, ...]:
    """For each place the unit that comes there, so that the sum of gains is largest."""
    from scipy.optimize import linear_sum_assignment  # a third of a second to import

    return tuple(map(int, linear_sum_assignment(gains, maximize=True)[1]))


def match_by_activations(groups: Sequence[UnitGroup], a: Network, b: Network, batches: Iterable[Tensor]) -> Permutation:
    """The order of a's units whose activations on the same examples are most correlated with b's.

    Li et al. (1511.07543); Ainsworth et al. (2209.04836, section 3.1). The activations of a unit are what the layers
    that read it receive, at all positions of all examples; correlations of several such layers are added.
    """
    found = {(i, name): _Products() for i, group in enumerate(groups) for name, _ in group.readers}
    with torch.no_grad():
        for batch in batches:
            one, two = (_received(network, groups, batch) for network in (a, b))
            for key, products in found.items():
                products.add(one[key], two[key])
    orders = []
    for i, group in enumerate(groups):
        gains = sum(found[i, name].correlations() for name, _ in group.readers)
        orders.append(_assigned(np.asarray(gains)))
    return Permutation(tuple(groups), tuple(orders))


def _received(network: Network, groups: Sequence[UnitGroup], batch: Tensor) -> dict[tuple[int, str], Tensor]:
    """What the readers of each group receive: a row for each unit."""
    found: dict[tuple[int, str], Tensor] = {}
    handles = [
        network.module.get_submodule(name).register_forward_pre_hook(_noting(found, (i, name), group.size))
        for i, group in enumerate(groups)
        for name, _ in group.readers
    ]
    try:
        network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _noting(
    found: dict[tuple[int, str], Tensor], key: tuple[int, str], size: int
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0].double()
        found[key] = x.reshape(len(x), size, -1).transpose(0, 1).flatten(1)

    return note


@dataclass
class _Products:
    """Sums over examples from which correlations follow."""

    count: int = 0
    sums: Mapping[str, Tensor] = field(default_factory=dict)

    def add(self, one: Tensor, two: Tensor) -> None:
        new = {
            "one": one.sum(1), "two": two.sum(1), "one one": one.square().sum(1), "two two": two.square().sum(1),
            "both": two @ one.T,
        }  # fmt: skip
        self.count += one.shape[1]
        self.sums = {name: value + self.sums.get(name, 0) for name, value in new.items()}

    def correlations(self) -> np.ndarray:
        """Of b's unit in each row with a's in each column; 0 of a unit that never changes."""
        one, two = self.sums["one"] / self.count, self.sums["two"] / self.count
        both = self.sums["both"] / self.count - two[:, None] * one
        squares = [
            self.sums[f"{name} {name}"] / self.count - mean.square() for name, mean in (("one", one), ("two", two))
        ]
        deviations = [square.clamp(min=0).sqrt() for square in squares]
        size = deviations[1][:, None] * deviations[0]
        return torch.where(size > 1e-12, both / size.clamp(min=1e-12), torch.zeros(())).numpy()
