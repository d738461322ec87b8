"""In this process: one job after another, or stacks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lotto.core.errors import UsageError
from lotto.execution.assignment import Assignment
from lotto.execution.engine import Engine, Reply
from lotto.execution.store import Store


class Serial(Engine):
    """Trains in the calling process.

    Args:
        store: where runs are remembered.
        threads: threads of each training.
        stack: jobs that train together; None = measured.
        workers: 1, this process.

    >>> (run,) = Serial(lotto.Store()).run([lotto.Job(recipe, to_step=10)])
    >>> run.steps
    (0, 10)
    """

    on_this_machine = True

    def __init__(self, store: Store, threads: int = 1, stack: int | None = 1, *, workers: int = 1) -> None:
        if workers != 1:
            raise UsageError(f"The engine 'serial' trains in this process, with jobs=1; got jobs={workers}.")
        super().__init__(store, threads, stack)
        self._given: list[Assignment] = []

    @property
    def execution(self) -> dict[str, Any]:
        """The engine and its threads; workers it has none."""
        return {"engine": self.name, "threads": self.threads}

    def submit(self, assignment: Assignment) -> None:
        """Take it; it is computed when it is collected."""
        self._given.append(assignment)

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Compute what was submitted."""
        given, self._given = self._given, []
        return [(assignment, assignment.compute()) for assignment in given]

    def close(self) -> None:
        """Forget what an error or Ctrl-C has left."""
        self._given = []
