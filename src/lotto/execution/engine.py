"""What an engine is: it computes what it is given, wherever that is. Three methods are its own, the rest is here."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from lotto.core.check import checked
from lotto.core.errors import DivergedError, UsageError, WorkerError, text
from lotto.core.scratch import Scratch
from lotto.core.signals import held
from lotto.execution.assignment import Assignment
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, Progress
from lotto.execution.parcel import Answer
from lotto.execution.procedures import Procedure, T
from lotto.execution.progress import showing
from lotto.execution.schedule import Admission, Schedule
from lotto.execution.store import Store, WorkItem
from lotto.execution.threads import limited_threads
from lotto.training.job import Run

__all__ = ["Engine", "JobAdvanced", "JobFinished", "JobStarted", "Progress", "Reply"]

Reply = Answer | bytes | WorkerError
"""What `Assignment.compute` or `compute_parcel` gave back, as it is; a `WorkerError` if the worker died over it."""


class Engine(ABC):
    """Runs jobs. A subclass says how, in three methods; what is wanted next, stacks, the store, jobs whose worker died,
    progress and errors are no concern of theirs.

    Args:
        store: where runs are remembered.
        threads: threads of each training.
        stack: jobs that train together in one place; None = measured with the first job.
        workers: places where jobs run at the same time.

    >>> class InTurn(Engine):
    ...     given = ()
    ...     def submit(self, assignment):
    ...         self.given = (*self.given, assignment)
    ...     def collect(self, report):
    ...         first, *self.given = self.given
    ...         return [(first, first.compute())]
    ...     def close(self):
    ...         self.given = ()
    >>> runs = InTurn(store).run([lotto.Job(recipe, order_seed=seed) for seed in (0, 1)])
    >>> [run.steps for run in runs]
    [(0, 40), (0, 40)]
    """

    on_this_machine: ClassVar[bool] = False
    """Whether workers read what this process has compiled: it then compiles their kernels before there are any."""
    sizes_itself: ClassVar[bool] = False
    """Whether ``workers=None`` is taken, by which the engine finds out how many there can be."""

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1, *, workers: int = 1) -> None:
        self.store, self.threads, self.stack, self.workers = store, threads, stack, workers
        self._admission = Admission()
        self._scratch: Scratch | None = None

    @abstractmethod
    def submit(self, assignment: Assignment) -> None:
        """Take an assignment; of at most ``workers`` at a time that are not collected."""

    @abstractmethod
    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Wait until something that was submitted is done, and give all back that is, each with its reply.

        An exception ends the run. An empty list says that nothing is under way.

        Args:
            report: called a few times a second while waiting, it shows how far other processes are.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything, done or not: a run has ended, was interrupted, or failed. Another may follow."""

    @property
    def name(self) -> str:
        """What it is called in sentences and beside stored runs."""
        return type(self).__name__.lower()

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return self.workers * (self.stack or 1)

    @property
    def parts(self) -> int:
        """How many processes have a slice of each batch of a training."""
        return 1

    @property
    def execution(self) -> dict[str, Any]:
        """How jobs are executed, in plain values, for whoever reads a stored run."""
        return {"engine": self.name, "workers": self.workers, "threads": self.threads}

    @property
    def scratch(self) -> Scratch:
        """A folder for what travels; made when it is first asked for, gone when the run ends."""
        if self._scratch is None:
            with held():
                self._scratch = Scratch()
        return self._scratch

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
            expected: how many jobs there will be, for displays and forecasts.
        """
        with limited_threads(self.threads), showing(progress, expected) as emit:
            self.store.begin()
            try:
                return Schedule[T](self, self._admission, emit, expected).run(procedures)
            finally:
                self._end()

    def _end(self) -> None:
        try:
            self.close()
        finally:
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def drive(self, procedures: Sequence[Procedure[T]], progress: Progress | bool | None = None) -> list[T]:
        """What `run_procedures` was called in the first edition."""
        warnings.warn("Engine.drive is Engine.run_procedures now.", DeprecationWarning, stacklevel=2)
        return self.run_procedures(procedures, progress)
