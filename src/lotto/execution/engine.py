"""What all engines share: procedures advance together, and equal jobs are trained once."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from lotto.core.check import checked
from lotto.core.errors import DivergedError, UsageError, text
from lotto.execution.autotune import measured_width
from lotto.execution.compute import lookup
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, Progress
from lotto.execution.procedures import Position, Procedure, T
from lotto.execution.progress import showing
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.task import Task
from lotto.execution.threads import limited_threads
from lotto.recipe.recipe import Recipe
from lotto.training.check import check_trainable
from lotto.training.job import Job, Run

__all__ = ["Engine", "JobAdvanced", "JobFinished", "JobStarted", "Progress", "job_name"]

log = logging.getLogger(__name__)


class Engine(ABC):
    """Runs jobs; subclasses say how.

    Args:
        store: where runs are remembered.
        threads: threads of each training.
        stack: jobs that train together in one place; None = measured with the first job.

    >>> engine: Engine = lotto.engine.make(jobs=1)
    >>> runs = engine.run([lotto.Job(recipe, order_seed=seed) for seed in (0, 1)])
    >>> [run.steps for run in runs]
    [(0, 40), (0, 40)]
    """

    workers: int = 1
    """Places where jobs run at the same time."""

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1) -> None:
        self.store, self.threads, self.stack = store, threads, stack
        self._warned_not_cacheable = False
        # By the identity of a recipe's parts; an entry goes with its recipe, before other objects can take an identity.
        self._checked: WeakValueDictionary[tuple[object, ...], Recipe] = WeakValueDictionary()

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return self.workers * (self.stack or 1)

    @abstractmethod
    def _submit(self, job: WorkItem) -> None:
        """Take a job; at most ``slots`` are taken and not collected."""

    @abstractmethod
    def _collect(self, progress: Progress) -> list[tuple[WorkItem, Result, bool]]:
        """Wait until at least one taken job is done."""

    def _close(self, finished: bool) -> None:  # noqa: B027 (an engine may hold nothing)
        """Let go of what `_submit` holds; ``finished`` is False when an error or Ctrl-C ends the run."""

    @checked
    def run(self, jobs: Iterable[WorkItem], progress: Progress | bool | None = None) -> list[Any]:
        """Run independent jobs; returns their runs in order. For ``progress`` see `execution.progress.showing`.

        Raises:
            DivergedError: if a training diverged, after all others have been run.
        """
        jobs = list(jobs)
        if (wrong := next((job for job in jobs if not isinstance(job, WorkItem)), None)) is not None:
            raise UsageError(f"An engine runs jobs and tasks, such as lotto.Job(recipe); got {text(wrong)}.")

        def procedure() -> Procedure[list[Any]]:
            return (yield jobs)

        found = self.run_procedures([procedure()], progress, len(jobs))[0]
        for run in found:
            if isinstance(run, Run) and run.diverged:
                raise DivergedError(run.diverged)
        return found

    def run_procedures(
        self, procedures: Sequence[Procedure[T]], progress: Progress | bool | None = None, expected: int | None = None
    ) -> list[T]:
        """Advance procedures until each has returned; returns their results in order.

        Jobs with the same identity are trained once, whichever procedures ask for them. The procedures' own arithmetic
        has as few threads as a training: the other cores are busy with trainings. A training that diverges is sent to
        its procedure as a run that says so (`Run.diverged`), and the others go on.

        Args:
            procedures: what is advanced.
            progress: called with events; default: shown on a terminal or in a notebook; False: not shown.
            expected: how many jobs there will be, for displays.
        """
        with limited_threads(self.threads), showing(progress, expected) as emit:
            return self._advance(procedures, emit)

    def drive(self, procedures: Sequence[Procedure[T]], progress: Progress | bool | None = None) -> list[T]:
        """What `run_procedures` was called in the first edition."""
        warnings.warn("Engine.drive is Engine.run_procedures now.", DeprecationWarning, stacklevel=2)
        return self.run_procedures(procedures, progress)

    def _advance(self, procedures: Sequence[Procedure[T]], emit: Progress) -> list[T]:
        self.store.begin()
        positions = [Position(procedure) for procedure in procedures]
        ready: deque[WorkItem] = deque()
        waiting: dict[str, list[tuple[Position[T], int]]] = {}

        def enqueue(position: Position[T]) -> None:
            for index, job in position.advance():
                # Jobs without an identity are never the same as another.
                name = job_name(job)
                if name not in waiting:
                    ready.append(job)
                waiting.setdefault(name, []).append((position, index))
                self._warn_once_if_not_cacheable(job)

        finished = False
        try:
            for position in positions:
                enqueue(position)
            taken = 0
            while ready or taken:
                while ready and taken < self.slots:
                    job = ready.popleft()
                    if (run := lookup(self.store, job)) is not None:
                        self._hand_out(waiting.pop(job_name(job)), job, run, False, emit, enqueue)
                        continue
                    if isinstance(job, Job):
                        self._check_once(job.recipe)
                        if self.stack is None:
                            self.stack, why = measured_width(job.recipe, self.store, self.threads)
                            log.info("%s", why)
                    self._submit(job)
                    taken += 1
                    emit(JobStarted(job))
                if taken:
                    for job, run, trained in self._collect(emit):
                        taken -= 1
                        self._hand_out(waiting.pop(job_name(job)), job, run, trained, emit, enqueue)
            finished = True
        finally:
            for position in positions:
                position.procedure.close()
            self._close(finished)
        return [position.result for position in positions]

    @staticmethod
    def _hand_out(
        wanted: list[tuple[Position[T], int]],
        job: WorkItem,
        run: Result,
        trained: bool,
        emit: Progress,
        enqueue: Callable[[Position[T]], None],
    ) -> None:
        emit(JobFinished(job, run, trained))
        if isinstance(run, Run) and run.diverged:
            log.warning("%s", run.diverged)
        for position, index in wanted:
            position.results[index] = run
            if len(position.results) == len(position.jobs):
                enqueue(position)

    def _check_once(self, recipe: Recipe) -> None:
        """Before the first training of its kind, one real step; what is remembered needs none."""
        parts = (recipe.model, recipe.data, recipe.loss, recipe.error, recipe.augment)
        kind = (*map(id, parts), recipe.precision, recipe.batch_size, type(recipe.optimizer))
        if kind not in self._checked:
            check_trainable(recipe)
            self._checked[kind] = recipe

    def _warn_once_if_not_cacheable(self, job: WorkItem) -> None:
        if job.key is None and not self._warned_not_cacheable:
            self._warned_not_cacheable = True
            log.warning("Runs of %s are not remembered: %s.", job.recipe.name, job.not_cacheable)


def job_name(job: WorkItem) -> str:
    """The key under which equal jobs of one call meet; steps count, as the kept ones may differ."""
    if job.key is None:
        return f"not-cacheable-{id(job)}"
    steps = "" if isinstance(job, Task) else ",".join(map(str, job.steps))
    return f"{job.key}:{steps}"
