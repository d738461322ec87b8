"""A recipe whose training is a loop of the user's: what stands where the loop has its own data, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from lotto.core.check import checked
from lotto.core.duration import MOST
from lotto.core.errors import UsageError
from lotto.data.source import DataSource, Split

UNKNOWN = MOST
"""The length of a loop that ends when it likes."""
IN_THE_LOOP = (
    "data", "optimizer", "schedule", "batch_size", "steps", "augment", "loss", "error", "validation", "evaluations",
    "channels_last", "compile", "graphs", "clip_norm", "accumulate", "batch_groups", "ema", "weights", "patience",
    "output", "metrics", "decide_by",
)  # fmt: skip
"""Fields of a recipe in whose place a loop has code of its own."""


@checked
@dataclass(frozen=True)
class OwnLoop:
    """A whole training as a function of the user's.

    Attributes:
        fit: ``fit(model, *, start_step, seed) -> metrics`` trains the module in place, from ``start_step`` of its own
            schedule on, in the data order ``seed``, and returns numbers by name, ``error`` among them.
        key: a text that tells one version from another where code alone does not.
        evaluate: ``evaluate(model) -> {"error": ..., "loss": ...}`` of the test split, or ``evaluate(model, split)`` of
            any; for paths. None = there are none.
        loss: ``loss(model, batch)``, the mean over a batch's examples, or a pair of the sum and its weight; for
            curvature.
        batches: gives the training batches from the first on, each time that it is called.

    >>> OwnLoop(lambda model, start_step, seed: {"error": 1.0}).key
    ''
    """

    fit: Callable[..., Mapping[str, float]]
    key: str = ""
    evaluate: Callable[..., Mapping[str, float]] | None = None
    loss: Callable[..., Any] | None = None
    batches: Callable[..., Iterable[Any]] | None = None

    def __post_init__(self) -> None:
        if (self.loss is None) != (self.batches is None):
            raise UsageError(
                "loss= and batches= of lotto.Trainable come together: loss(model, batch) is the loss of one of the "
                "batches that batches() gives."
            )

    def entry(self, of: str) -> list[Any]:
        """What has a part in a run, an evaluation, one with statistics re-estimated, or a loss; empty if nothing has.

        What only paths and curvature call has no part in a run, which is found again when they are added.
        """
        parts: dict[str, list[Any]] = {
            "run": [self.fit], "evaluation": [self.evaluate], "loss": [self.loss, self.batches],
        }  # fmt: skip
        parts["statistics"] = parts["evaluation"] + parts["loss"]
        return [*parts[of], self.key] if any(parts[of]) else []


class OwnData(DataSource):
    """The data of a loop that has its own: there is nothing here to read."""

    name = "a loop of your own"
    fingerprint = "a loop's own data"

    def size(self, split: Split = "train") -> int | None:
        """A stream as far as anybody here knows."""
        return {"train": None, "test": 1}.get(split, 0)

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterable[Any]:
        """Refused."""
        no_data()

    def eval_batches(self, split: Split, batch_size: int) -> Iterable[Any]:
        """Refused."""
        no_data()


def error(outputs: Any, targets: Any) -> Tensor:
    """The error that a loop returns is no function of outputs and targets here."""
    no_data()


def no_loss(outputs: Any, targets: Any) -> Tensor:
    """Nor is its loss."""
    no_data()


def no_data(what: str = "this", give: str = "") -> NoReturn:
    """Raise ``UsageError``: what was asked for needs what only the loop knows.

    Args:
        what: what was asked for.
        give: which arguments of `lotto.Trainable` make it possible; empty = none do.
    """
    instead = f"give {give} as well" if give else "describe the training as a lotto.Recipe for it"
    raise UsageError(f"A loop of your own (lotto.Trainable) has its own data and loss; for {what}, {instead}.")


def check_change(fields: Collection[str]) -> None:
    """Raise ``UsageError`` for a field of a recipe whose change a loop would not see."""
    if unseen := [name for name in IN_THE_LOOP if name in fields]:
        raise UsageError(
            f"{unseen[0]} of a loop of your own (lotto.Trainable) is what its code says: another value here would "
            "change nothing. Change the loop, or describe the training as a lotto.Recipe."
        )
