"""BatchNorm: whether a model keeps running statistics, and their re-estimation for weights that were not trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import BATCH
from lotto.training.network import NORMS, Network

RECOMPUTE_EXAMPLES = 10_000
"""BatchNorm statistics are re-estimated from so many training examples, without augmentation."""


def has_batchnorm(recipe: Recipe) -> bool:
    """Whether the recipe's model keeps running statistics."""
    return any(isinstance(m, NORMS) and m.track_running_stats for m in recipe.meta_model().modules())


@torch.no_grad()
def recompute_statistics(recipe: Recipe, network: Network, examples: int = RECOMPUTE_EXAMPLES) -> None:
    """Re-estimate BatchNorm's running statistics as plain averages over training examples.

    Examples come in their own order and are not augmented, so the outcome is a function of the weights.
    """
    # A layer that the model's own `train` keeps in evaluation mode has statistics that training does not move either.
    parts = network.module.train().modules()
    norms = [m for m in parts if isinstance(m, NORMS) and m.track_running_stats and m.training]
    network.module.eval()
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    seen = 0
    for x, _ in recipe.arrays.to(network.device).evaluation("train", BATCH):
        network(x)
        seen += len(x)
        if seen >= examples:
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    if not math.isfinite(float(sum(n.running_var.sum() for n in norms if isinstance(n.running_var, Tensor)))):
        raise UsageError("The re-estimated BatchNorm statistics are not finite: the network's activations overflow.")
