"""Over worker processes, one thread each unless asked otherwise.

They are forks of a template (`lotto.execution.forks`), or new interpreters where there is none: the bits are the same.

A worker is started when there is work for it and none that is free, and none at all for work of a second or two if
this process may do that (`lotto.execution.short`). Workers write their runs to the store. What one
had that dies is run once more, and goes on from its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

from loky import ProcessPoolExecutor

from lotto.core import files
from lotto.core.errors import WorkerError
from lotto.core.signals import held
from lotto.execution import worker
from lotto.execution.assignment import Assignment
from lotto.execution.engine import Engine, Reply
from lotto.execution.forks import ForkedWorker, Template, beside
from lotto.execution.short import ShortWork
from lotto.execution.store import Store
from lotto.execution.worker import compute_parcel, initializer

POLL_SECONDS = 0.2


class Processes(Engine):
    """Trains in at most ``workers`` processes.

    Args:
        store: where runs are remembered; shared by the workers.
        workers: most processes at a time.
        threads: threads of each.
        stack: jobs that train together in a worker; None = measured.

    Attributes:
        template: what workers are forked from; None = a clean process beside this one.
        short_seconds: work that takes no longer than that, all in all, is done in this process; 0 = none.

    >>> Processes(lotto.Store(), workers=2).workers
    2
    """

    on_this_machine = True

    def __init__(self, store: Store, workers: int, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack, workers=workers)
        self.template: Template | None = None
        self.short_seconds = 0.0
        self._short: ShortWork | None = None
        self._here: list[Assignment] = []
        # Each worker is a pool of its own: one that dies takes no other with it.
        self._free: list[ProcessPoolExecutor | ForkedWorker] = []
        self._busy: dict[Future[bytes], tuple[ProcessPoolExecutor | ForkedWorker, Assignment]] = {}

    def submit(self, assignment: Assignment) -> None:
        """Give it to a worker that is free, or to a new one; short work is computed when it is collected.

        Raises:
            WorkerError: if no process can be started.
        """
        self._short = self._short or ShortWork(self.short_seconds)
        if not self._busy and not self._free and self._short.takes(assignment):
            self._here.append(assignment)
        else:
            self._send(assignment)

    def _send(self, assignment: Assignment) -> None:
        if not self._free:
            self.template = self.template or beside()
        parcel = assignment.parcel()
        if self.template is not None:
            self.template.wait()
        with held():  # a process may be started, and none is to be lost sight of
            try:
                future = self._given(parcel)
            except OSError as error:
                raise WorkerError(
                    f"Cannot start a worker process: {files.reason(error)}. Finished runs are kept. Try fewer --jobs."
                ) from error
            self._busy[future] = self._free.pop(), assignment

    def _given(self, parcel: bytes) -> Future[bytes]:
        """What the last of the free workers, an old or a new one, will have made of a parcel."""
        while True:
            if not self._free:
                self._free.append(self._new_worker())
            try:
                future: Future[bytes] = self._free[-1].submit(compute_parcel, parcel)
            except BrokenProcessPool:  # it was killed while it had nothing to do
                self._free.pop().shutdown(wait=True, kill_workers=True)
            else:
                if isinstance(self._free[-1], ProcessPoolExecutor):
                    self.scratch.note_semaphores()
                return future

    def _new_worker(self) -> ProcessPoolExecutor | ForkedWorker:
        if self.template is not None and (forked := self.template.start(worker.__name__, self.threads)) is not None:
            return forked
        # Started first, as whoever starts it lets signals through afterwards: workers are to be born without.
        if os.name == "posix":  # elsewhere there is none
            resource_tracker.ensure_running()
        function, arguments = initializer(self.threads)
        pool = ProcessPoolExecutor(1, initializer=function, initargs=arguments)
        self.scratch.note_semaphores()
        return pool

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Wait until a worker is done; or compute what is short, and if it is not, start workers after all."""
        while self._here:
            assignment = self._here.pop(0)
            assert self._short is not None
            if (answer := self._short.compute(assignment)) is not None:
                return [(assignment, answer)]
            late, self._here = [assignment, *self._here], []
            for each in late:
                self._send(each)
        done: set[Future[bytes]] = set()
        while self._busy and not done:
            done, _ = wait(self._busy, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            report()
        return [self._reply(future) for future in list(self._busy) if future in done]

    def _reply(self, future: Future[bytes]) -> tuple[Assignment, Reply]:
        pool, assignment = self._busy[future]
        if isinstance(error := future.exception(), BrokenProcessPool):
            pool.shutdown(wait=True, kill_workers=True)
            del self._busy[future]
            return assignment, WorkerError(str(error))
        self._free.append(pool)  # first, so that `close` knows of it whenever a signal comes
        del self._busy[future]
        return assignment, future.result()

    def close(self) -> None:
        """End the workers: they have nothing to do any more, or nobody wants it; killed, they are gone at once."""
        pools = [*self._free, *(pool for pool, _ in self._busy.values())]
        self._free, self._busy, self._here, self._short = [], {}, [], None
        for pool in pools:
            pool.shutdown(wait=True, kill_workers=True)
