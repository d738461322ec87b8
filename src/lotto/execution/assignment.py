"""The engine's side of work that travels: what it gives a worker, and what it makes of the reply.

An `Assignment` is computed here (`Assignment.compute`) or elsewhere: `Assignment.parcel` gives bytes,
`lotto.execution.compute_parcel` makes of them, in whichever process, the bytes of the answer. How they get there and
back is the engine's affair.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import loads
from typing import TYPE_CHECKING

import cloudpickle

from lotto.core.errors import LottoError, UsageError, text
from lotto.execution.parcel import PROGRESS, Answer, Arithmetic, Order, Place
from lotto.execution.spool import spooled
from lotto.execution.stacking import compute_stack
from lotto.execution.store import WorkItem

if TYPE_CHECKING:
    from lotto.execution.engine import Engine


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
    >>> assignment.compute().number == assignment.open(lotto.execution.compute_parcel(assignment.parcel())).number
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
            order = Order(self.number, jobs, place, self.report.name, arithmetic, engine.execution)
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


class WorkerTraceback(Exception):
    """Where an error arose, in the process in which it did."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def named(job: WorkItem) -> str:
    """A job in a sentence."""
    return repr(job.label or job.recipe.name)
