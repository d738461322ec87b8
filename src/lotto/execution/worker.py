"""The worker's side of work that travels: from the bytes of a parcel to those of its answer."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from pickle import loads

import cloudpickle
import torch

from lotto.core import orphans
from lotto.core.errors import WorkerError, text
from lotto.execution.compute import lookup
from lotto.execution.memory import keep_freed_memory
from lotto.execution.parcel import Answer, Order, Place
from lotto.execution.spool import Spooled, unspool
from lotto.execution.store import Store, WorkItem
from lotto.execution.task import OnStep


def initializer(threads: int) -> tuple[Callable[..., None], tuple[object, ...]]:
    """What a child process calls first, and with what: it takes no Ctrl-C, leaves with this process, has its threads.

    It is for pools (``initializer=``, ``initargs=``) and quick to import. Start children within `held`, so that they
    are born deaf to signals.

    >>> function, arguments = initializer(threads=1)
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> pool = ProcessPoolExecutor(2, initializer=function, initargs=arguments)
    >>> pool.shutdown()
    """
    return orphans.start_worker, (os.getpid(), __name__, threads)


def start(threads: int) -> None:
    """What a child process does before its first parcel; the import of this module is the slow part."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def compute_parcel(parcel: bytes, place: Place | None = None, emit: OnStep | None = None) -> bytes:
    """Compute an assignment from its parcel, in a process of its own; returns its answer, an error being one, too.

    Threads and precision are those of the process that sent it, whatever this process had. The runs are in the store.

    Args:
        parcel: what `Assignment.parcel` gave.
        place: where store and scratch folder are, if not where they were for the sender.
        emit: called with (step, mean loss lately) of whatever advances; an error that it raises ends the computation.

    >>> answer = compute_parcel(b"no parcel")  # it says so
    >>> assignment = lotto.execution.Assignment([lotto.Job(recipe)], lotto.engine.make(1), print)
    >>> assignment.open(answer)
    Traceback (most recent call last):
    lotto.core.errors.WorkerError: A worker cannot read its job: invalid load key, 'n'.
    """
    return Opened(parcel).compute(place, emit)


class Opened:
    """A parcel that is read once, for all that is asked of it.

    Args:
        parcel: what `Assignment.parcel` gave. If it cannot be read it has no jobs, and `compute` answers why.
    """

    def __init__(self, parcel: bytes) -> None:
        self._order: Order | None = None
        self._unreadable = b""
        try:
            self._order = loads(parcel)
        except Exception as error:  # whatever the user's objects may raise
            self._unreadable = _cannot_read(error)
        self.jobs: list[WorkItem] = [] if self._order is None else list(self._order.jobs)
        self.data = [data.name for job in self.jobs if isinstance(data := job.recipe.data, Spooled)]
        """Names of the files in the scratch folder that the jobs read."""

    @property
    def keys(self) -> list[str]:
        """Keys under which what is computed is stored."""
        return [job.key for job in self.jobs if job.key is not None]

    def is_stored(self, place: Place) -> bool:
        """Whether all that would be computed is found in the store."""
        with contextlib.suppress(Exception):  # `compute` says it
            for job in self.jobs:
                unspool(job, place.scratch)
            return bool(self.jobs) and all(lookup(Store(place.store), job) is not None for job in self.jobs)
        return False

    def compute(self, place: Place | None = None, emit: OnStep | None = None) -> bytes:
        """Compute it, see `compute_parcel`."""
        if self._order is None:
            return self._unreadable
        place = place or self._order.place
        try:
            for job in self.jobs:
                unspool(job, place.scratch)
        except Exception as error:  # whatever the user's objects may raise
            return _cannot_read(error)
        try:
            return cloudpickle.dumps(self._order.compute(place, emit))
        except Exception as error:
            return _failed(error, error)


def _cannot_read(error: Exception) -> bytes:
    return _failed(WorkerError(f"A worker cannot read its job: {str(error).rstrip('.')}."), error)


def _failed(error: Exception, origin: Exception) -> bytes:
    """The answer of a computation that raised an error; one that cannot travel goes as its text."""
    where = "".join(traceback.format_exception(origin))
    try:
        answer = cloudpickle.dumps(Answer("", error=error, traceback=where))
        loads(answer)
    except Exception:  # whatever the user's classes may raise
        said = WorkerError(f"A worker raised {type(error).__name__}: {text(str(error))}")
        answer = cloudpickle.dumps(Answer("", error=said, traceback=where))
    return answer
