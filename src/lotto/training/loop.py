"""The training loop: jobs become runs. One for one network and for several at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from lotto.core.errors import DivergedError, UsageError
from lotto.core.ranks import ALONE, Ranks
from lotto.core.rng import Draws, private_rng
from lotto.core.weights import first_non_finite
from lotto.data.augment import is_own
from lotto.recipe.optimizers import is_one_of_ours
from lotto.recipe.recipe import Recipe
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import SPLITS
from lotto.training.job import Crossovers, Job, Run, State
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.base import Learner
from lotto.training.learners.channel_skipping import ChannelSkipping
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.distributed import Distributed
from lotto.training.learners.graphed import check_graphs
from lotto.training.learners.perceptron import Perceptron
from lotto.training.learners.stacked import Stacked, steps_taken
from lotto.training.mask_updates import at_step, check_ranks, update_steps
from lotto.training.member import Member
from lotto.training.network import (
    Network,
    constant_buffers,
    flushed_denormals,
    has_own_data,
    is_ours,
    with_weights,
)
from lotto.training.own_loop import train_own
from lotto.training.records import add_record, collect
from lotto.training.reported import begun, ended

LEARNERS: tuple[type[Learner], ...] = (Stacked, Perceptron, Convolutions, ChannelSkipping, Autograd)
"""The first that supports a job trains it."""
LOG_EVERY, LOG_RARELY = 50, 1000
"""Steps after which the losses are fetched, on a CPU; on a GPU at most."""

OnStep = Callable[[int, int, float], None]
OnCheckpoint = Callable[[int, Checkpoint], None]


def train(
    job: Job,
    *,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[Checkpoint], None] | None = None,
    checkpoint_seconds: float = 30.0,
    ranks: Ranks = ALONE,
) -> Run:
    """Train one network.

    Args:
        job: what to train.
        resume: a checkpoint of the same job; the outcome is the same to the bit.
        on_step: called now and then with (steps done, mean loss lately).
        on_checkpoint: called with a checkpoint about every ``checkpoint_seconds``.
        checkpoint_seconds: see there.
        ranks: processes that train it together, each of which calls this with the same job.

    Returns:
        The run, with the states at the job's kept steps and at its end.

    Raises:
        DivergedError: when the loss becomes NaN or infinite.

    >>> train(lotto.Job(recipe, to_step=5)).steps
    (0, 5)
    """
    (run,) = train_stack(
        [job],
        resume=[resume],
        on_step=None if on_step is None else lambda _, step, loss: on_step(step, loss),
        on_checkpoint=None if on_checkpoint is None else lambda _, point: on_checkpoint(point),
        checkpoint_seconds=checkpoint_seconds,
        ranks=ranks,
    )
    return run


def train_stack(
    jobs: Sequence[Job],
    *,
    resume: Sequence[Checkpoint | None] | None = None,
    on_step: OnStep | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    checkpoint_seconds: float = 30.0,
    ranks: Ranks = ALONE,
) -> list[Run]:
    """Train several networks along a leading axis, one optimizer step for all; or one.

    Masks, data orders, first and last steps are each job's own: a job joins when the others come to its first step,
    so that all are always at the same step of the recipe, and leaves at its last.

    Args:
        jobs: with one recipe.
        resume: a checkpoint of each job, or None.
        on_step: called now and then with (number of the job, steps done, mean loss lately).
        on_checkpoint: called with (number of the job, checkpoint) about every ``checkpoint_seconds``.
        checkpoint_seconds: see there.
        ranks: processes that train one job together.

    Returns:
        The runs; each of several equals that of `train` up to rounding.

    Raises:
        DivergedError: when a loss becomes NaN or infinite.
        UsageError: if the jobs have different recipes, or the network cannot be stacked.

    >>> runs = train_stack([lotto.Job(recipe, order_seed=seed) for seed in (0, 1)])
    >>> [run.steps for run in runs]
    [(0, 40), (0, 40)]
    """
    if any(job.recipe != jobs[0].recipe for job in jobs):
        raise UsageError("Jobs that train together have one recipe.")
    check_ranks(jobs, ranks)
    check_graphs(jobs[0].recipe, ranks.size)
    if jobs[0].recipe.loop is not None:
        return [train_own(job, None if on_step is None else partial(on_step, i)) for i, job in enumerate(jobs)]
    points = [
        found or Checkpoint(job.from_step, begun(job.initial_state()))
        for job, found in zip(jobs, resume or [None] * len(jobs), strict=True)
    ]
    for job, point in zip(jobs, points, strict=True):
        if point.step in job.steps:
            point.kept.setdefault(point.step, point.state)
    firsts = [point.step for point in points]
    bounds = sorted({*firsts, *(job.end for job in jobs), *(step for job in jobs for step in update_steps(job))})
    saving, about = _Saving(on_checkpoint, checkpoint_seconds), "no steps"
    masked, networks = [*jobs], dict[int, Network]()
    with flushed_denormals(), private_rng():
        for first, last in pairwise(bounds):
            active = [i for i, job in enumerate(jobs) if firsts[i] <= first < job.end]
            for i in active:
                masked[i], points[i].state = at_step(jobs[i], points[i].state, first, networks.get(i))
            clocks = {i: steps_taken(points[i].state) for i in active}
            for clock in sorted(set(clocks.values())):
                chosen = [i for i in active if clocks[i] == clock]
                about = _advance(chosen, masked, points, last, on_step, saving, ranks, networks)
        for job, point in zip(jobs, points, strict=True):
            _check_ended_finite(job, point.state)
            if job.from_step == job.end:  # no step was to be taken
                point.kept[job.end] = ended(point.state, job.recipe)
            if not point.history or point.history[-1]["step"] != job.end:
                add_record(point, job, Network(job.recipe, point.kept[job.end].weights))
    if len(jobs) > 1:
        about = f"stacked, {len(jobs)} together"
    return [
        Run(
            (job.from_step, job.end), point.history, point.kept,
            seconds=point.seconds, arithmetic=about, crossovers=point.crossovers, mistakes=point.mistakes,
        )
        for job, point in zip(jobs, points, strict=True)
    ]  # fmt: skip


def _check_ended_finite(job: Job, state: State) -> None:
    """Raise `DivergedError` if the last steps have left weights that are no numbers: no loss was taken after them."""
    if first_non_finite(state.weights) is None:
        return
    if (bad := first_non_finite(state.weights, constant_buffers(job.recipe.meta_model()))) is not None:
        raise DivergedError(
            f"The weights {bad!r} of {job.label or job.recipe.name} are not finite at the end, step {job.end}. "
            "Try a lower learning rate, a warm-up, or float32.",
            job.end,
        )


def diverged_run(job: Job, error: DivergedError) -> Run:
    """What stands in the place of a training whose loss became NaN or infinite: metrics that are NaN, and no weights.

    Args:
        job: the training.
        error: what it ended with.
    """
    step = job.end if error.step is None else error.step
    splits = [split for split in SPLITS if job.recipe.arrays.size(split)]
    metrics = {f"{split}_{what}": math.nan for split in splits for what in ("loss", "error")}
    rate = job.recipe.learning_rate(max(0, step - 1))
    record = {"step": step, "learning_rate": rate, "train_loss": math.nan, **metrics}
    return Run((job.from_step, job.end), [record], {}, arithmetic="diverged", diverged=str(error))


def learner_of(
    jobs: Sequence[Job],
    states: Sequence[State] | None = None,
    *,
    stacked: bool = False,
    crossovers: Crossovers = None,
    ranks: Ranks = ALONE,
    network: Network | None = None,
) -> Learner:
    """What trains these jobs together.

    Args:
        jobs: with one recipe.
        states: where they stand; default: their beginning.
        stacked: whether they are part of a stack, of which one may be on its way by itself for a while.
        crossovers: what this training has chosen before, so that it goes on in the same way; None = it chooses now.
        ranks: processes that train one job together.
        network: one of the recipe, which gets the weights of the first state; None = it is built.
    """
    states = states or [job.initial_state() for job in jobs]
    recipe = jobs[0].recipe
    network = with_weights(recipe, states[0].weights, network)
    # The others read one tensor of inputs, as the data give it, and give an optimizer the weights in other shapes.
    plain = recipe.arrays.has_tensors and not is_own(recipe.augment) and not recipe.by_autograd_alone
    kinds = LEARNERS if plain and is_one_of_ours(recipe.optimizer) else (Autograd,)
    if stacked:
        return Stacked(jobs, network, states)
    if Distributed.is_needed(recipe, ranks):
        return Distributed(jobs, network, states, ranks)
    chosen: Crossovers = None
    if Convolutions in kinds and Convolutions.computes(jobs, network):
        decided = recipe.arithmetic == "auto" and crossovers is not None
        chosen = crossovers if decided else Convolutions.choice(jobs[0], network)
        if isinstance(chosen, Mapping):
            return Convolutions(jobs, network, states, chosen)
    others = (kind for kind in kinds if kind is not Convolutions)
    learner = next(kind for kind in others if kind.supports(jobs, network))(jobs, network, states)
    learner.crossovers = chosen
    return learner


class _Saving:
    """When the next checkpoint is due."""

    def __init__(self, call: OnCheckpoint | None, seconds: float) -> None:
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
    on_step: OnStep | None,
    saving: _Saving,
    ranks: Ranks,
    networks: dict[int, Network],
) -> str:
    """Train some of the jobs, all of which are at the same step, up to ``last``; returns how."""
    began = time.perf_counter()
    members = [(jobs[i], points[i]) for i in chosen]
    recipe, first = members[0][0].recipe, members[0][1].step
    learner = learner_of(
        [job for job, _ in members],
        [point.state for _, point in members],
        stacked=len(jobs) > 1,
        crossovers=members[0][1].crossovers,
        ranks=ranks,
        network=networks.get(chosen[0]),
    )
    if len(jobs) == 1 and not Distributed.is_needed(recipe, ranks):  # these change what they are given
        networks[chosen[0]] = learner.network
    for _, point in members:
        point.crossovers = learner.crossovers
    before = [point.seconds for _, point in members]
    own = [Member(job, point) for job, point in members]
    wanted = {last, *(step for member in own for step in (*member.records, *member.job.steps))}
    log_interval, last_logged = steps_between_logs(recipe, learner.network.device), first
    losses: list[Tensor] = []
    weights: list[Tensor] = []
    weigh = recipe.target_weight

    def settle(done: int) -> None:
        """Fetch the losses since the last time."""
        rows, heavy = (
            torch.stack(found).double().reshape(len(found), -1).tolist() if found else [] for found in (losses, weights)
        )
        losses.clear()
        weights.clear()
        took = (time.perf_counter() - began) / len(members)
        for i, (job, point) in enumerate(members):
            point.step, point.seconds = done, before[i] + took
            collect(point, [row[i] for row in rows], job, [row[i] for row in heavy] or None)

    draws = Draws(not is_ours(recipe), data=not has_own_data(recipe))
    # One that has stopped stays where it is; several together do not stop.
    batches = iter(()) if any(member.stopped for member in own) else learner.batches(first, last)
    for step, batch in draws.steps(batches, members[0][0].order_seed, first):
        losses.append(learner.train_step(batch, step))
        if weigh is not None:
            weights.append(learner.weigh(batch, weigh))

        done = step + 1
        if done - last_logged == log_interval or done in wanted:
            last_logged = done
            draws.check(recipe.name)
            settle(done)
            for i, (_, point) in zip(chosen, members, strict=True):
                if on_step is not None:
                    on_step(i, done, point.mean_loss)
        if done in wanted:
            for i, member in enumerate(own):
                if done in member.records:
                    member.record(learner.eval_network(i))
                if done in member.job.steps:
                    member.point.kept[done] = member.state(learner.state(i))
            if any(member.stopped for member in own):
                break
        if last_logged == done:
            draws.rest()
        if done < last and saving.due():
            settle(done)
            for i, member in enumerate(own):
                member.point.state = member.state(learner.state(i))
            saving.save([(i, points[i]) for i in chosen])
    for i, member in enumerate(own):
        point = member.point
        if point.step < last:
            member.stand_still(member.state(learner.state(i)), learner.eval_network(i))
        point.state = point.kept.get(last) or member.state(learner.state(i))
        if last == member.job.end:
            member.end()
        point.seconds = before[i] + (time.perf_counter() - began) / len(members)
    return learner.describe()


def steps_between_logs(recipe: Recipe, device: torch.device) -> int:
    """How often losses are fetched, to show them and to notice NaN: a GPU would have to be waited for each time."""
    return LOG_EVERY if device.type == "cpu" else min(max(LOG_EVERY, recipe.per_epoch), LOG_RARELY)
