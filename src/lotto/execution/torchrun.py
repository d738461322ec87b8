"""The processes that `torchrun` has started train one network after another together, each a slice of every batch.

The first one (rank 0) schedules, reads and writes the store, makes masks and prunes, and computes whatever is no
training. The others are told each training, with its mask and where it begins, and at the end what came out: they
decide nothing by themselves, so that no two can decide differently.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pickle import loads
from typing import Any, NamedTuple

import cloudpickle

from lotto.core import files
from lotto.core.errors import DivergedError, LottoError, UsageError, WorkerError, text
from lotto.core.peers import GRACE_SECONDS
from lotto.core.ranks import HOW, Launch, Ranks, joined
from lotto.core.scratch import Scratch
from lotto.execution.assignment import Assignment
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import Engine, Reply
from lotto.execution.events import Progress
from lotto.execution.parcel import Answer, Arithmetic
from lotto.execution.procedures import Procedure, T
from lotto.execution.spool import Spooled, spooled, unspool
from lotto.execution.store import Store
from lotto.training.checkpoint import Checkpoint
from lotto.training.job import Job, Run
from lotto.training.learners.slicing import check_divides
from lotto.training.loop import train

log = logging.getLogger(__name__)


class Order(NamedTuple):
    """A training, as the others are told it.

    Attributes:
        job: with its mask and its start; data that only the first one has are in a file.
        point: where it goes on from.
        folder: of that file.
        arithmetic: the threads and the precision of the first one.
    """

    job: Job
    point: Checkpoint | None
    folder: str
    arithmetic: Arithmetic


class Torchrun(Engine):
    """Trains with the other processes of the launch; on the others, it does what the first one says.

    Args:
        store: where runs are remembered; the first one's alone is read and written.
        threads: threads of each process.
        stack: 1; nothing is stacked.
        workers: 1; there is one training at a time.

    Raises:
        UsageError: if this process was not started by `torchrun` with others, or not all of them have come.

    >>> Torchrun(lotto.Store())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lotto.core.errors.UsageError: The engine 'torchrun' needs several processes that torchrun has started: ...
    """

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1, *, workers: int = 1) -> None:
        if Launch.here() is None:
            raise UsageError(f"The engine 'torchrun' needs several processes that torchrun has started: {HOW}.")
        if workers != 1 or (stack or 1) != 1:
            raise UsageError(
                f"Under torchrun all ranks train one network at a time: jobs and stack are 1; got jobs={workers}, "
                f"stack={stack}."
            )
        super().__init__(store, threads, 1)
        self.ranks = joined()
        self._given: list[Assignment] = []
        self._said: set[str] = set()

    @property
    def execution(self) -> dict[str, Any]:
        """The engine, how many processes, and their threads."""
        return {"engine": self.name, "ranks": self.ranks.size, "threads": self.threads}

    @property
    def parts(self) -> int:
        """See `Engine`."""
        return self.ranks.size

    def run_procedures(
        self, procedures: Sequence[Procedure[T]], progress: Progress | bool | None = None, expected: int | None = None
    ) -> list[T]:
        """See `Engine`; the others' procedures are not advanced: they are told what the first one's return."""
        asked = [expected, *(getattr(procedure, "__qualname__", "") for procedure in procedures)]
        if self.ranks.rank:
            for procedure in procedures:
                procedure.close()
            found: list[T] = follow(self.ranks, asked)
            return found
        self._tell("begin", asked)
        try:
            found = super().run_procedures(procedures, progress, expected)
        except Exception as error:
            with contextlib.suppress(WorkerError):  # those who are left are told by their connections
                self._tell("failed", error)
            raise
        self._tell("done", found)
        return found

    def _tell(self, kind: str, value: Any) -> None:
        try:
            message = cloudpickle.dumps((kind, value))
        except Exception as error:  # whatever the user's classes may raise
            why = value if kind == "failed" else error
            said = WorkerError(f"What rank 0 has found cannot be sent ({type(why).__name__}: {text(str(why))}).")
            message = cloudpickle.dumps(("failed", said))
        self.ranks.peers.tell(message)

    def submit(self, assignment: Assignment) -> None:
        """Take it; it is computed when it is collected.

        Raises:
            UsageError: if so many processes cannot divide it.
        """
        for job in assignment.jobs:
            if isinstance(job, Job):
                check_divides(job.recipe, self.ranks.size)
                self._say_what_trains(job)
        self._given.append(assignment)

    def _say_what_trains(self, job: Job) -> None:
        recipe = job.recipe
        if recipe.name not in self._said and recipe.arithmetic != "dense" and not recipe.by_autograd_alone:
            log.info(
                "%d ranks train slices of each batch by autograd; kernels of single weights take whole batches, in one "
                "process.", self.ranks.size,
            )  # fmt: skip
        self._said.add(recipe.name)

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Compute what was submitted."""
        given, self._given = self._given, []
        return [(assignment, self._computed(assignment)) for assignment in given]

    def _computed(self, assignment: Assignment) -> Answer:
        found = [
            get_or_compute(
                self.store, item, on_step=partial(assignment.advanced, i), execution=self.execution, trainer=self._train
            )
            for i, item in enumerate(assignment.jobs)
        ]
        return Answer(assignment.number, tuple((trained, run) for run, trained in found))

    def _train(self, job: Job, *, resume: Checkpoint | None = None, **how: Any) -> Run:
        """See `training.train`: with all others."""
        folder = self.scratch.folder
        try:
            sent = spooled(job, folder)
            assert isinstance(sent, Job)
            self._tell("train", Order(sent, resume, str(folder), Arithmetic.of_this_process()))
        except LottoError:
            raise
        except Exception as error:  # whatever the user's objects may raise
            raise UsageError(
                f"{job.label or job.recipe.name} cannot be sent to the other ranks ({type(error).__name__}: "
                f"{text(str(error))})."
            ) from error
        data = sent.recipe.data
        if isinstance(data, Spooled) and any(self.ranks.gathered(False)):
            self.ranks.peers.tell((folder / data.name).read_bytes())
        with _working(self.ranks):
            return train(job, resume=resume, ranks=self.ranks, **how)

    def close(self) -> None:
        """Forget what an error or Ctrl-C has left."""
        self._given = []


