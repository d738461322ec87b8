"""In this process: one job after another, or stacks of them."""

from __future__ import annotations

from lotto.execution.engine import Engine
from lotto.execution.events import JobAdvanced, Progress
from lotto.execution.stacking import compute_stack, stacks
from lotto.execution.store import Result, Store, WorkItem


class Serial(Engine):
    """Trains in the calling process.

    Args:
        store: where runs are remembered.
        threads: threads of each training.
        stack: jobs that train together; None = measured.

    >>> (run,) = Serial(lotto.Store()).run([lotto.Job(recipe, to_step=10)])
    >>> run.steps
    (0, 10)
    """

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack)
        self._taken: list[WorkItem] = []

    def _submit(self, job: WorkItem) -> None:
        self._taken.append(job)

    def _collect(self, progress: Progress) -> list[tuple[WorkItem, Result, bool]]:
        stack = stacks(self._taken, self.stack or 1)[0]
        self._taken = [job for job in self._taken if all(job is not other for other in stack)]
        computed = compute_stack(
            self.store,
            stack,
            lambda i, step, loss: progress(JobAdvanced(stack[i], step, loss)),
            {"engine": "serial", "threads": self.threads},
        )
        return [(job, found, trained) for job, (found, trained) in zip(stack, computed, strict=True)]

    def _close(self, finished: bool) -> None:
        self._taken.clear()
