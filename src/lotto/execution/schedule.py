"""The order of a run: procedures advance as their jobs end, equal jobs are trained once, an engine gets assignments."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic
from weakref import WeakValueDictionary

from lotto.core.errors import UsageError, WorkerError, text
from lotto.execution.assignment import Assignment, named
from lotto.execution.autotune import measured_width
from lotto.execution.compute import lookup
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, KernelsCompiled, KernelsCompiling, Progress
from lotto.execution.parcel import Answer
from lotto.execution.procedures import Position, Procedure, T
from lotto.execution.stacking import stacks
from lotto.execution.store import Result, WorkItem
from lotto.execution.task import Task
from lotto.recipe.recipe import Recipe
from lotto.training.check import check_trainable
from lotto.training.job import Job, Run
from lotto.training.kernels import compile_kernels, has_sparse_layers

if TYPE_CHECKING:
    from lotto.execution.engine import Engine, Reply

log = logging.getLogger(__name__)


class Admission:
    """What an engine looks at once, before the first training of its kind."""

    def __init__(self) -> None:
        self._warned_not_cacheable = False
        # By the identity of a recipe's parts; an entry goes with its recipe, before other objects can take an identity.
        self._checked: WeakValueDictionary[tuple[object, ...], Recipe] = WeakValueDictionary()
        self._step_seconds: dict[tuple[object, ...], float] = {}
        self._compiled: WeakValueDictionary[tuple[object, ...], Recipe] = WeakValueDictionary()

    def check(self, recipe: Recipe, parts: int = 1) -> None:
        """Take one real step, on a slice of a batch where so many processes have one; what is remembered needs none."""
        if (kind := _kind(recipe)) not in self._checked:
            self._step_seconds[kind] = check_trainable(recipe, parts)
            self._checked[kind] = recipe

    def compile(self, job: Job, emit: Progress) -> None:
        """Compile the kernels that a training calls and this machine has not yet: said, as it may take long."""
        if (kind := (*_kind(job.recipe), has_sparse_layers(job))) in self._compiled:
            return
        began: list[float] = []

        def say() -> None:
            began.append(time.monotonic())
            emit(KernelsCompiling(job))

        compile_kernels(job, say)
        self._compiled[kind] = job.recipe
        if began:
            emit(KernelsCompiled(job, time.monotonic() - began[0]))

    def seconds(self, item: WorkItem) -> float:
        """About how long something takes that has been looked at; infinite if only computing it would tell."""
        return (
            (item.end - item.from_step) * self._step_seconds[_kind(item.recipe)] if isinstance(item, Job) else math.inf
        )

    def warn_if_not_cacheable(self, job: WorkItem) -> None:
        """Say once that what is computed will not be remembered, and why."""
        if job.key is None and not self._warned_not_cacheable:
            self._warned_not_cacheable = True
            log.warning("Runs of %s are not remembered: %s.", job.recipe.name, job.not_cacheable)


class Schedule(Generic[T]):
    """One run of an engine.

    Args:
        engine: what computes.
        admission: what has been looked at before.
        emit: called with events.
        expected: how many jobs there will be; None = not known.
    """

    def __init__(self, engine: Engine, admission: Admission, emit: Progress, expected: int | None = None) -> None:
        self.engine, self.admission, self.emit, self.expected = engine, admission, emit, expected or 0
        self.handed_out = 0
        self.wanted: dict[str, list[tuple[Position[T], int]]] = {}
        """Who waits for which job, by `job_name`."""
        self.ready: deque[WorkItem] = deque()
        """Jobs that nobody has looked for in the store yet."""
        self.taken: list[WorkItem] = []
        """Jobs to be computed, which no worker has got."""
        self.to_rerun: deque[WorkItem] = deque()
        """Jobs whose worker died: each is computed once more, with nothing beside it."""
        self.reran: list[WorkItem] = []
        self.under_way: list[Assignment] = []
        self.done: set[str] = set()
        """Numbers of the assignments that have come back."""

    def run(self, procedures: Sequence[Procedure[T]]) -> list[T]:
        """Advance procedures until each has returned; returns their results in order."""
        positions = [Position(procedure) for procedure in procedures]
        try:
            for position in positions:
                self._enqueue(position)
            while self.ready or self.taken or self.to_rerun or self.under_way:
                self._take()
                self._give()
                if self.under_way:
                    self._collect()
        finally:
            for position in positions:
                position.procedure.close()
        return [position.result for position in positions]

    def _enqueue(self, position: Position[T]) -> None:
        for index, job in position.advance():
            name = job_name(job)
            if name not in self.wanted:
                self.ready.append(job)
            self.wanted.setdefault(name, []).append((position, index))
            self.admission.warn_if_not_cacheable(job)

    def _take(self) -> None:
        """Take as many jobs as the engine has slots for; what is stored is handed out at once."""
        engine = self.engine
        held = len(self.taken) + len(self.to_rerun) + sum(len(each.jobs) for each in self.under_way)
        while self.ready and held < engine.slots:
            job = self.ready.popleft()
            if (run := lookup(engine.store, job)) is not None:
                self._hand_out(job, run, False)
                continue
            if isinstance(job, Job):
                self.admission.check(job.recipe, engine.parts)
                if engine.on_this_machine:
                    self.admission.compile(job, self.emit)
                if engine.stack is None:
                    engine.stack, why = measured_width(job.recipe, engine.store, engine.threads)
                    log.info("%s", why)
            self.taken.append(job)
            held += 1
            self.emit(JobStarted(job))

    def _give(self) -> None:
        """Give the workers what they can take, in stacks of a fair size."""
        free = self.engine.workers - len(self.under_way)
        if self.to_rerun or any(job is other for each in self.under_way for job in each.jobs for other in self.reran):
            if self.to_rerun and not self.under_way:
                self._submit([self.to_rerun.popleft()])
            return
        if free > 0 and self.taken:
            seconds_left = self._seconds_left()
            given = stacks(self.taken, min(self.engine.stack or 1, -(-len(self.taken) // free)))[:free]
            gone = {id(job) for jobs in given for job in jobs}
            self.taken = [job for job in self.taken if id(job) not in gone]
            for jobs in given:
                self._submit(jobs, seconds_left)

    def _seconds_left(self) -> float:
        """About how long all jobs that are known of take one after another, if they are as those that are next."""
        known = max(len(self.taken) + len(self.ready), self.expected - self.handed_out)
        return known * sum(map(self.admission.seconds, self.taken)) / len(self.taken)

    def _submit(self, jobs: Sequence[WorkItem], seconds_left: float = math.inf) -> None:
        def advanced(number: int, step: int, loss: float) -> None:
            self.emit(JobAdvanced(jobs[number], step, loss))

        assignment = Assignment(jobs, self.engine, advanced, seconds_left=seconds_left)
        self.engine.submit(assignment)
        self.under_way.append(assignment)

    def _report(self) -> None:
        sent = {each.report: each for each in self.under_way if each.report is not None}
        # Of many that wait few have anything to say: a listing tells which, where many files would be asked for.
        there = {path for folder in {path.parent for path in sent} for path in _listed(folder)}
        for path in there & sent.keys():
            sent[path].show_progress()

    def _collect(self) -> None:
        self._report()
        came = self.engine.collect(self._report)
        if not came:
            lost = ", ".join(assignment.name for assignment in self.under_way)
            raise UsageError(
                f"The engine {self.engine.name!r} has lost {lost}: submitted, and collect() came back with nothing. "
                "Finished runs are kept."
            )
        for assignment, reply in came:
            self._check_under_way(assignment)
            self.under_way.remove(assignment)
            self.done.add(assignment.number)
            self._receive(assignment, reply)

    def _check_under_way(self, assignment: Assignment) -> None:
        if any(assignment is other for other in self.under_way):
            return
        if not isinstance(assignment, Assignment):
            raise UsageError(
                f"The engine {self.engine.name!r} collected {text(assignment)}; it gives back the assignments "
                "that were submitted to it, each with its reply."
            )
        how = "twice" if assignment.number in self.done else "and was not given it in this run"
        raise UsageError(f"The engine {self.engine.name!r} gave {assignment.name} back {how}. Finished runs are kept.")

    def _receive(self, assignment: Assignment, reply: Reply) -> None:
        if isinstance(reply, WorkerError):
            log.warning("A worker process died; its job is run once more.")
            for job in assignment.jobs:
                self._rerun(
                    job,
                    f"A worker process died twice while training {named(job)}. Finished runs are kept. It may be "
                    "out of memory: try fewer --jobs or a smaller batch.",
                    reply,
                )
            return
        answer: Answer = assignment.open(reply)
        for job, (trained, run) in zip(assignment.jobs, answer.results, strict=True):
            found = run if run is not None else lookup(self.engine.store, job)
            if found is not None:
                self._hand_out(job, found, trained)
            else:
                self._rerun(job, f"The run of {named(job)} has been removed from {self.engine.store.root} meanwhile.")

    def _rerun(self, job: WorkItem, problem: str, cause: Exception | None = None) -> None:
        if any(job is other for other in self.reran):
            raise WorkerError(problem) from cause
        self.reran.append(job)
        self.to_rerun.append(job)

    def _hand_out(self, job: WorkItem, run: Result, trained: bool) -> None:
        self.handed_out += 1
        self.emit(JobFinished(job, run, trained))
        if isinstance(run, Run) and run.diverged:
            log.warning("%s", run.diverged)
        for position, index in self.wanted.pop(job_name(job)):
            position.results[index] = run
            if len(position.results) == len(position.jobs):
                self._enqueue(position)


def _listed(folder: Path) -> list[Path]:
    """Paths of the files in a folder; none if it cannot be read: a display is no reason to lose a training."""
    with contextlib.suppress(OSError):
        return [*folder.iterdir()]
    return []


def _kind(recipe: Recipe) -> tuple[object, ...]:
    """What the trial step of a recipe depends on."""
    parts = (recipe.model, recipe.data, recipe.loss, recipe.error, recipe.augment)
    return (
        *map(id, parts), id(recipe.metrics), recipe.decide_by, recipe.output, recipe.reported, recipe.precision,
        recipe.batch_size, recipe.accumulate, recipe.batch_groups, type(recipe.optimizer), recipe.optimizer.groups,
    )  # fmt: skip


def job_name(job: WorkItem) -> str:
    """The key under which equal jobs of one call meet; steps count, as the kept ones may differ."""
    if job.key is None:  # never the same as another
        return f"not-cacheable-{id(job)}"
    steps = "" if isinstance(job, Task) else ",".join(map(str, job.steps))
    return f"{job.key}:{steps}"