def follow(ranks: Ranks, asked: list[Any]) -> Any:
    """Train with the first process until a run of its engine has ended; returns what came out there.

    Args:
        ranks: all processes.
        asked: what this process wants to have run, by number and by name, which must be the first one's.

    Raises:
        LottoError: what the run ended with.
    """
    with contextlib.closing(_Elsewhere()) as place:
        message = ranks.peers.hear()
        while message is not None:
            kind, value = loads(message)
            if kind == "done":
                return value
            if kind == "failed":
                raise value
            if kind == "begin" and value != asked:
                why = f"the program asks for {text(asked)} on rank {ranks.rank} and for {text(value)} on rank 0"
                ranks.peers.leave(why)
                raise WorkerError(f"{why[0].upper()}{why[1:]}: all ranks run the same program.")
            message = (_trained(ranks, value, place) if kind == "train" else None) or ranks.peers.hear()
        ranks.peers.check()
        raise WorkerError("Rank 0 has ended.")


def serve() -> None:
    """Train with the first process until it has ended, whatever it does: what a command is on all other processes."""
    ranks = joined()
    with contextlib.closing(_Elsewhere()) as place:
        message = ranks.peers.hear()
        while message is not None:
            kind, value = loads(message)
            message = (_trained(ranks, value, place) if kind == "train" else None) or ranks.peers.hear()


def _trained(ranks: Ranks, order: Order, place: _Elsewhere) -> bytes | None:
    """Train what the first process trains; returns what it has said meanwhile."""
    peers, data = ranks.peers, order.job.recipe.data
    try:
        folder = Path(order.folder)
        if isinstance(data, Spooled):
            lacks = not (folder / data.name).exists() and not (place.folder / data.name).exists()
            if any(ranks.gathered(lacks)):
                content = peers.hear()
                if lacks and content is not None:
                    files.write_bytes(place.folder / data.name, content)
            folder = folder if (folder / data.name).exists() else place.folder
        unspool(order.job, folder)
        with order.arithmetic.applied(), _working(ranks):
            train(order.job, resume=order.point, ranks=ranks)
    except (DivergedError, WorkerError) as error:
        if peers.lost:
            raise
        log.debug("%s", error)  # the first one says it
    except Exception as error:
        if (message := peers.hear(GRACE_SECONDS)) is not None:  # what went wrong there as well
            return message
        peers.leave(f"{type(error).__name__}: {text(str(error))}")
        raise
    return None


@contextlib.contextmanager
def _working(ranks: Ranks) -> Any:
    ranks.peers.working = True
    try:
        yield
    finally:
        ranks.peers.working = False


class _Elsewhere:
    """A folder of this process for data that the first one sends, where its own cannot be seen; made when asked for."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None

    @property
    def folder(self) -> Path:
        self._scratch = self._scratch or Scratch()
        return self._scratch.folder

    def close(self) -> None:
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
