"""One job after another, in this process."""

from __future__ import annotations

from lotto.engine.base import Engine, Found, JobAdvanced, Progress
from lotto.store import Work


class Serial(Engine):
    """Trains in the calling process."""

    _job: Work | None = None

    def _submit(self, job: Work) -> None:
        self._job = job

    def _collect(self, progress: Progress) -> list[tuple[Work, Found, bool]]:
        job = self._job
        assert job is not None
        run, trained = self.store.obtain(
            job,
            on_step=lambda step, loss: progress(JobAdvanced(job, step, loss)),
            execution={"engine": "serial", "threads": self.threads},
        )
        return [(job, run, trained)]
