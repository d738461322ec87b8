"""What travels between an engine and a worker: an order there, an answer back."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lotto.core.rounding import Rounding
from lotto.execution.memory import keep_freed_memory
from lotto.execution.stacking import compute_stack
from lotto.execution.store import Result, Store, WorkItem
from lotto.execution.task import OnStep
from lotto.execution.threads import limited_threads
from lotto.training.job import Run, State

PROGRESS = struct.Struct("=qd")
"""Step and mean loss lately, one after another for the jobs of a stack."""


@dataclass(frozen=True)
class Place:
    """Where a worker finds what the process that sent a parcel calls its store and its scratch folder.

    Attributes:
        store: the store's folder.
        scratch: folder of the data that travel, and of reports of progress.
    """

    store: str
    scratch: str


@dataclass(frozen=True)
class Arithmetic:
    """What of a process's settings changes the bits of what it computes.

    Attributes:
        threads: sums are split among them.
        rounding: of float32 products, convolutions and recurrent layers.
        deterministic: torch's debug mode of deterministic algorithms.
    """

    threads: int
    rounding: Rounding
    deterministic: int

    @classmethod
    def of_this_process(cls) -> Arithmetic:
        """The settings now."""
        return cls(torch.get_num_threads(), Rounding.of_this_process(), torch.get_deterministic_debug_mode())

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
        if self.rounding != before.rounding:
            self.rounding.set()
        if self.deterministic != before.deterministic:
            torch.set_deterministic_debug_mode(self.deterministic)


@dataclass(frozen=True)
class Order:
    """What is in a parcel.

    Attributes:
        number: the assignment's.
        jobs: what is computed.
        place: where store and scratch folder are for the process that sends it.
        report: name of the file in the scratch folder that says how far it is.
        arithmetic: the sender's settings.
        execution: how trainings are stacked and measured, see `Engine.execution`.
    """

    number: str
    jobs: list[WorkItem]
    place: Place
    report: str
    arithmetic: Arithmetic
    execution: Mapping[str, Any]

    def compute(self, place: Place, emit: OnStep | None) -> Answer:
        """Compute the jobs in this process; how far they are is written to the report."""
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


def _portable(run: Result) -> Result | None:
    """What travels of a result: all of it, unless it is a run that the store holds."""
    if not isinstance(run, Run):
        return run
    if run.key is not None:
        return None
    return replace(run, states={s: State(v.weights, v.optimizer) for s, v in run.states.items()})
