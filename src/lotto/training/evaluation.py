"""Loss and error of given weights over a split of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.data import Split
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network

BATCH = 1000
SPLITS: tuple[Split, ...] = ("test", "validation")


class Metrics(NamedTuple):
    """Means over a split: the recipe's loss, and its error (percent by default)."""

    loss: float
    error: float


@checked
def evaluate(recipe: Recipe, weights: Mapping[str, Tensor], split: Split = "test") -> Metrics:
    """Evaluate weights in evaluation mode, without augmentation, in the recipe's precision.

    Args:
        recipe: model, data, loss, error, precision.
        weights: a whole state dict.
        split: ``train``, ``validation`` or ``test``.
    """
    return evaluate_network(recipe, Network(recipe, weights), split)


def evaluate_splits(recipe: Recipe, network: Network) -> dict[str, float]:
    """``test_loss``, ``test_error`` and, if examples are held out, ``validation_*``: what a run's records hold."""
    found: dict[str, float] = {}
    for split in SPLITS:
        if recipe.arrays.size(split):
            metrics = evaluate_network(recipe, network, split)
            found |= {f"{split}_loss": metrics.loss, f"{split}_error": metrics.error}
    return found


@torch.no_grad()
def evaluate_network(recipe: Recipe, network: Network, split: Split, examples: int | None = None) -> Metrics:
    """The same for a network on its device, over at most ``examples``; leaves it in the mode it was in."""
    training = network.module.training
    network.module.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=network.device)
    count = 0
    for x, y in recipe.arrays.to(network.device).evaluation(split, BATCH):
        outputs = network(x)
        batch = torch.stack([recipe.loss_function(outputs, y).double(), recipe.error_function(outputs, y).double()])
        sums += batch * len(x)
        count += len(x)
        if examples is not None and count >= examples:
            break
    network.module.train(training)
    loss, error = (sums / count).tolist()
    return Metrics(loss, error)
