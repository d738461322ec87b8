"""Losses that a network computes by itself: what they are means of, so that batches add up to a whole split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.rng import private_rng
from lotto.data.batch import Batch, Labelled, call, count, examples, mapped
from lotto.recipe.objectives import IGNORED
from lotto.recipe.outputs import own_loss

NEAR = 1e-6
"""Of a loss: by so much the parts of a batch may miss the whole, in float64."""


@dataclass(frozen=True)
class ModelLoss:
    """The loss of a network that was given the targets as ``labels=``, a mean over those that count.

    Attributes:
        shift: how many targets at the beginning of a sequence are not predicted: 1 for a causal language model.
    """

    shift: int = 0

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The mean over the batch."""
        return own_loss(outputs)

    def weight(self, targets: Any) -> Tensor | int:
        """What the mean is divided by: the integer targets that are not -100, or the examples."""
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return count(targets)
        return ((targets[:, self.shift :] if self.shift else targets) != IGNORED).sum()


@private_rng(0)
@torch.no_grad()
def model_loss(module: nn.Module, batch: Batch) -> ModelLoss:
    """The loss of a network by what it is a mean of, which two examples and their parts tell.

    Args:
        module: any weights.
        batch: two examples, with labels among the inputs.

    Raises:
        UsageError: if the network computes no loss, or one that is no mean over its targets.
    """
    module = module.double().eval()
    x = mapped(batch.inputs, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf)

    def loss(labels: Any, first: int = 0, last: int = 2) -> float:
        given = Labelled(x.inputs, labels) if isinstance(x, Labelled) else {**x, "labels": labels}
        return float(own_loss(call(module, examples(given, first, last))))

    labels = x.labels if isinstance(x, Labelled) else x["labels"]
    found = ModelLoss(int(_is_sequence(labels) and _skips_first(labels, loss)))
    if count(labels) < 2:
        return found
    labels = _uneven(labels)
    parts = [(loss(labels, i, i + 1), float(found.weight(examples(labels, i, i + 1)))) for i in (0, 1)]
    whole, weight = loss(labels), sum(w for _, w in parts)
    if not abs(sum(value * w for value, w in parts if w) - whole * weight) <= NEAR * weight * max(1.0, abs(whole)):
        raise UsageError(
            "loss='model': the loss that the model computes of a batch is no mean over the batch's targets (or its "
            "examples), so that batches do not add up to the loss of a split. Give loss= a function of (outputs, "
            "targets) instead, or lotto.recipe.totals.Ratio of one that returns its sum and its weight."
        )
    return found


def _is_sequence(labels: Any) -> bool:
    return isinstance(labels, Tensor) and not labels.is_floating_point() and labels.dim() == 2 and labels.shape[1] > 1


def _skips_first(labels: Tensor, loss: Callable[[Tensor], float]) -> bool:
    """Whether a sequence whose first target alone counts has no loss."""
    alone = torch.full_like(labels, IGNORED)
    alone[:, 0] = labels[:, 0].clamp(min=0)
    return not loss(alone) > 0


def _uneven(labels: Any) -> Any:
    """Labels of which the second example has fewer that count, so that parts weigh differently."""
    if not _is_sequence(labels):
        return labels
    changed: Tensor = labels.clone()
    changed[1, labels.shape[1] // 2 + 1 :] = IGNORED
    return changed
