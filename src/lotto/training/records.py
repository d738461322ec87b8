"""What a run's history says, and at which steps.

A step costs about three times what its examples cost to evaluate. On the way the test set is therefore evaluated on
every n-th example, so that the curve costs a few percent of the training; the figures at the end are of all. Between
the two stands the record of a dense training at three quarters, which says whether it has converged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lotto.core.errors import DivergedError
from lotto.recipe.recipe import Recipe
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import SPLITS, can_skip, tally
from lotto.training.job import Job
from lotto.training.mask_entries import shares
from lotto.training.network import Network

CURVE_PART = 0.03
"""Of a training's work, in examples passed forward: a step counts thrice. Evaluation is at most about so much of it."""
LATE_PART = 0.02
"""The same of one record more exact than the curve: that at three quarters of a dense training."""
CURVE_EXAMPLES = 1_000
"""Fewer examples than these are never taken for a point of the curve: its spread would hide what happens."""
PASSES = 3


def evaluation_steps(recipe: Recipe, job: Job) -> set[int]:
    """Steps after which the network is evaluated: spread evenly over the recipe's training, and the end."""
    return {*evenly(recipe), job.end}


def evenly(recipe: Recipe) -> list[int]:
    """Steps after which any training of the recipe is evaluated."""
    total, times = recipe.total, recipe.evaluations
    return [round(total * i / times) for i in range(1, times + 1)]


def late_step(recipe: Recipe, steps: Iterable[int] | None = None) -> int:
    """The step of the record that is nearest to three quarters of a training, the earlier of two; the end if none.

    Args:
        recipe: says how long the training is.
        steps: of the records, increasing; None = of those that are made.
    """
    total = recipe.total
    return min(steps or evenly(recipe), key=lambda step: abs(4 * step - 3 * total), default=total)


def curve_stride(recipe: Recipe, size: int) -> int:
    """Every how manieth of ``size`` examples is evaluated before the end of a training."""
    points = recipe.evaluations - 1
    if points < 1 or not can_skip(recipe):
        return 1
    work = CURVE_PART * PASSES * recipe.total * recipe.step_examples
    return max(1, math.ceil(size / max(CURVE_EXAMPLES, (work - size) / points)))


def late_stride(recipe: Recipe, size: int) -> int:
    """The same of a dense training's record at `late_step`."""
    work = LATE_PART * PASSES * recipe.total * recipe.step_examples
    return min(curve_stride(recipe, size), max(1, math.ceil(size / work)))


def add_record(point: Checkpoint, job: Job, network: Network) -> None:
    """Add to a history: losses since the last record, losses and errors on the splits.

    At the end of the job these are of all examples, and which of the test set are wrong is kept; before, they are of
    every n-th, and ``SPLIT_examples`` says of how many.
    """
    recipe, final = job.recipe, point.step == job.end
    stride_of = late_stride if job.mask is None and point.step == late_step(recipe) else curve_stride
    found: dict[str, float] = {
        "step": point.step,
        "learning_rate": recipe.learning_rate(max(0, point.step - 1)),
        "train_loss": point.mean_loss,
    }
    for split in SPLITS:
        if not (size := recipe.arrays.size(split)):
            continue
        chooses = split == "validation" and recipe.reported == "best"
        stride = 1 if final or chooses else stride_of(recipe, size)
        counted = tally(recipe, network, split, stride=stride, keep_mistakes=final and split == "test", more=True)
        found |= counted.metrics().entries(split)
        if stride > 1:
            found[f"{split}_examples"] = -(-size // stride)
        if final and split == "test":
            point.mistakes = counted.mistakes
    point.history.append(found | shares(point.state.optimizer))


def collect(point: Checkpoint, losses: Sequence[float], job: Job, weights: Sequence[float] | None = None) -> None:
    """Add the losses of the last steps, one by one so that the sum does not depend on when it is called.

    Args:
        point: where they are added.
        losses: of each step.
        job: what is trained.
        weights: of each loss in their mean; None = they weigh alike. One of weight 0 is of no target: it is NaN.
    """
    first = point.step - len(losses)
    for i, (value, weight) in enumerate(zip(losses, weights or [1] * len(losses), strict=True)):
        if not weight:
            continue
        if not math.isfinite(value):
            raise DivergedError(
                f"The loss of {job.label or job.recipe.name} became {value} at step {first + i} (learning rate "
                f"{job.recipe.learning_rate(first + i):.3g}). Try a lower learning rate, a warm-up, or float32.",
                first + i,
            )
        point.loss_sum += value * weight
        point.loss_count += weight
