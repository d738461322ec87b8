"""What a trained classifier says of every test example, as a task: its classes, its mistakes, its probabilities."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError
from lotto.core.rng import private_rng, torch_seed
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.data.source import ENDLESS
from lotto.execution.task import OnStep, Task
from lotto.landscape.path import check_ends
from lotto.papers.hidden.calibration import BINS, brier, calibration_error, log_loss
from lotto.recipe.outputs import WithLoss
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import in_nats
from lotto.training.evaluation import examples_of
from lotto.training.mistakes import Mistakes, wrong_predictions
from lotto.training.network import Network
from lotto.training.outputs import outputs_of


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of the test examples.

    Attributes:
        predicted: the class of every example, shape (examples,).
        mistakes: which of them are wrong.
        class_errors: error of each class in percent, shape (classes,); NaN of a class without examples.
        log_loss, brier, calibration_error: see `hidden.calibration`.

    >>> one = Predictions(np.array([0, 1, 1]), Mistakes.of([False, False, True]), np.array([50.0, 0.0]), 0.2, 0.1, 0.1)
    >>> one.worst_class, one.spread
    (50.0, 25.0)
    """

    predicted: np.ndarray
    mistakes: Mistakes
    class_errors: np.ndarray
    log_loss: float
    brier: float
    calibration_error: float

    @property
    def worst_class(self) -> float:
        """Error of the class with the largest one, in percent."""
        return float(np.nanmax(self.class_errors))

    @property
    def spread(self) -> float:
        """Standard deviation of the errors of classes, in points."""
        return float(np.nanstd(self.class_errors))

    def largest_rise(self, other: Predictions) -> float:
        """How much larger than the other's the error of a class is, of the class where that is most; in points."""
        return float(np.nanmax(self.class_errors - other.class_errors))

    def changed(self, other: Predictions) -> float:
        """The share of examples of which the two predict different classes."""
        return float((self.predicted != other.predicted).mean())

    def flipped(self, other: Predictions) -> float:
        """The share of examples that one of the two gets right and the other wrong."""
        return float((self.mistakes.wrong != other.mistakes.wrong).mean())


def check_probabilities(recipe: Recipe) -> None:
    """Raise ``UsageError`` unless networks of a recipe give each test example probabilities of classes."""
    if recipe.loop is not None or not recipe.in_points or not in_nats(recipe.loss_function):
        raise UsageError(
            "Changed examples, errors of classes and calibration are those of a classifier that is trained by "
            f"cross-entropy and judged by its share of mistakes; {recipe.name} is trained or judged by something else."
        )
    if not BINS <= recipe.arrays.size("test") < ENDLESS:
        raise UsageError(
            f"Calibration is measured in {BINS} bins of test examples, of all there are; {recipe.arrays.name} has "
            f"{'no end of' if recipe.arrays.size('test') >= ENDLESS else recipe.arrays.size('test')} test examples."
        )
    logits_of(recipe, recipe.initial(0), 2)


@private_rng(torch_seed(0, "evaluation"))  # numbers that a network draws are the same for all weights
@torch.no_grad()
def logits_of(recipe: Recipe, weights: Weights, examples: int | None = None) -> tuple[Tensor, Tensor]:
    """The outputs for the test examples, shape (examples, classes), and their classes.

    Args:
        recipe: model and data.
        weights: a whole state dict.
        examples: at most so many, the first ones; None = all.

    Raises:
        UsageError: if an example is not one class of several.
    """
    network = Network(recipe, weights)
    network.module.eval()
    outputs, found = outputs_of(recipe, network), []
    for x, y in examples_of(recipe, network, "test", examples):
        read = recipe.read(outputs(x))
        if wrong_predictions(read, y) is None:
            raise UsageError(
                f"Of every test example {recipe.name} predicts something else than one class of several, so that it "
                "has no predicted class to compare."
            )
        found.append(((read.prediction if isinstance(read, WithLoss) else read).cpu(), y.cpu()))
    logits, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, targets


@checked
@dataclass(frozen=True, eq=False)
class PredictionsTask(Task):
    """A network's predictions on the test examples as a task for an engine.

    Attributes:
        recipe: model, data, precision.
        weights: a whole state dict.
        bins: of the expected calibration error.
        label: what progress displays call it.

    >>> (outcome,) = lotto.engine.make(jobs=1).run([PredictionsTask(recipe, weights, bins=5)])
    >>> predictions_of(outcome).mistakes.error == lotto.evaluate(recipe, weights).error
    True
    """

    kind = "predictions"

    recipe: Recipe
    weights: Weights
    bins: Count = BINS
    label: str = ""

    def __post_init__(self) -> None:
        check_ends(self.recipe, self.weights)

    @property
    def size(self) -> int:
        """One step."""
        return 1

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Evaluate; returns what `predictions_of` reads."""
        logits, targets = logits_of(self.recipe, self.weights)
        classes, predicted = logits.shape[1], logits.argmax(1)
        wrong = predicted != targets
        small = np.ascontiguousarray(predicted.numpy(), dtype=np.min_scalar_type(classes - 1))
        if on_step is not None:
            on_step(1, 0.0)
        return {
            "predicted": {"dtype": small.dtype.str, "classes": base64.b64encode(small.tobytes()).decode()},
            "mistakes": Mistakes.of(wrong).plain(),
            "class_examples": torch.bincount(targets, minlength=classes).tolist(),
            "class_wrong": torch.bincount(targets[wrong], minlength=classes).tolist(),
            "log_loss": log_loss(logits, targets),
            "brier": brier(logits, targets),
            "calibration_error": calibration_error(logits, targets, self.bins),
        }

    __repr__ = shown


def predictions_of(outcome: Mapping[str, Any]) -> Predictions:
    """The predictions that a `PredictionsTask` computed."""
    of, classes = outcome["predicted"], zip(outcome["class_wrong"], outcome["class_examples"], strict=True)
    return Predictions(
        np.frombuffer(base64.b64decode(of["classes"]), np.dtype(of["dtype"])),
        Mistakes.from_plain(outcome["mistakes"]),
        np.array([100 * wrong / examples if examples else math.nan for wrong, examples in classes]),
        outcome["log_loss"], outcome["brier"], outcome["calibration_error"],
    )  # fmt: skip
