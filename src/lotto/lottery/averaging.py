"""Particles: copies of one ticket trained on different data orders, and their average (SWAMP, 2305.14852).

The mean of weights that SGD leaves in one linearly connected region lies deeper in it than each of them; pruning the
mean then goes by magnitudes that no single data order has decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lotto.core.shown import shown
from lotto.core.weights import Weights, mean
from lotto.execution.procedures import Procedure
from lotto.execution.task import OnStep, Task
from lotto.landscape.batchnorm import NORMS, recompute_statistics
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import evaluate_splits
from lotto.training.job import Job, Run, State
from lotto.training.network import Network


@dataclass(frozen=True, eq=False)
class AverageTask(Task):
    """Evaluate averaged weights, with BatchNorm statistics re-estimated for them.

    Attributes:
        recipe: model, data, loss, error, precision.
        weights: the average.
        label: what progress displays call it.
    """

    kind = "average"
    reads = "statistics"

    recipe: Recipe
    weights: Weights
    label: str = ""

    @property
    def size(self) -> int:
        """One step."""
        return 1

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Returns ``metrics``, as in a run's history, and ``statistics``: BatchNorm's buffers by name."""
        network = Network(self.recipe, self.weights)
        recompute_statistics(self.recipe, network)
        metrics = evaluate_splits(self.recipe, network)
        if on_step is not None:
            on_step(1, metrics["test_loss"])
        norms = [f"{n}." for n, m in network.module.named_modules() if isinstance(m, NORMS)]
        buffers = {n: b.tolist() for n, b in network.module.named_buffers() if n.startswith(tuple(norms))}
        return {"metrics": metrics, "statistics": buffers if norms else {}}

    __repr__ = shown


def averaged_procedure(jobs: Sequence[Job], trained: Sequence[Run] = ()) -> Procedure[tuple[Run, list[Run]]]:
    """Train jobs that differ in the data order only; returns the average of their ends as a run, and their runs.

    Args:
        jobs: the particles to train.
        trained: particles that have been trained already.

    The average's training loss is the mean over the particles; its own duration is 0. A particle that diverged stands
    for the average.
    """
    runs: list[Run] = yield list(jobs)
    every, first = [*trained, *runs], jobs[0]
    for run in every:
        if run.diverged:  # the average of the others is not what was asked for
            return run, runs
    weights = mean([run.weights for run in every])
    (found,) = yield [AverageTask(first.recipe, weights, f"{first.label} · average of {len(every)}")]
    for name, values in found["statistics"].items():
        weights[name] = torch.tensor(values, dtype=weights[name].dtype).reshape(weights[name].shape)
    record = {
        "step": first.end,
        "learning_rate": runs[0].history[-1]["learning_rate"],
        "train_loss": float(np.mean([run.history[-1]["train_loss"] for run in every])),
        **found["metrics"],
    }
    return Run((first.from_step, first.end), [record], {first.end: State(weights)}), runs
