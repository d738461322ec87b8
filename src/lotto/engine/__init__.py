"""Engines run lists of independent jobs: one after another, or over processes."""

from __future__ import annotations

import os

from lotto.engine.base import Chain, Engine, JobAdvanced, JobFinished, JobStarted, Progress, together
from lotto.engine.processes import Processes
from lotto.engine.serial import Serial
from lotto.errors import UsageError
from lotto.store import Store

__all__ = [
    "Chain",
    "Engine",
    "JobAdvanced",
    "JobFinished",
    "JobStarted",
    "Processes",
    "Progress",
    "Serial",
    "make",
    "together",
]


def make(jobs: int | str = "auto", store: Store | None = None, threads: int = 1) -> Engine:
    """Make an engine.

    Args:
        jobs: worker processes; 1 trains in this process, ``auto`` takes one worker per core.
        store: where runs are remembered; default: the user's store.
        threads: threads of each worker. One thread gives the same bits on every run and, with several jobs,
            the highest throughput.

    Raises:
        UsageError: if ``jobs`` or ``threads`` is not a positive number.
    """
    if jobs == "auto":
        workers = available_cores()
    elif str(jobs).isdigit() and int(jobs) >= 1:
        workers = int(jobs)
    else:
        raise UsageError(f"jobs is 'auto' or a whole number from 1; got {jobs!r}.")
    if threads < 1:
        raise UsageError(f"threads is a whole number from 1; got {threads!r}.")
    store = store or Store()
    return Serial(store, threads) if workers == 1 else Processes(store, workers, threads)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
