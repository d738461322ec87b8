"""The training loop: a job becomes a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from lotto.core.errors import DivergedError
from lotto.core.rng import private_torch_rng
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import evaluate_splits
from lotto.training.job import Job, Run, State
from lotto.training.learners import optimizer_state
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.perceptron import Perceptron, suits
from lotto.training.network import Network, flushed_denormals

Learner = Autograd | Perceptron
LOOK_EVERY, LOOK_RARELY = 50, 1000
"""Steps between looks at the losses, on a CPU; on a GPU at most."""


@dataclass
class Checkpoint:
    """Everything a run needs to go on as if nothing had happened.

    Attributes:
        step: the next iteration to run.
        state: weights and optimizer before it.
        kept: the states kept so far.
        history: the records so far.
        loss_sum, loss_count: training losses since the last record.
        seconds: duration so far.
    """

    step: int
    state: State
    kept: dict[int, State] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0


def train(
    job: Job,
    *,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[Checkpoint], None] | None = None,
    checkpoint_seconds: float = 30.0,
) -> Run:
    """Train one network.

    Args:
        job: what to train.
        resume: a checkpoint of the same job; the outcome is the same to the bit.
        on_step: called now and then with (steps done, mean loss lately).
        on_checkpoint: called with a checkpoint about every ``checkpoint_seconds``.
        checkpoint_seconds: see there.

    Returns:
        The run, with the states at the job's kept steps and at its end.

    Raises:
        DivergedError: when the loss becomes NaN or infinite.
    """
    point = resume or Checkpoint(job.from_step, job.initial_state())
    began = time.perf_counter() - point.seconds
    with flushed_denormals(), private_torch_rng():
        arithmetic = _run(job, point, on_step, on_checkpoint, checkpoint_seconds)
    seconds = time.perf_counter() - began
    return Run((job.from_step, job.end), point.history, point.kept, seconds=seconds, arithmetic=arithmetic)


def _run(
    job: Job,
    point: Checkpoint,
    on_step: Callable[[int, float], None] | None,
    on_checkpoint: Callable[[Checkpoint], None] | None,
    checkpoint_seconds: float,
) -> str:
    recipe = job.recipe
    network = Network(recipe, point.state.weights)
    learner = learner_of(job, network)
    optimizer_state.restore(learner, point.state.optimizer)
    began = time.perf_counter() - point.seconds
    records, patience = evaluation_steps(recipe, job), steps_between_looks(recipe, network.device)
    batches = recipe.arrays.to(network.device).batches(
        job.order_seed, point.step, job.end, recipe.batch_size, recipe.augment, learner.by_feature
    )
    losses: list[torch.Tensor] = []
    saved, looked = time.monotonic(), point.step

    def state() -> State:
        return State(learner.weights(), optimizer_state.read(learner))

    if point.step in job.steps:
        point.kept.setdefault(point.step, point.state)
    for step, (x, y) in enumerate(batches, start=point.step):
        losses.append(learner.train(x, y, step, recipe.learning_rate(step)))

        point.step = done = step + 1
        if done - looked == patience or done in records or done in job.steps or done == job.end:
            looked = done
            collect(point, fetched(losses), job)
            if on_step is not None:
                on_step(done, point.loss_sum / max(1, point.loss_count))
        if done in records:
            point.history.append(record(point, recipe, learner.evaluated()))
            point.loss_sum, point.loss_count = 0.0, 0
        if done in job.steps:
            point.kept[done] = state()
        if on_checkpoint is not None and done < job.end and time.monotonic() - saved > checkpoint_seconds:
            collect(point, fetched(losses), job)
            point.state = state()
            point.seconds = time.perf_counter() - began
            on_checkpoint(point)
            saved = time.monotonic()
    if not point.history or point.history[-1]["step"] != job.end:
        point.history.append(record(point, recipe, learner.evaluated()))
    return learner.describe()


def learner_of(job: Job, network: Network) -> Learner:
    """What computes the gradients of a job."""
    return Perceptron(job, network) if suits(job, network) else Autograd(job, network)


def evaluation_steps(recipe: Recipe, job: Job) -> set[int]:
    """Steps after which the network is evaluated: spread evenly over the recipe's training, and the end."""
    total, times = recipe.total, recipe.evaluations
    return {round(total * i / times) for i in range(1, times + 1)} | {job.end}


def steps_between_looks(recipe: Recipe, device: torch.device) -> int:
    """How often losses are fetched, to show them and to notice NaN: a GPU would have to be waited for each time."""
    return LOOK_EVERY if device.type == "cpu" else min(max(LOOK_EVERY, recipe.per_epoch), LOOK_RARELY)


def fetched(losses: list[torch.Tensor]) -> list[float]:
    """The losses of the last steps, from the device; empties the list."""
    values: list[float] = torch.stack(losses).double().tolist() if losses else []
    losses.clear()
    return values


def collect(point: Checkpoint, losses: Sequence[float], job: Job) -> None:
    """Add the losses of the last steps, one by one so that the sum does not depend on when it is called."""
    first = point.step - len(losses)
    for i, value in enumerate(losses):
        if not math.isfinite(value):
            raise DivergedError(
                f"The loss of {job.label or job.recipe.name} became {value} at step {first + i} (learning rate "
                f"{job.recipe.learning_rate(first + i):.3g}). Try a lower learning rate, a warm-up, or float32."
            )
        point.loss_sum += value
    point.loss_count += len(losses)


def record(point: Checkpoint, recipe: Recipe, network: Network) -> dict[str, float]:
    """What a run's history says of a step: losses since the last record, errors on the splits."""
    return {
        "step": point.step,
        "learning_rate": recipe.learning_rate(max(0, point.step - 1)),
        "train_loss": point.loss_sum / point.loss_count if point.loss_count else math.nan,
        **evaluate_splits(recipe, network),
    }
