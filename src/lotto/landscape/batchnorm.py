"""BatchNorm: whether a model keeps running statistics, and their re-estimation for weights that were not trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.data.batch import Batch, count, joined
from lotto.recipe.recipe import Recipe
from lotto.training.batch_size import activations, eval_batch
from lotto.training.evaluation import examples_of
from lotto.training.network import NORMS, Network
from lotto.training.outputs import batch_statistics
from lotto.training.own_batches import examples_in, own_batches, own_loss

STATISTICS_BYTES = 128 << 20
"""Batches are so large that their largest activation takes this much memory, or as large as in an evaluation."""


def has_batchnorm(recipe: Recipe) -> bool:
    """Whether the recipe's model keeps running statistics."""
    return any(isinstance(m, NORMS) and m.track_running_stats for m in recipe.meta_model().modules())


@torch.no_grad()
def recompute_statistics(recipe: Recipe, network: Network, examples: int | None = None) -> None:
    """Re-estimate BatchNorm's running statistics: mean and unbiased variance of what each layer receives.

    They are exact over all values of all examples, combined from those of batches by their counts in float64. A layer
    behind another one receives what that makes of its batch; small networks have a single batch. Examples come in
    their own order and are not augmented, so the outcome is a function of the weights.

    Args:
        recipe: the data.
        network: gets the statistics; is left in evaluation mode.
        examples: at most so many training examples; None = the recipe's ``bn_examples``. Of a loop of one's own, whose
            loss is run on its batches, whole batches until there are as many.

    Raises:
        UsageError: if there is one value only, or statistics are not finite.
    """
    # A layer that the model's own `train` keeps in evaluation mode has statistics that training does not move either.
    parts = network.module.train().modules()
    norms = [m for m in parts if isinstance(m, NORMS) and m.track_running_stats and m.training]
    network.module.eval()
    if not norms:
        return
    wanted = examples or recipe.bn_examples
    if recipe.loop is not None:
        _settled(norms, _losses(recipe, network, wanted), wanted)
        return
    wanted = min(wanted, recipe.arrays.size())
    batch = -(-wanted // -(-wanted // statistics_batch(recipe, network)))  # batches as equal as can be
    if batch == wanted and _of_one_batch(recipe, network, wanted):
        return
    _settled(
        norms, (network(x) for x, _ in _without_single(examples_of(recipe, network, "train", wanted, batch))), wanted
    )


def _losses(recipe: Recipe, network: Network, wanted: int) -> Iterator[Tensor]:
    for batch in own_batches(recipe, network):
        yield own_loss(recipe, network, batch)[0]
        wanted -= examples_in(batch) or 0
        if wanted <= 0:
            return


def _settled(norms: Sequence[Any], passes: Iterable[Tensor], wanted: int) -> None:
    """Give layers the statistics of what they receive in forward passes, which are made one after the other."""
    found = [_Moments(norm) for norm in norms]
    try:
        for _ in passes:
            pass
    except ValueError as error:
        raise UsageError(
            f"BatchNorm statistics cannot be re-estimated from {wanted} training examples: {error}"
        ) from error
    finally:
        for moments in found:
            moments.settle()
    _check_finite(norms)


def _check_finite(norms: Iterable[Any]) -> None:
    if not math.isfinite(float(sum(n.running_var.sum() for n in norms if isinstance(n.running_var, Tensor)))):
        raise UsageError("The re-estimated BatchNorm statistics are not finite: the network's activations overflow.")


def _of_one_batch(recipe: Recipe, network: Network, wanted: int) -> bool:
    """Give a network the statistics of its first ``wanted`` examples by kernels, if it has them; returns whether."""
    x, _ = next(examples_of(recipe, network, "train", wanted, wanted))
    statistics = batch_statistics(recipe, network, x)
    if statistics is None:
        return False
    buffers = dict(network.module.named_buffers())
    for name, value in statistics.items():
        buffers[name].copy_(value)
        buffers[f"{name.rpartition('.')[0]}.num_batches_tracked"].fill_(1)
    _check_finite(norm for norm in network.module.modules() if isinstance(norm, NORMS))
    return True


def statistics_batch(recipe: Recipe, network: Network) -> int:
    """Examples of a batch: never fewer than in training, where gradients take memory as well."""
    if recipe.eval_batch_size is not None:
        return max(recipe.batch_size, recipe.eval_batch_size)
    largest = activations(recipe, network).largest
    return max(recipe.batch_size, eval_batch(recipe, network), STATISTICS_BYTES // max(1, largest))


def _without_single(batches: Iterable[Batch]) -> Iterator[Batch]:
    """A last batch of one example goes with the one before: alone it may have no variance."""
    held: Batch | None = None
    for x, y in batches:
        if held is not None and count(x) == 1:
            held = joined([held, Batch(x, y)])
            continue
        if held is not None:
            yield held
        held = Batch(x, y)
    if held is not None:
        yield held


class _Moments:
    """Count, mean and sum of squared deviations of what a layer receives, by channel; it normalises by its batch."""

    def __init__(self, norm: Any) -> None:
        self.norm, self.momentum = norm, norm.momentum
        self.count = 0
        norm.reset_running_stats()
        norm.momentum = 1.0  # so that running statistics are those of the batch
        norm.train()
        self.hook = norm.register_forward_hook(self._add, with_kwargs=True)

    def _add(self, norm: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        x: Tensor = inputs[0] if inputs else named["input"]
        values = x.numel() // x.shape[1]
        # Copies, in float64 as well: the next batch overwrites the layer's own.
        mean, variance = (t.to(torch.float64, copy=True) for t in (self.norm.running_mean, self.norm.running_var))
        squares = variance * (values - 1)
        if not self.count:
            self.count, self.mean, self.squares = values, mean, squares
            return
        total, step = self.count + values, mean - self.mean
        self.squares = self.squares + squares + step**2 * (self.count * values / total)
        self.mean = self.mean + step * (values / total)
        self.count = total

    def settle(self) -> None:
        """Give the layer its statistics, and all else as it was; in evaluation mode."""
        self.hook.remove()
        self.norm.momentum = self.momentum
        self.norm.eval()
        if self.count > 1:
            self.norm.running_mean.copy_(self.mean)
            self.norm.running_var.copy_(self.squares / (self.count - 1))
