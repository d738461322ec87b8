"""Over worker processes, one thread each unless asked otherwise.

They are new interpreters, or forks of a template where there is one (`lotto.execution.forks`): the bits are the same.

A worker is started when there is work for it and none that is free. Workers write their runs to the store. What one
had that dies is run once more, and goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

from loky import ProcessPoolExecutor

from lotto.core import files
from lotto.core.errors import WorkerError
from lotto.core.signals import held
from lotto.execution import worker
from lotto.execution.engine import Engine, Reply
from lotto.execution.forks import ForkedWorker, Template
from lotto.execution.store import Store
from lotto.execution.worker import Assignment, compute_parcel, initializer

POLL_SECONDS = 0.2


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
        super().__init__(store, threads, stack, workers=workers)
        self.template: Template | None = None
        # Each worker is a pool of its own: one that dies takes no other with it.
        self._free: list[ProcessPoolExecutor | ForkedWorker] = []
        self._busy: dict[Future[bytes], tuple[ProcessPoolExecutor | ForkedWorker, Assignment]] = {}

    def submit(self, assignment: Assignment) -> None:
        """Give it to a worker that is free, or to a new one.

        Raises:
            WorkerError: if no process can be started.
        """
        parcel = assignment.parcel()
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
                self.scratch.note_semaphores()
                return future

    def _new_worker(self) -> ProcessPoolExecutor | ForkedWorker:
        if self.template is not None and (forked := self.template.start(worker.__name__, self.threads)) is not None:
            return forked
        # Started first, as whoever starts it lets signals through afterwards: workers are to be born without.
        resource_tracker.ensure_running()
        function, arguments = initializer(self.threads)
        pool = ProcessPoolExecutor(1, initializer=function, initargs=arguments)
        self.scratch.note_semaphores()
        return pool

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Wait until a worker is done."""
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
        self._free, self._busy = [], {}
        for pool in pools:
            pool.shutdown(wait=True, kill_workers=True)
