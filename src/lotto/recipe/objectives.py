"""Losses and errors by name: functions of (outputs, targets) that return the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from lotto.core.errors import UsageError
from lotto.recipe.outputs import prediction

Objective = Callable[[Tensor, Tensor], Tensor]
IGNORED = -100
"""The class that torch's cross-entropy leaves out."""


def misclassification(outputs: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Wrong predictions in percent; ``outputs`` (batch, classes, ...), ``targets`` (batch, ...) integers.

    Args:
        outputs, targets: see above.
        ignore_index: targets of this class are left out, as torch's cross-entropy leaves them out.

    Raises:
        UsageError: if the targets are not integer classes.
    """
    outputs = prediction(outputs)
    if targets.is_floating_point() or targets.shape != (*outputs.shape[:1], *outputs.shape[2:]):
        raise UsageError(
            f"Misclassification needs integer targets, one class for each prediction; got {targets.dtype} of shape "
            f"{tuple(targets.shape)} for outputs {tuple(outputs.shape)}. For regression use error='mse'."
        )
    counted = targets != ignore_index
    return ((outputs.argmax(1) != targets) & counted).double().sum() / counted.sum() * 100


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error; integer classes count as one-hot vectors."""
    outputs = prediction(outputs)
    if not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    return F.mse_loss(outputs, targets.reshape(outputs.shape))


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error, in the unit of the targets; of a split it is that of all its examples at once."""
    return mse(prediction(outputs).double(), targets.double() if targets.is_floating_point() else targets).sqrt()


LOSSES: dict[str, Objective] = {"cross-entropy": F.cross_entropy, "mse": mse}
BY_MODEL = "model"
"""The loss that the network computes by itself; see `lotto.recipe.model_loss`."""
ERRORS: dict[str, Objective] = {"misclassification": misclassification, "mse": mse, "rmse": rmse}
