"""Metrics of classes: top-5, F1, the area under the ROC curve, perplexity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lotto.core.errors import UsageError
from lotto.recipe.objectives import IGNORED
from lotto.recipe.outputs import prediction


def _of_classes(outputs: Tensor, targets: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Outputs (targets, classes) and targets (targets,), without those that are left out."""
    outputs = prediction(outputs)
    if targets.is_floating_point() or targets.shape != (*outputs.shape[:1], *outputs.shape[2:]):
        raise UsageError(
            f"{what} needs integer targets, one class for each prediction; got {targets.dtype} of shape "
            f"{tuple(targets.shape)} for outputs {tuple(outputs.shape)}."
        )
    flat = outputs.movedim(1, -1).reshape(-1, outputs.shape[1]) if outputs.dim() > 1 else outputs.reshape(-1, 1)
    counted = targets.reshape(-1) != IGNORED
    return flat[counted], targets.reshape(-1)[counted]


def top_5_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets that are not among the five classes with the largest outputs, in percent; shapes of `misclassification`.

    >>> float(top_5_error(torch.eye(6), torch.tensor([0, 1, 2, 3, 4, 5])))
    0.0
    """
    outputs, targets = _of_classes(outputs, targets, "The top-5 error")
    found = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    return 100 * (found != targets[:, None]).all(1).double().mean()


class Perplexity:
    """The exponential of the mean cross-entropy over all targets that count.

    >>> perplexity = Perplexity()
    >>> perplexity.update(torch.zeros(3, 4), torch.tensor([0, 1, -100]))
    >>> round(float(perplexity.compute()), 6)
    4.0
    """

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch, shapes as those of `misclassification`."""
        outputs, targets = _of_classes(outputs, targets, "Perplexity")
        self.total += float(F.cross_entropy(outputs.double(), targets, reduction="sum"))
        self.count += len(targets)

    def compute(self) -> Tensor:
        """Of all that was counted."""
        return torch.tensor(self.total / self.count if self.count else math.nan, dtype=torch.float64).exp()


def auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """The area under the ROC curve of two classes: how often one of class 1 is above one of class 0, ties half.

    Args:
        outputs: shape (examples, 2), whose difference is the score, or one score for each.
        targets: 0 or 1.

    Returns:
        A number; NaN if one of the classes does not occur.

    Raises:
        UsageError: for more classes.

    >>> float(auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1])))
    0.75
    """
    outputs, labels = prediction(outputs).double(), targets.reshape(-1)
    scores = outputs[:, 1] - outputs[:, 0] if outputs.dim() == 2 and outputs.shape[1] == 2 else outputs.reshape(-1)
    if scores.shape != labels.shape or not bool(((labels == 0) | (labels == 1)).all()):
        raise UsageError(
            f"auc is of two classes, 0 and 1, by one score or two outputs each; got outputs {tuple(outputs.shape)}."
        )
    positive = int((labels == 1).sum())
    if not 0 < positive < len(labels):
        return torch.tensor(math.nan)
    _, place, count = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0) - (count - 1) / 2.0)[place]  # from 1 on, the mean among equal ones
    below = ranks[labels == 1].sum() - positive * (positive + 1) / 2
    return below / (positive * (len(labels) - positive))


class F1:
    """The F1 score, macro: the mean over the classes that occur in targets or predictions.

    >>> score = F1()
    >>> score.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]))
    >>> round(float(score.compute()), 4)
    0.5556
    """

    binary = False

    def __init__(self) -> None:
        self.counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch, shapes as those of `misclassification`."""
        outputs = prediction(outputs)
        if self.binary and (outputs.dim() == targets.dim() or outputs.shape[1] == 1):
            outputs = torch.stack([-outputs.reshape(targets.shape), outputs.reshape(targets.shape)], 1)
        outputs, targets = _of_classes(outputs, targets, "F1")
        classes = outputs.shape[1]
        if self.binary and classes != 2:
            raise UsageError(f"The binary F1 is of two classes; the network has {classes} outputs; 'f1' is macro.")
        pairs = torch.bincount(targets * classes + outputs.argmax(1), minlength=classes * classes)
        found = pairs.reshape(classes, classes).cpu()
        self.counts = found if self.counts is None else self.counts + found

    def compute(self) -> Tensor:
        """Of all that was counted."""
        if self.counts is None:
            return torch.tensor(math.nan)
        counts = self.counts.double()
        right, expected, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        scores = 2 * right / (expected + predicted).clamp(min=1)
        return scores[1] if self.binary else scores[expected + predicted > 0].mean()


class BinaryF1(F1):
    """The F1 score of class 1 alone, by two outputs or by one, which says class 1 above 0.

    >>> score = BinaryF1()
    >>> score.update(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1, 0, 1]))
    >>> float(score.compute())
    0.5
    """

    binary = True
