"""Work that travels: what an engine gives a worker, what the worker does with it wherever it is, what comes back.

An `Assignment` is computed here (`Assignment.compute`) or elsewhere: `Assignment.parcel` gives bytes, `compute_parcel`
makes of them, in whichever process, the bytes of the answer. How they get there and back is the engine's affair.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import struct
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import loads
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch

from lotto.core import orphans
from lotto.core.errors import LottoError, UsageError, WorkerError, text
from lotto.execution.compute import lookup
from lotto.execution.memory import keep_freed_memory
from lotto.execution.spool import Spooled, spooled, unspool
from lotto.execution.stacking import compute_stack
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.task import OnStep
from lotto.execution.threads import limited_threads
from lotto.training.job import Run, State

if TYPE_CHECKING:
    from lotto.execution.engine import Engine

PROGRESS = struct.Struct("=qd")
"""Step and mean loss lately, one after another for the jobs of a stack."""


# --- the engine's side --------------------------------------------------------------------------------


@dataclass(eq=False)
class Assignment:
    """Jobs that one worker computes together: a task, a training, or a stack of trainings.

    Attributes:
        jobs: what is computed.
        engine: whose it is: its store, threads and scratch folder.
        advanced: called with (number of the job, step, mean loss lately).
        number: no other assignment has it.
        seconds_left: about how long it takes, with all that is known to follow it, one after another in one process;
            infinite if nobody knows.
        report: file in which a worker says how far it is; None = it was not sent to another process.

    >>> engine = lotto.engine.make(1, store)
    >>> assignment = Assignment([lotto.Job(recipe)], engine, lambda number, step, loss: None)
    >>> assignment.compute().number == assignment.open(compute_parcel(assignment.parcel())).number
    True
    >>> engine.scratch.close()
    """

    jobs: Sequence[WorkItem]
    engine: Engine
    advanced: Callable[[int, int, float], None]
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    seconds_left: float = math.inf
    report: Path | None = None
    _seen: bytes = b""

    @property
    def name(self) -> str:
        """Its jobs, for sentences."""
        return ", ".join(named(job) for job in self.jobs)

    def compute(self) -> Answer:
        """Compute it in this process, one at a time; progress is shown by itself, and errors are raised here."""
        engine = self.engine
        found = compute_stack(engine.store, self.jobs, self.advanced, engine.execution)
        return Answer(self.number, tuple((trained, run) for run, trained in found))

    def parcel(self) -> bytes:
        """What `compute_parcel` needs to compute it in another process, in one piece.

        The user's data are not in it: they are written to the scratch folder once, and each worker reads them once.

        Raises:
            UsageError: if a job cannot be sent, with the reason.
        """
        engine = self.engine
        folder = engine.scratch.folder
        self.report = folder / f"progress-{self.number}"
        place, arithmetic = Place(str(engine.store.root), str(folder)), Arithmetic.of_this_process()
        try:
            jobs = [spooled(job, folder) for job in self.jobs]
            order = _Order(self.number, jobs, place, self.report.name, arithmetic, engine.execution)
            return cloudpickle.dumps(order)
        except LottoError:
            raise
        except Exception as error:  # whatever the user's objects may raise
            raise UsageError(
                f"{self.name} cannot be sent to a worker process ({type(error).__name__}: {text(str(error))}); "
                "train in this process with jobs=1."
            ) from error

    def show_progress(self) -> None:
        """Say how far it is, if the worker has written more about it."""
        if self.report is None:
            return
        content = b""
        with contextlib.suppress(OSError):  # a display is no reason to lose a training
            content = self.report.read_bytes()
        if len(content) == len(self.jobs) * PROGRESS.size and content != self._seen:
            self._seen = content
            for number, at in enumerate(PROGRESS.iter_unpack(content)):
                self.advanced(number, *at)

    def open(self, reply: Answer | bytes) -> Answer:
        """The answer in a reply, which is what `compute` or `compute_parcel` gave.

        Raises:
            UsageError: if it is something else, or the answer to another assignment.
            Exception: the one that the computation raised in its worker.
        """
        if isinstance(reply, bytes):
            with contextlib.suppress(Exception):
                reply = loads(reply)
        if self.report is not None:
            with contextlib.suppress(OSError):
                self.report.unlink(missing_ok=True)
        if not isinstance(reply, Answer) or not (reply.error or len(reply.results) == len(self.jobs)):
            raise UsageError(
                f"The engine {self.engine.name!r} gave {text(reply)} back for {self.name}; a reply is what "
                "Assignment.compute or compute_parcel gave, or a WorkerError."
            )
        if reply.error is not None:
            raise reply.error from WorkerTraceback(reply.traceback)
        if reply.number != self.number:
            raise UsageError(f"The engine {self.engine.name!r} gave the answer of another job back for {self.name}.")
        if reply.problem:
            self.engine.store.warn_not_kept(reply.problem)
        return reply


@dataclass(frozen=True)
class Answer:
    """What came of an assignment.

    Attributes:
        number: the assignment's.
        results: for each job whether it was computed, and its result unless it is found in the store.
        problem: why something could not be stored.
        error: what the computation raised in another process.
        traceback: where.
    """

    number: str
    results: tuple[tuple[bool, Result | None], ...] = ()
    problem: str = ""
    error: Exception | None = None
    traceback: str = ""


class WorkerTraceback(Exception):
    """Where an error arose, in the process in which it did."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


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


