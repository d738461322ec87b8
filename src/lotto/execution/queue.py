"""Over a queue in the store: workers that somebody has started, on whichever machines, take the jobs (`lotto work`).

So one entry of a cluster's scheduler is a worker, and never a training. Jobs travel as parcels in the store's folder,
results through the store. Whoever runs the experiment may end and come back: what waits or is worked on is found again.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pickle import loads
from typing import Any

from lotto.core.errors import StorageError, WorkerError
from lotto.core.fingerprint import digest
from lotto.execution.assignment import Assignment
from lotto.execution.engine import Engine, Reply
from lotto.execution.parcel import Answer
from lotto.execution.queue_folder import BEAT_SECONDS, Leases, QueueFolder, new_worker
from lotto.execution.schedule import job_name
from lotto.execution.signs_of_life import SignsOfLife
from lotto.execution.store import Store

log = logging.getLogger(__name__)

MOST = 1000
"""Parcels in the queue at a time, unless another number is given."""
POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""Between two looks whether what was asked for is still there."""
GONE_SECONDS = 60.0
PATIENCE_SECONDS = 20.0
"""After that without any worker it is said how to start one."""


class Queue(Engine):
    """Has its jobs trained by the workers of the store's queue.

    Args:
        store: where runs are remembered; its folder holds the queue.
        workers: most jobs in the queue at a time; None = many.
        threads: threads of each job.
        stack: jobs that train together in a worker; None = measured.

    >>> Queue(lotto.Store("my-runs")).slots
    1000
    """

    sizes_itself = True

    def __init__(self, store: Store, workers: int | None = None, threads: int = 1, stack: int | None = 1) -> None:
        super().__init__(store, threads, stack, workers=workers or MOST)
        self._folder: QueueFolder | None = None
        self._busy: dict[str, tuple[Assignment, bytes]] = {}
        self._alone_since: float | None = None
        self._looked = 0.0
        self._watched: Leases | None = None
        self._waiter = new_worker()
        self._signs: SignsOfLife | None = None

    @property
    def queue(self) -> QueueFolder:
        """The queue's folder, which is made."""
        if self._folder is None:
            self._folder = QueueFolder(self.store.root)
        return self._folder

    @property
    def _leases(self) -> Leases:
        """Which of the workers are silent."""
        if self._watched is None:
            self._watched = Leases(self.queue, PATIENCE_SECONDS)
        return self._watched

    @property
    def execution(self) -> dict[str, Any]:
        """The engine and its threads; which worker computes nobody knows yet."""
        return {"engine": self.name, "threads": self.threads}

    @property
    def scratch(self) -> Any:
        """What travels lies in the queue, where it stays for whoever comes back; first we say that we ask."""
        if self._signs is None:
            self._signs = SignsOfLife(self._say, BEAT_SECONDS)
        return _Kept(self.queue.folder("data"))

    def _say(self, number: int) -> None:
        self.queue.ask(self._waiter, number, [*self._busy])

    def submit(self, assignment: Assignment) -> None:
        """Put it into the queue."""
        keys = [job_name(job) for job in assignment.jobs]
        known = all(job.key is not None for job in assignment.jobs)
        name = digest({"queue": sorted(keys)}) if known else secrets.token_hex(16)
        parcel = assignment.parcel()
        self._busy[name] = assignment, parcel
        self.queue.put(name, parcel)

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Wait for an answer; a store that is gone is waited for, too, for a minute.

        Raises:
            StorageError: if it does not come back.
        """
        came: list[tuple[Assignment, Reply]] = []
        gone_since: float | None = None
        while self._busy and not came:
            try:
                came = self._answers()
                if not came:
                    self._look_after()
                gone_since = None
            except (StorageError, OSError):
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > GONE_SECONDS:
                    raise
            if not came:
                report()
                time.sleep(POLL_SECONDS)
        return came

    def _answers(self) -> list[tuple[Assignment, Reply]]:
        came: list[tuple[Assignment, Reply]] = []
        for name in sorted(self.queue.answered() & self._busy.keys()):
            if (content := self.queue.answer(name)) is not None:
                assignment, _ = self._busy.pop(name)
                came.append((assignment, _reply(content, assignment)))
        return came

    def _look_after(self) -> None:
        """Say if there are no workers, and put back what has gone, with whatever folder it was in."""
        now = time.monotonic()
        if set(self.queue.workers()) - set(self._leases.run_out()) or self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > PATIENCE_SECONDS:
            self._alone_since = float("inf")
            log.warning("Nobody works on the queue of %s. Start workers: lotto work %s", *[self.store.root] * 2)
        if now - self._looked > LOOK_SECONDS:
            self._looked, self._folder = now, QueueFolder(self.store.root)
            for name in self._busy.keys() - self.queue.known():
                self.queue.put(name, self._busy[name][1])

    def close(self) -> None:
        """Withdraw what is not done; what it has reached stays for whoever wants it again."""
        busy, self._busy = self._busy, {}
        if self._signs is not None:
            self._signs.close()
            self._signs = None
        if self._folder is not None:
            with contextlib.suppress(StorageError, OSError):  # it is gone, and with it whoever works there
                for name in busy:
                    self._folder.withdraw(name)
                self._folder.forget_reports()
                self._folder.ask_no_more(self._waiter)


class _Kept:
    """A folder in a `Scratch` folder's place, which stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self) -> None:
        """It stays."""


def _reply(content: bytes, assignment: Assignment) -> Reply:
    """An answer to this parcel or to the same one of a process that is gone."""
    found = loads(content)
    return replace(found, number=assignment.number) if isinstance(found, Answer) else WorkerError(str(found))
