"""What an engine says while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lotto.core.shown import shown
from lotto.execution.store import Result, WorkItem


@dataclass(frozen=True)
class JobStarted:
    """A job has been given to a worker."""

    job: WorkItem

    __repr__ = shown


@dataclass(frozen=True)
class JobAdvanced:
    """A job has reached ``step``; ``loss`` is its mean training loss lately."""

    job: WorkItem
    step: int
    loss: float

    __repr__ = shown


@dataclass(frozen=True)
class JobFinished:
    """A job's run is there; ``trained`` is False when it was remembered."""

    job: WorkItem
    run: Result
    trained: bool

    __repr__ = shown


Progress = Callable[[object], None]
"""Called with the events above, and with those of an experiment."""
