"""Matching two networks as a task for an engine, so that it is remembered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lotto.core.check import Count, checked
from lotto.core.errors import unknown
from lotto.core.fingerprint import affects
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.path import check_ends
from lotto.landscape.permutation.groups import first_inputs, float64_network, unit_groups
from lotto.landscape.permutation.matching import match_by_activations, match_by_weights
from lotto.landscape.permutation.orders import Permutation, check_permutation
from lotto.recipe.recipe import Recipe

METHODS = ("activations", "weights")
EXAMPLES = 1000
"""Training examples whose activations are compared."""
BATCH = 250


@checked
@dataclass(frozen=True, eq=False)
class MatchTask(Task):
    """The order of one network's units that is nearest to another network, as a task for an engine.

    Attributes:
        recipe: model and data.
        a: weights whose units are put in order.
        b: weights that they are to be near to.
        method: ``activations`` on training examples, or ``weights``.
        examples: how many of them.
        seed: of the order in which groups of units are matched by weights.
        label: what progress displays call it.

    >>> task = MatchTask(recipe, weights, other, "weights")
    >>> (outcome,) = lotto.engine.make(jobs=1).run([task])
    >>> [len(order) for order in outcome["orders"]]
    [24, 16]
    """

    kind = "permutation"

    recipe: Recipe
    a: Weights
    b: Weights
    method: str = "activations"
    examples: Count = field(
        default=EXAMPLES,
        metadata=affects("outcome", of=lambda t: t.examples if t.method == "activations" else None),
    )
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("method of matching", self.method, METHODS)
        check_ends(self.recipe, self.a, self.b)

    @property
    def size(self) -> int:
        """One step."""
        return 1

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Returns ``orders``: for each group of `unit_groups`, which of a's units comes to each place.

        Raises:
            UsageError: if nothing can be permuted, or if permuting changes what the network computes.
        """
        groups = unit_groups(self.recipe)
        if self.method == "weights":
            found = match_by_weights(groups, self.a, self.b, self.seed)
        else:
            inputs = first_inputs(self.recipe, self.examples)
            one, two = (float64_network(self.recipe, weights) for weights in (self.a, self.b))
            found = match_by_activations(groups, one, two, inputs.split(BATCH))
        check_permutation(self.recipe, found, self.a)
        if on_step is not None:
            on_step(1, 0.0)
        return {"orders": [list(order) for order in found.orders]}

    __repr__ = shown


def permutation_of(recipe: Recipe, outcome: Mapping[str, Any]) -> Permutation:
    """The permutation that a `MatchTask` found."""
    return Permutation(unit_groups(recipe), tuple(tuple(order) for order in outcome["orders"]))


@checked
def match_units(
    recipe: Recipe,
    a: Weights,
    b: Weights,
    method: str = "activations",
    examples: Count = EXAMPLES,
    seed: int = 0,
    *,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Permutation:
    """The order of one network's units that is nearest to another network; `permuted` applies it to weights and masks.

    By weights (Ainsworth et al., 2209.04836): each group of units in turn gets the order with the largest inner product
    with the other network's weights. By activations (Li et al., 1511.07543): the largest sum of correlations on
    training examples. That the outputs stay the same, to 1e-10 in float64, is checked before it is handed over.

    Args:
        recipe: model and data.
        a: weights whose units are put in order.
        b: weights that they are to be near to.
        method: ``activations`` or ``weights``.
        examples: training examples whose activations are compared.
        seed: of the order in which groups of units are matched by weights.
        engine, store, device, progress: as of `lotto.train`.

    Raises:
        UsageError: for an unknown method; if the network cannot be traced or has nothing that can be permuted.

    >>> from lotto.landscape.permutation import permuted, random_permutation, unit_groups
    >>> hidden = random_permutation(unit_groups(recipe), seed=3)
    >>> match_units(recipe, weights, permuted(hidden, weights), "weights") == hidden
    True
    """
    task = MatchTask(recipe, a, b, method, examples, seed, "matching")
    return permutation_of(recipe, outcome_of(task, engine, store, device, progress))
