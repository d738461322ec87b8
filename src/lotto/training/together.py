"""The training loop for several jobs of one recipe at once: jobs become runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.core.rng import private_torch_rng
from lotto.training.job import Job, Run
from lotto.training.learners.stacked import Stacked, optimizer_clock
from lotto.training.loop import Checkpoint, collect, evaluation_steps, record, steps_between_looks
from lotto.training.network import Network, flushed_denormals


def train_together(
    jobs: Sequence[Job],
    *,
    resume: Sequence[Checkpoint | None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    on_checkpoint: Callable[[int, Checkpoint], None] | None = None,
    checkpoint_seconds: float = 30.0,
) -> list[Run]:
    """Train several networks along a leading axis, one optimizer step for all.

    Masks, data orders, first and last steps are each job's own: a job joins when the others come to its first step,
    so that all are always at the same step of the recipe, and leaves at its last.

    Args:
        jobs: with one recipe.
        resume: a checkpoint of each job, or None.
        on_step: called now and then with (number of the job, steps done, mean loss lately).
        on_checkpoint: called with (number of the job, checkpoint) about every ``checkpoint_seconds``.
        checkpoint_seconds: see there.

    Returns:
        The runs; each equals that of `train` up to rounding.

    Raises:
        DivergedError: when a loss becomes NaN or infinite.
        UsageError: if the jobs have different recipes, or the network cannot be stacked.
    """
    if any(job.recipe != jobs[0].recipe for job in jobs):
        raise UsageError("Jobs that train together have one recipe.")
    points = [
        found or Checkpoint(job.from_step, job.initial_state())
        for job, found in zip(jobs, resume or [None] * len(jobs), strict=True)
    ]
    for job, point in zip(jobs, points, strict=True):
        if point.step in job.steps:
            point.kept.setdefault(point.step, point.state)
    firsts = [point.step for point in points]
    bounds = sorted({*firsts, *(job.end for job in jobs)})
    saving = _Saving(on_checkpoint, checkpoint_seconds)
    with flushed_denormals(), private_torch_rng():
        for first, last in pairwise(bounds):
            active = [i for i, job in enumerate(jobs) if firsts[i] <= first < job.end]
            clocks = {i: optimizer_clock(points[i].state) for i in active}
            for clock in sorted(set(clocks.values())):
                chosen = [i for i in active if clocks[i] == clock]
                _advance(chosen, jobs, points, last, on_step, saving)
        for job, point in zip(jobs, points, strict=True):
            if not point.history or point.history[-1]["step"] != job.end:
                point.history.append(record(point, job.recipe, Network(job.recipe, point.state.weights)))
    about = f"stacked, {len(jobs)} together"
    return [
        Run((job.from_step, job.end), point.history, point.kept, seconds=point.seconds, arithmetic=about)
        for job, point in zip(jobs, points, strict=True)
    ]


class _Saving:
    """When the next checkpoint is due."""

    def __init__(self, call: Callable[[int, Checkpoint], None] | None, seconds: float) -> None:
        self.call, self.seconds, self.last = call, seconds, time.monotonic()

    def due(self) -> bool:
        return self.call is not None and time.monotonic() - self.last > self.seconds

    def save(self, points: Sequence[tuple[int, Checkpoint]]) -> None:
        assert self.call is not None
        for number, point in points:
            self.call(number, point)
        self.last = time.monotonic()


def _advance(
    chosen: Sequence[int],
    jobs: Sequence[Job],
    points: Sequence[Checkpoint],
    last: int,
    on_step: Callable[[int, int, float], None] | None,
    saving: _Saving,
) -> None:
    """Train some of the jobs, all of which are at the same step, up to ``last``."""
    members = [(jobs[i], points[i]) for i in chosen]
    recipe, first = members[0][0].recipe, members[0][1].step
    began = time.perf_counter()
    stack = Stacked([job for job, _ in members], [point.state for _, point in members])
    records = [evaluation_steps(recipe, job) for job, _ in members]
    patience, looked = steps_between_looks(recipe, stack.network.device), first
    losses: list[Tensor] = []
    before = [point.seconds for _, point in members]

    def settle(done: int) -> None:
        """Fetch the losses since the last time."""
        columns = torch.stack(losses).double().cpu() if losses else torch.zeros(0, len(members))
        losses.clear()
        share = (time.perf_counter() - began) / len(members)
        for i, (job, point) in enumerate(members):
            point.step, point.seconds = done, before[i] + share
            collect(point, columns[:, i].tolist(), job)

    for step, (x, y) in enumerate(stack.batches(first, last), start=first):
        losses.append(stack.train(x, y, recipe.learning_rate(step)))

        done = step + 1
        wanted = [done in at or done in job.steps for at, (job, _) in zip(records, members, strict=True)]
        if done - looked == patience or any(wanted) or done == last:
            looked = done
            settle(done)
            for i, (_, point) in zip(chosen, members, strict=True):
                if on_step is not None:
                    on_step(i, done, point.loss_sum / max(1, point.loss_count))
        for i, (job, point) in enumerate(members):
            if done in records[i]:
                point.history.append(record(point, recipe, stack.evaluated(i)))
                point.loss_sum, point.loss_count = 0.0, 0
            if done in job.steps:
                point.kept[done] = stack.state(i)
        if done < last and saving.due():
            settle(done)
            for i, (_, point) in enumerate(members):
                point.state = stack.state(i)
            saving.save([(i, points[i]) for i in chosen])
    for i, (_, point) in enumerate(members):
        point.state = stack.state(i)
