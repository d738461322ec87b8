"""Losses and errors as (sum, weight): batches of any size add up to the value of a whole split.

The mean over a batch is a sum divided by a weight: the number of examples; of targets that are not left out; the
weights of the targets' classes. For the objectives of ours and of torch the weight is known. What is not known here, F1
or R² or somebody's own loss, may be no mean at all and is computed from all outputs of a split at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotto.recipe.classification import top_5_error
from lotto.recipe.model_loss import ModelLoss
from lotto.recipe.objectives import IGNORED, Objective, misclassification, mse
from lotto.recipe.outputs import OfPrediction

Totals = Callable[[Tensor, Tensor], tuple[Tensor, "Tensor | float"]]
"""From (outputs, targets) of a batch to a sum (or the mean) and its weight."""
Weight = Callable[[Tensor, Tensor], "Tensor | int"]
"""From (outputs, targets) of a batch to what the mean over it was divided by."""

IN_NATS = {nn.CrossEntropyLoss, nn.NLLLoss, F.cross_entropy, F.nll_loss}
"""Log-likelihoods of classes."""
BY_TARGETS = {*IN_NATS, misclassification, top_5_error}
"""Divided by the number of targets that are not left out, or by the weights of their classes."""
BY_EXAMPLES = {
    mse, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss,
    nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss, nn.MultiMarginLoss, nn.MultiLabelMarginLoss,
    nn.HingeEmbeddingLoss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits, F.kl_div, F.poisson_nll_loss, F.soft_margin_loss,
    F.multilabel_soft_margin_loss, F.multi_margin_loss, F.multilabel_margin_loss, F.hinge_embedding_loss,
}  # fmt: skip
"""Means over examples or over elements, of which every example has as many."""


@dataclass(frozen=True)
class Ratio:
    """An objective of one's own that is a sum over a weight, so that it needs no more than a batch at a time.

    Attributes:
        totals: (outputs, targets) of a batch to its sum and the weight of that, such as the number of tokens.

    >>> loss = Ratio(lambda outputs, targets: ((outputs - targets).abs().sum(), targets.numel()))
    >>> float(loss(torch.ones(2, 3), torch.zeros(2, 3)))
    1.0
    """

    totals: Totals

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over a batch."""
        total, weight = self.totals(outputs, targets)
        return total / weight


def mean_of(objective: Objective) -> Totals | None:
    """The objective's mean over a batch and the weight of that; None if batches do not add up."""
    if isinstance(objective, Ratio):
        given = objective.totals
        return lambda outputs, targets: _divided(*given(outputs, targets))
    if (weight_of := weight(objective)) is None:
        return None
    return lambda outputs, targets: (objective(outputs, targets), weight_of(outputs, targets))


def totals_of(objective: Objective) -> Totals | None:
    """The objective as sum and weight of a batch; None if its value for a split is known from all outputs only."""
    if isinstance(objective, Ratio):
        return objective.totals
    if (mean := mean_of(objective)) is None:
        return None

    def totals(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float]:
        value, found = mean(outputs, targets)
        if not isinstance(found, Tensor):
            return value.double() * found, found
        # A batch without any target to count has no mean: its sum is 0.
        if found.device.type == "cpu":
            number = found.item()
            return value.double() * number if number else torch.zeros((), dtype=torch.float64), number
        return torch.where(found > 0, value.double() * found, 0.0), found

    return totals


def _divided(total: Tensor, weight: Tensor | float) -> tuple[Tensor, Tensor | float]:
    return total / weight, weight


def weight(objective: Objective) -> Weight | None:
    """What the objective's mean over a batch is divided by; None where that is not known."""
    if isinstance(objective, ModelLoss):
        return lambda outputs, targets: objective.weight(targets)
    if isinstance(objective, OfPrediction):
        inner, aligned = weight(objective.objective), objective.aligned
        return None if inner is None else lambda outputs, targets: inner(*aligned(outputs, targets))
    what, options = _known(objective)
    if what in BY_EXAMPLES and options.get("reduction", "mean") in ("mean", "batchmean"):
        return lambda outputs, targets: len(targets)
    if what in BY_TARGETS and options.get("reduction", "mean") == "mean":
        return functools.partial(_by_targets, ignored=ignored(objective), classes=options.get("weight"))
    return None


def reads_tensor(objective: Objective) -> bool:
    """Whether an objective is known to read one tensor of outputs."""
    return _known(objective)[0] in BY_TARGETS | BY_EXAMPLES


def in_nats(objective: Objective) -> bool:
    """Whether a loss is a log-likelihood of classes, so that it has a unit of its own."""
    return _known(objective)[0] in IN_NATS


def ignored(objective: Objective) -> int:
    """The class of the targets that an objective leaves out: torch's -100 unless it says another."""
    return int(_known(objective)[1].get("ignore_index", IGNORED))


def target_weight(objective: Objective, seen: Callable[[int], bool]) -> Callable[[Tensor], Tensor] | None:
    """From a batch's targets to its weight; None if all batches of one size weigh alike, or that is not known.

    Args:
        objective: a loss.
        seen: whether a class is among the targets.
    """
    if isinstance(objective, ModelLoss):
        return lambda targets: torch.as_tensor(objective.weight(targets), dtype=torch.float64)
    what, options = _known(objective)
    if what not in BY_TARGETS or options.get("reduction", "mean") != "mean":
        return None
    without, classes = ignored(objective), options.get("weight")
    if classes is None and not seen(without):
        return None
    return lambda targets: torch.as_tensor(_by_targets(None, targets, without, classes), dtype=torch.float64)


def _by_targets(outputs: Tensor | None, targets: Tensor, ignored: int, classes: Tensor | None) -> Tensor | int:
    if targets.is_floating_point():  # probabilities of classes
        return targets.numel() // targets.shape[1] if targets.dim() > 1 else 1
    counted = targets != ignored
    if classes is None:
        return counted.sum()
    chosen = classes.to(targets.device).double()[torch.where(counted, targets, 0)]
    return torch.where(counted, chosen, 0.0).sum()


def _known(objective: Any) -> tuple[Any, Mapping[str, Any]]:
    """What the objective is, and its options; (None, {}) for a changed one and for anybody's own."""
    if isinstance(objective, functools.partial):
        plain = (
            not objective.args and _hashable(objective.func) and not {"size_average", "reduce"} & {*objective.keywords}
        )
        return (objective.func, objective.keywords) if plain else (None, {})
    if isinstance(objective, nn.Module):
        plain = not (objective._forward_hooks or objective._forward_pre_hooks or "forward" in vars(objective))
        return (type(objective), {**vars(objective), **objective._buffers}) if plain else (None, {})
    return (objective, {}) if _hashable(objective) else (None, {})


def _hashable(value: Any) -> bool:
    return callable(value) and getattr(type(value), "__hash__", None) is not None
