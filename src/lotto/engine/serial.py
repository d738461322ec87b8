"""In this process: one job after another, or stacks of them."""

from __future__ import annotations

from lotto.engine.base import Engine, Found, JobAdvanced, Progress
from lotto.engine.stacks import companies
from lotto.job import Job
from lotto.store import Store, Work


class Serial(Engine):
    """Trains in the calling process.

    Args:
        store: where runs are remembered.
        threads: threads of each training.
        stack: jobs that train together; None = measured.
    """

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack)
        self._taken: list[Work] = []

    def _submit(self, job: Work) -> None:
        self._taken.append(job)

    def _collect(self, progress: Progress) -> list[tuple[Work, Found, bool]]:
        company = companies(self._taken, self.stack or 1)[0]
        self._taken = [job for job in self._taken if all(job is not other for other in company)]
        execution = {"engine": "serial", "threads": self.threads}
        jobs = [job for job in company if isinstance(job, Job)]
        if len(jobs) > 1:
            obtained = self.store.obtain_together(
                jobs,
                on_step=lambda i, step, loss: progress(JobAdvanced(jobs[i], step, loss)),
                execution={**execution, "stack": len(jobs)},
            )
            return [(job, run, trained) for job, (run, trained) in zip(jobs, obtained, strict=True)]
        (job,) = company
        found, trained = self.store.obtain(
            job, on_step=lambda step, loss: progress(JobAdvanced(job, step, loss)), execution=execution
        )
        return [(job, found, trained)]

    def _close(self, finished: bool) -> None:
        self._taken.clear()
