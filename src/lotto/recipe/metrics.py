"""Metrics of a split: what they are computed by, in which direction they are good, and their unit.

A metric is a function of all outputs and targets of a split, or a class whose objects are told batch after batch
(``update``) and asked at the end (``compute``), as those of torchmetrics are. What decides about levels is an *error*,
smaller is better: of a metric whose larger values are better it is the distance from the best one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lotto.core.check import checked
from lotto.core.errors import UsageError, text, unknown
from lotto.core.frozen import FrozenDict
from lotto.recipe.classification import F1, BinaryF1, Perplexity, auc, top_5_error
from lotto.recipe.objectives import misclassification, mse
from lotto.recipe.regression import r2

UP, DOWN = "up", "down"


@checked
@dataclass(frozen=True)
class Metric:
    """A metric with its direction.

    Attributes:
        compute: a function of (outputs, targets) of a split to a number, or a class with ``update(outputs, targets)``
            and ``compute()``, of which every evaluation makes an object.
        direction: ``down``: smaller is better; ``up``: larger is.
        best: the best value there is, of a metric that goes up: the error is the distance from it.
        unit: what follows a value in tables: ``%``, or nothing.

    >>> accuracy = Metric(lambda outputs, targets: (outputs.argmax(1) == targets).float().mean(), "up", best=1)
    >>> accuracy.error(0.75)
    0.25
    """

    compute: Callable[..., Any]
    direction: str = DOWN
    best: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not callable(self.compute):
            raise UsageError(
                f"A metric is computed by a function of (outputs, targets) or a class; got {text(self.compute)}."
            )
        if self.direction not in (UP, DOWN):
            raise unknown("direction of a metric", str(self.direction), (UP, DOWN))
        if (self.direction == UP) != (self.best is not None):
            raise UsageError(
                "A metric that goes up has a best value, such as best=1, from which its error is the distance; one "
                "that goes down has none: it is an error itself."
            )

    def error(self, value: float) -> float:
        """A value as an error: smaller is better."""
        return value if self.best is None else self.best - value

    def counter(self) -> Any:
        """An object of the metric's class; None of a function."""
        return self.compute() if is_counting(self.compute) else None


@dataclass(frozen=True)
class Error:
    """A metric as the error that decides.

    Attributes:
        name: the metric's.
        metric: see there.
    """

    name: str
    metric: Metric

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Of all outputs of a split."""
        counter = self.metric.counter()
        if counter is None:
            return self.metric.error(self.metric.compute(outputs, targets))
        counter.update(outputs, targets)
        return self.metric.error(counter.compute())

    @property
    def title(self) -> str:
        """``top-5``, or ``1 - f1`` of a metric that goes up."""
        return self.name if self.metric.best is None else f"{self.metric.best:g} − {self.name}"


def is_counting(value: Any) -> bool:
    """Whether it is a class of metrics that are told batch after batch."""
    return isinstance(value, type) and hasattr(value, "update") and hasattr(value, "compute")


METRICS: dict[str, Metric] = {
    "error": Metric(misclassification, unit="%"),
    "misclassification": Metric(misclassification, unit="%"),
    "top-5": Metric(top_5_error, unit="%"),
    "perplexity": Metric(Perplexity),
    "mse": Metric(mse),
    "f1": Metric(F1, UP, best=1),
    "f1-binary": Metric(BinaryF1, UP, best=1),
    "auc": Metric(auc, UP, best=1),
    "r2": Metric(r2, UP, best=1),
}
"""Those that have names."""


def named(given: Any) -> FrozenDict[Metric | str]:
    """Metrics by name, from such a mapping, a list of known names or one text of these; known names stay texts.

    Raises:
        UsageError: for what is none.
    """
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",")]
    if not isinstance(given, Mapping):
        if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
            raise UsageError(f"metrics are named, such as {{'error': 'error', 'f1': 'f1'}}; got {text(given)}.")
        given = {name: name for name in given}
    found: dict[str, Metric | str] = {}
    for name, metric in given.items():
        if not isinstance(name, str) or not name or name in ("loss", "examples"):
            raise UsageError(f"A metric's name is a text, and not 'loss'; got {text(name)}.")
        if isinstance(metric, str) and metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        found[name] = metric if isinstance(metric, str | Metric) else Metric(metric)
    return FrozenDict(found)


def of(metric: Metric | str) -> Metric:
    """A metric, perhaps by its name."""
    return METRICS[metric] if isinstance(metric, str) else metric


@torch.no_grad()
def check_direction(name: str, metric: Metric, outputs: Any, targets: Any) -> None:
    """Raise ``UsageError`` if a metric says that wrong predictions are better than right ones.

    Args:
        name: what it is called.
        metric: somebody's own.
        outputs: of some examples, for their shape.
        targets: of these.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or len(targets) < 2:
        return
    right, wrong = _predictions(outputs, targets)
    values = []
    with contextlib.suppress(Exception):  # of one that reads something else
        values = [float(Error(name, Metric(metric.compute))(given, targets)) for given in (right, wrong)]
    if len(values) < 2 or not all(map(math.isfinite, values)) or values[0] == values[1]:
        return
    if (values[0] > values[1]) == (metric.direction == DOWN):
        other = (
            "direction='up', best=1: lotto.recipe.Metric(function, 'up', best=1)" if metric.direction == DOWN
            else "direction='down', without best"
        )  # fmt: skip
        raise UsageError(
            f"The metric {name!r} is {values[0]:.4g} for right predictions and {values[1]:.4g} for wrong ones, so that "
            f"it does not go {metric.direction}: say {other}."
        )


def _predictions(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs that are right, and such that are wrong."""
    if targets.is_floating_point():
        right = targets.reshape(outputs.shape) if targets.numel() == outputs.numel() else targets
        return right, right.roll(1, 0) + right.std() + 1
    classes = outputs.shape[1] if outputs.dim() > targets.dim() else 1
    kept = targets.clamp(min=0)
    if classes == 1:
        right = (2.0 * (kept > 0) - 1).reshape(outputs.shape)
        return right, -right
    right, wrong = (F.one_hot(t % classes, classes).movedim(-1, 1).double() * 10 for t in (kept, kept + 1))
    return right, wrong
