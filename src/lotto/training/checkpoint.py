"""What a training needs to go on as if nothing had happened."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lotto.core.shown import shown
from lotto.training.job import Crossovers, State
from lotto.training.mistakes import Mistakes


@dataclass
class Checkpoint:
    """A training on its way.

    Attributes:
        step: the next iteration to run.
        state: weights and optimizer before it.
        kept: the states kept so far.
        history: the records so far.
        loss_sum, loss_count: training losses since the last record, and how many they are (or their weights).
        seconds: duration so far.
        crossovers: see `training.job.Crossovers`.
        mistakes: at the end, which examples of the test set are wrong.

    >>> points = []
    >>> job = lotto.Job(recipe)
    >>> run = lotto.training.train(job, on_checkpoint=points.append, checkpoint_seconds=0)
    >>> lotto.training.train(job, resume=points[0]).test_loss == run.test_loss
    True
    """

    step: int
    state: State
    kept: dict[int, State] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: float = 0
    seconds: float = 0.0
    crossovers: Crossovers = None
    mistakes: Mistakes | None = None

    __repr__ = shown

    @property
    def mean_loss(self) -> float:
        """Mean training loss since the last record; NaN if there was no step."""
        return self.loss_sum / self.loss_count if self.loss_count else math.nan
