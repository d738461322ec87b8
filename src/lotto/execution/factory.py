"""Which engine: in this process or over several, one job at a time or stacks of them."""

from __future__ import annotations

import os

import torch

from lotto.core.errors import UsageError
from lotto.execution.engine import Engine
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.execution.store import Store


def make(
    jobs: int | str = "auto",
    store: Store | None = None,
    threads: int = 1,
    stack: int | str = "auto",
    device: str = "cpu",
) -> Engine:
    """Make an engine.

    Args:
        jobs: worker processes; 1 trains in this process, ``auto`` takes one worker per core, or this process alone
            where a GPU does the work.
        store: where runs are remembered; default: the user's store.
        threads: threads of each worker. One thread gives the same bits on every run and, with several jobs,
            the highest throughput.
        stack: jobs that train together in each process, along a leading axis. ``measured`` takes a few steps alone
            and stacked, chooses and says why; ``auto`` is measured on a GPU and 1 on a CPU. Stacked runs equal others
            up to rounding, and their last bits may depend on what was trained with them: a stack that was cut off
            goes on from its checkpoints, but need not end in the same bits.
        device: the recipe's.

    Raises:
        UsageError: if ``jobs``, ``threads`` or ``stack`` is not a positive number.
    """
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if jobs == "auto":
        workers = 1 if on_gpu else available_cores()
    elif str(jobs).isdigit() and int(jobs) >= 1:
        workers = int(jobs)
    else:
        raise UsageError(f"jobs is 'auto' or a whole number from 1; got {jobs!r}.")
    if threads < 1:
        raise UsageError(f"threads is a whole number from 1; got {threads!r}.")
    width: int | None
    if stack == "measured" or (stack == "auto" and on_gpu):
        width = None
    elif stack == "auto":
        width = 1
    elif str(stack).isdigit() and int(stack) >= 1:
        width = int(stack)
    else:
        raise UsageError(f"stack is 'auto', 'measured' or a whole number from 1; got {stack!r}.")
    store = store or Store()
    return Serial(store, threads, width) if workers == 1 else Processes(store, workers, threads, width)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