def named(job: WorkItem) -> str:
    """A job in a sentence."""
    return repr(job.label or job.recipe.name)


# --- the worker's side --------------------------------------------------------------------------------


def start(threads: int) -> None:
    """What a child process does before its first parcel; the import of this module is the slow part."""
    torch.set_num_threads(threads)
    keep_freed_memory()


@dataclass(frozen=True)
class Place:
    """Where a worker finds what the process that sent a parcel calls its store and its scratch folder.

    Attributes:
        store: the store's folder.
        scratch: folder of the data that travel, and of reports of progress.
    """

    store: str
    scratch: str


def compute_parcel(parcel: bytes, place: Place | None = None, emit: OnStep | None = None) -> bytes:
    """Compute an assignment from its parcel, in a process of its own; returns its answer, an error being one, too.

    Threads and precision are those of the process that sent it, whatever this process had. The runs are in the store.

    Args:
        parcel: what `Assignment.parcel` gave.
        place: where store and scratch folder are, if not where they were for the sender.
        emit: called with (step, mean loss lately) of whatever advances; an error that it raises ends the computation.

    >>> answer = compute_parcel(b"no parcel")  # it says so
    >>> assignment = Assignment([lotto.Job(recipe)], lotto.engine.make(1), print)
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
        self._order: _Order | None = None
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


@dataclass(frozen=True)
class Arithmetic:
    """What of a process's settings changes the bits of what it computes.

    Attributes:
        threads: sums are split among them.
        matmul: precision of float32 products.
        deterministic: torch's debug mode of deterministic algorithms.
    """

    threads: int
    matmul: str
    deterministic: int

    @classmethod
    def of_this_process(cls) -> Arithmetic:
        """The settings now."""
        return cls(torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode())

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Compute with these settings within the block."""
        before = Arithmetic.of_this_process()
        with limited_threads(self.threads):
            self._set(before)
            try:
                yield
            finally:
                before._set(self)

    def _set(self, before: Arithmetic) -> None:
        if self.matmul != before.matmul:
            torch.set_float32_matmul_precision(self.matmul)
        if self.deterministic != before.deterministic:
            torch.set_deterministic_debug_mode(self.deterministic)


@dataclass(frozen=True)
class _Order:
    """What is in a parcel."""

    number: str
    jobs: list[WorkItem]
    place: Place
    report: str
    arithmetic: Arithmetic
    execution: Mapping[str, Any]

    def compute(self, place: Place, emit: OnStep | None) -> Answer:
        keep_freed_memory()
        report = Path(place.scratch, self.report)
        reached = [(job.from_step, math.nan) for job in self.jobs]

        def on_step(number: int, step: int, loss: float) -> None:
            reached[number] = (step, loss)
            with contextlib.suppress(OSError):  # a display is no reason to lose a training
                report.write_bytes(b"".join(PROGRESS.pack(*at) for at in reached))
            if emit is not None:
                emit(step, loss)

        problems: list[str] = []
        with self.arithmetic.applied():
            found = compute_stack(Store(place.store, problems.append), self.jobs, on_step, self.execution)
        return Answer(self.number, tuple((trained, _portable(run)) for run, trained in found), " ".join(problems))


def _portable(run: Result) -> Result | None:
    """What travels of a result: all of it, unless it is a run that the store holds."""
    if not isinstance(run, Run):
        return run
    if run.key is not None:
        return None
    return replace(run, states={s: State(v.weights, v.optimizer) for s, v in run.states.items()})


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
