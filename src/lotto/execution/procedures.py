"""Procedures: generators that yield jobs, are sent what they gave, and return a result.

An experiment is a set of them. A procedure waits only for its own jobs, so that no worker is idle while any can go on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lotto.core.pytree import flatten, unflatten
from lotto.execution.store import Result, WorkItem

T = TypeVar("T")
Procedure = Generator[Any, Any, T]
"""Yields any pytree of jobs and tasks (`lotto.core.pytree`), is sent what they gave as the same pytree."""


@dataclass
class Position(Generic[T]):
    """Where a procedure stands: the jobs it waits for, and what those that are done gave."""

    procedure: Procedure[T]
    tree: Any = None
    jobs: list[WorkItem] = field(default_factory=list)
    results: dict[int, Result] = field(default_factory=dict)
    started: bool = False
    result: Any = None

    def advance(self) -> list[tuple[int, WorkItem]]:
        """Send the results, take the next jobs; passes over empty trees."""
        while True:
            sent = unflatten(self.tree, [self.results[i] for i in range(len(self.jobs))]) if self.started else None
            try:
                self.tree = self.procedure.send(sent)
            except StopIteration as stop:
                self.result = stop.value
                return []
            self.started, self.results, self.jobs = True, {}, flatten(self.tree)
            if self.jobs:
                return list(enumerate(self.jobs))


def gather(procedures: Any) -> Procedure[Any]:
    """One procedure that advances several in step, so that their jobs run side by side.

    Args:
        procedures: a list, a dict or any other pytree of procedures.

    Returns:
        The same pytree of their results.

    >>> def last_step(seed):
    ...     run = yield lotto.Job(recipe, init_seed=seed)
    ...     return run.steps[1]
    >>> lotto.engine.make(jobs=1).run_procedures([gather({"a": last_step(0), "b": last_step(1)})])
    [{'a': 40, 'b': 40}]
    """
    positions = [Position(procedure) for procedure in flatten(procedures)]
    waiting = [(position, position.advance()) for position in positions]
    while waiting := [(position, jobs) for position, jobs in waiting if jobs]:
        found = iter((yield [job for _, jobs in waiting for _, job in jobs]))
        for position, jobs in waiting:
            position.results = {index: next(found) for index, _ in jobs}
        waiting = [(position, position.advance()) for position, _ in waiting]
    return unflatten(procedures, [position.result for position in positions])
