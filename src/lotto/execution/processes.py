"""Jobs, or stacks of them, over worker processes, one thread each unless asked otherwise.

They are new interpreters, or forks of a template where there is one (`lotto.execution.forks`): the bits are the same.

A worker is started when there is work for it and none that is free. Workers write their runs to the store and report
progress in a small file each; the parent polls the files. When a worker dies, what it had is run once more, job by job
with nothing beside it; each goes on from its last checkpoint.
"""

from __future__ import annotations

import copy
import logging
import os
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from loky import ProcessPoolExecutor

from lotto.core import files, fingerprint, orphans
from lotto.core.errors import WorkerError
from lotto.core.scratch import Scratch
from lotto.core.signals import held
from lotto.data.in_memory import Arrays
from lotto.execution import worker
from lotto.execution.compute import lookup
from lotto.execution.engine import Engine
from lotto.execution.events import JobAdvanced, Progress
from lotto.execution.forks import ForkedWorker, Template
from lotto.execution.stacking import stacks
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.worker import PROGRESS, SpooledArrays, work

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


@dataclass(eq=False)
class Worker:
    """A worker process and what it has been given."""

    pool: ProcessPoolExecutor | ForkedWorker
    jobs: list[WorkItem]
    report: Path
    future: Future[Any] | None = None
    seen: bytes = b""


