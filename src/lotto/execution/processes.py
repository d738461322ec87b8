"""Jobs, or stacks of them, over worker processes, started by spawn, one thread each unless asked otherwise.

Workers write their runs to the store and report progress in a small file each; the parent polls the files.
A worker that dies is reported and its job is run once more; it goes on from its last checkpoint.
"""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from loky import ProcessPoolExecutor

from lotto.core import files
from lotto.core.errors import WorkerError
from lotto.data.in_memory import Arrays
from lotto.execution.engine import Engine, JobAdvanced, Progress
from lotto.execution.stacking import stacks
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.worker import PROGRESS, SpooledArrays, start_worker, work

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


class Processes(Engine):
    """Trains in ``workers`` processes.

    Args:
        store: where runs are remembered; shared by the workers.
        workers: number of processes.
        threads: threads of each.
        stack: jobs that train together in a worker; None = measured.
    """

    def __init__(self, store: Store, workers: int, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[WorkItem] = []
        self._taken: dict[Future[Any], tuple[list[WorkItem], Path]] = {}
        self._single: deque[WorkItem] = deque()
        self._rerun: WorkItem | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._counter = 0

    def _submit(self, job: WorkItem) -> None:
        if self._single:
            self._single.append(job)  # after those that may have killed a worker have run one at a time
        else:
            self._waiting.append(job)

    def _flush(self) -> None:
        """Give the waiting jobs to the workers, in stacks of a fair size."""
        waiting, self._waiting = self._waiting, []
        free = max(1, self.workers - len(self._taken))
        for stack in stacks(waiting, min(self.stack or 1, -(-len(waiting) // free))):
            self._give(stack)

    def _give(self, jobs: list[WorkItem]) -> None:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="lotto-")
        self._counter += 1
        report = Path(self._scratch.name) / f"progress-{self._counter}"
        portable = [self._portable(job) for job in jobs]
        arguments = (portable, str(self.store.root), str(report), self.threads, self.workers)
        try:
            future = self._started_pool().submit(work, *arguments)
        except BrokenProcessPool as error:  # a worker died between two looks at it
            self._single.extend(jobs)
            self._restart(error)
            return
        self._taken[future] = (jobs, report)

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, initializer=start_worker, initargs=(self.threads, os.getpid())
            )
        return self._pool

    def _portable(self, job: WorkItem) -> WorkItem:
        """The job with the user's arrays replaced by a file that every worker reads once."""
        data = job.recipe.data
        if not isinstance(data, Arrays):
            return job
        assert self._scratch is not None
        path = Path(self._scratch.name) / f"data-{data.fingerprint}.safetensors"
        if not path.exists():
            tensors = {f"{part}/{k}": t for part in ("x", "y") for k, t in getattr(data, part).items()}
            scale = {n: t for n, t in (("scale", data._scale), ("shift", data._shift)) if t is not None}
            files.save_tensors(path, tensors | scale, {"format": "lotto.arrays", "name": data.name})
        # Copies: the frozen job and recipe stay as the user made them, and are not validated again.
        stand_in, recipe = copy.copy(job), copy.copy(job.recipe)
        object.__setattr__(recipe, "data", SpooledArrays(str(path)))
        object.__setattr__(stand_in, "recipe", recipe)
        return stand_in

    def _collect(self, progress: Progress) -> list[tuple[WorkItem, Result, bool]]:
        self._flush()
        seen: dict[Path, bytes] = {}
        while True:
            done, _ = wait(self._taken, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for jobs, report in self._taken.values():
                content = report.read_bytes() if report.exists() else b""
                if len(content) == len(jobs) * PROGRESS.size and content != seen.get(report):
                    seen[report] = content
                    for job, at in zip(jobs, PROGRESS.iter_unpack(content), strict=True):
                        progress(JobAdvanced(job, *at))
            if done:
                break
        finished = []
        broken: BaseException | None = None
        for future in done:
            if isinstance(error := future.exception(), BrokenProcessPool):
                broken = error
                continue
            jobs, report = self._taken.pop(future)
            report.unlink(missing_ok=True)
            for job, (trained, run) in zip(jobs, future.result(), strict=True):
                found = run or self.store.lookup(job)
                if found is None:
                    raise WorkerError(f"The run of {_named(job)} is missing from {self.store.root}.")
                finished.append((job, found, trained))
        if broken is not None:
            self._restart(broken)
        elif self._single and not self._taken:
            self._run_single()
        return finished or self._collect(progress)

    def _restart(self, error: BaseException) -> None:
        """After a worker died: run what was on its way once more, one job at a time, so that the guilty is known."""
        if "un-serialize" in str(error):
            raise WorkerError(f"A worker cannot read its job: {error.__cause__ or error}.") from error
        suspects = [job for jobs, _ in self._taken.values() for job in jobs]
        self._taken.clear()
        self._stop_pool(kill=True)
        if self._rerun is not None and self._rerun in suspects:
            raise WorkerError(
                f"A worker process died twice while training {_named(self._rerun)}. Finished runs are kept. It may be "
                "out of memory: try fewer --jobs or a smaller batch."
            ) from error
        log.warning("A worker process died; its job is run once more.")
        self._single.extendleft(reversed(suspects))
        self._run_single()

    def _run_single(self) -> None:
        waiting, self._single = self._single, deque()
        job = self._rerun = waiting.popleft()
        self._give([job])
        self._single.extend(waiting)

    def _stop_pool(self, kill: bool) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=kill)
            self._pool = None

    def _close(self, finished: bool) -> None:
        self._taken.clear()
        self._waiting.clear()
        self._single.clear()
        self._rerun = None
        self._stop_pool(kill=not finished)
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None


def _named(job: WorkItem) -> str:
    return repr(job.label or job.recipe.name)
