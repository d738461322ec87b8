"""Work that is done sooner than workers would be started: it is computed in the process itself, with the same bits.

How long it takes is a forecast, so it is given up where it takes longer: it then begins anew in a worker.
"""

from __future__ import annotations

import time
from dataclasses import replace

from lotto.execution.assignment import Assignment
from lotto.execution.parcel import Answer
from lotto.execution.serial import Serial

SHORT_SECONDS = 2.0
"""What takes less is not worth its workers: about as long as they take to start, and to load what this process has."""


class _TakesLonger(BaseException):
    """Not an error, so that nothing that waits for errors takes it for one."""


class ShortWork:
    """What a run of an engine may compute in this process, all in all.

    Args:
        seconds: how long; 0 = nothing is computed here.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent = seconds, 0.0

    def takes(self, assignment: Assignment) -> bool:
        """Whether an assignment and all that follows it are expected to be done as soon."""
        return assignment.seconds_left < self.seconds and self.spent < 2 * self.seconds

    def compute(self, assignment: Assignment) -> Answer | None:
        """Compute it here; None = this has taken twice as long by now as was to be expected, and is given up."""
        began, engine = time.perf_counter(), assignment.engine
        deadline = began + 2 * self.seconds - self.spent

        def advanced(number: int, step: int, loss: float) -> None:
            if time.perf_counter() > deadline and step < assignment.jobs[number].end:
                raise _TakesLonger
            assignment.advanced(number, step, loss)

        here = Serial(engine.store, engine.threads, engine.stack)
        try:
            return replace(assignment, engine=here, advanced=advanced).compute()
        except _TakesLonger:
            return None
        finally:
            self.spent += time.perf_counter() - began