class Processes(Engine):
    """Trains in at most ``workers`` processes.

    Args:
        store: where runs are remembered; shared by the workers.
        workers: most processes at a time.
        threads: threads of each.
        stack: jobs that train together in a worker; None = measured.

    >>> Processes(lotto.Store(), workers=2).workers
    2
    """

    def __init__(self, store: Store, workers: int, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack)
        self.workers = workers
        self.template: Template | None = None
        self._started: list[Worker] = []
        self._waiting: list[WorkItem] = []
        self._queue: deque[list[WorkItem]] = deque()
        self._to_rerun: deque[WorkItem] = deque()
        self._reran: list[WorkItem] = []
        self._single = False
        self._scratch: Scratch | None = None
        self._counter = 0

    @property
    def _busy(self) -> list[Worker]:
        return [worker for worker in self._started if worker.future is not None]

    def _submit(self, job: WorkItem) -> None:
        self._waiting.append(job)

    def _collect(self, progress: Progress) -> list[tuple[WorkItem, Result, bool]]:
        self._stack_up()
        finished: list[tuple[WorkItem, Result, bool]] = []
        while not finished:
            self._give_out()
            for done in self._wait(progress):
                finished += self._collected(done)
        return finished

    def _stack_up(self) -> None:
        """Put the waiting jobs into stacks of a fair size."""
        waiting, self._waiting = self._waiting, []
        free = max(1, self.workers - len(self._busy))
        self._queue.extend(stacks(waiting, min(self.stack or 1, -(-len(waiting) // free))))

    def _give_out(self) -> None:
        """Give the workers what they can take: what is run again only when no other works, the rest in order."""
        while not (self._single and self._busy):
            self._single = False
            if self._to_rerun:
                if self._busy:
                    return
                self._single = True
                self._give([self._to_rerun.popleft()])
            elif self._queue and len(self._busy) < self.workers:
                self._give(self._queue.popleft())
            else:
                return

    def _give(self, jobs: list[WorkItem]) -> None:
        if self._scratch is None:
            with held():
                self._scratch = Scratch()
        self._counter += 1
        report = self._scratch.folder / f"progress-{self._counter}"
        portable = [self._portable(job) for job in jobs]
        arguments = (portable, str(self.store.root), str(report), self.threads, self.workers)
        free = next((worker for worker in self._started if worker.future is None), None)
        try:
            if free is None:
                self._started.append(free := Worker(self._new_pool(), [], report))
                self._scratch.note_semaphores()
            free.jobs, free.report, free.seen = jobs, report, b""
            with held():
                free.future = free.pool.submit(work, *arguments)
            self._scratch.note_semaphores()
        except BrokenProcessPool:  # it was killed while it had nothing to do
            assert free is not None
            self._remove(free)
            self._give(jobs)
        except OSError as error:
            raise WorkerError(
                f"Cannot start a worker process: {files.reason(error)}. Finished runs are kept. Try fewer --jobs."
            ) from error

    def _new_pool(self) -> ProcessPoolExecutor | ForkedWorker:
        if self.template is not None and (forked := self.template.start(worker.__name__, self.threads)) is not None:
            return forked
        # Started first, as whoever starts it lets signals through afterwards: workers are to be born without.
        with held():
            resource_tracker.ensure_running()
        arguments = (os.getpid(), worker.__name__, self.threads)
        return ProcessPoolExecutor(1, initializer=orphans.start_worker, initargs=arguments)

    def _portable(self, job: WorkItem) -> WorkItem:
        """The job with the user's arrays replaced by a file that every worker reads once."""
        data = job.recipe.data
        if not isinstance(data, Arrays):
            return job
        assert self._scratch is not None
        try:
            name = fingerprint.digest(fingerprint.content(data))
        except fingerprint.NotCacheableError:  # what else it holds has no name: it travels with each job
            return job
        path = self._scratch.folder / f"data-{name}.safetensors"
        if not os.path.exists(path):
            tensors = {f"{part}/{k}": t for part in ("x", "y") for k, t in getattr(data, part).items()}
            scale = {n: t for n, t in (("scale", data._scale), ("shift", data._shift)) if t is not None}
            files.save_tensors(path, tensors | scale, {"format": "lotto.arrays", "name": data.name})
        # Copies: the frozen job and recipe stay as the user made them, and are not validated again.
        stand_in, recipe = copy.copy(job), copy.copy(job.recipe)
        object.__setattr__(recipe, "data", SpooledArrays(str(path), type(data), data.additions))
        object.__setattr__(stand_in, "recipe", recipe)
        return stand_in

    def _wait(self, progress: Progress) -> list[Worker]:
        """Wait until a worker has done what it was given; meanwhile say how far they are."""
        while True:
            futures = [worker.future for worker in self._busy if worker.future is not None]
            done, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for busy in self._busy:
                content = b""
                with suppress(OSError):  # a display is no reason to lose a training
                    content = busy.report.read_bytes()
                if len(content) == len(busy.jobs) * PROGRESS.size and content != busy.seen:
                    busy.seen = content
                    for job, at in zip(busy.jobs, PROGRESS.iter_unpack(content), strict=True):
                        progress(JobAdvanced(job, *at))
            if done:
                return [worker for worker in self._busy if worker.future in done]

    def _collected(self, done: Worker) -> list[tuple[WorkItem, Result, bool]]:
        assert done.future is not None
        if isinstance(error := done.future.exception(), BrokenProcessPool):
            self._died(done, error)
            return []
        answer, problem = done.future.result()
        jobs, done.jobs, done.future = done.jobs, [], None
        with suppress(OSError):
            done.report.unlink(missing_ok=True)
        if problem:
            self.store.warn_not_kept(problem)
        finished = []
        for job, (trained, run) in zip(jobs, answer, strict=True):
            found = run if run is not None else lookup(self.store, job)
            if found is not None:
                finished.append((job, found, trained))
            else:
                self._rerun(job, f"The run of {_named(job)} has been removed from {self.store.root} meanwhile.")
        return finished

    def _died(self, dead: Worker, error: BaseException) -> None:
        if "un-serialize" in str(error):
            raise WorkerError(f"A worker cannot read its job: {error.__cause__ or error}.") from error
        self._remove(dead)
        log.warning("A worker process died; its job is run once more.")
        for job in dead.jobs:
            self._rerun(
                job,
                f"A worker process died twice while training {_named(job)}. Finished runs are kept. It may be "
                "out of memory: try fewer --jobs or a smaller batch.",
            )

    def _rerun(self, job: WorkItem, problem: str) -> None:
        if any(job is other for other in self._reran):
            raise WorkerError(problem)
        self._reran.append(job)
        self._to_rerun.append(job)

    def _remove(self, dead: Worker) -> None:
        self._started.remove(dead)
        dead.pool.shutdown(wait=True, kill_workers=True)

    def _close(self, finished: bool) -> None:
        started, self._started = self._started, []
        for each in started:  # they have nothing to do any more, or nobody wants it: killed, they are gone at once
            each.pool.shutdown(wait=True, kill_workers=True)
        self._waiting.clear()
        self._queue.clear()
        self._to_rerun.clear()
        self._reran.clear()
        self._single = False
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _named(job: WorkItem) -> str:
    return repr(job.label or job.recipe.name)
