"""What happens in a worker process: it receives jobs, stores their runs, reports how far it is in a small file."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import struct
import threading
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from lotto.core import files
from lotto.data import Arrays
from lotto.execution.memory import keep_freed_memory
from lotto.execution.stacking import compute_stack
from lotto.execution.store import Result, Store, WorkItem
from lotto.training.job import Run, State

PROGRESS = struct.Struct("=qd")
"""Step and mean loss lately, one after another for the jobs of a stack."""


class SpooledArrays:
    """Where a worker finds the user's arrays."""

    def __init__(self, path: str) -> None:
        self.path = path


@lru_cache(maxsize=4)
def unspool(path: str) -> Arrays:
    """The user's arrays, read once in each worker."""
    tensors, metadata = files.load_tensors(Path(path), "lotto.arrays")
    arrays = object.__new__(Arrays)
    arrays.name = metadata["name"]
    arrays._scale, arrays._shift = tensors.get("scale"), tensors.get("shift")
    for part in ("x", "y"):
        setattr(arrays, part, {k[2:]: t for k, t in tensors.items() if k.startswith(f"{part}/")})
    return arrays


def start_worker(threads: int, parent: int) -> None:
    """What a worker does first."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    keep_freed_memory()
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def leave_with(parent: int) -> None:
    """End this worker when its parent is gone, even by SIGKILL: its checkpoint is there for the next one.

    The parent says who it is: it may be gone before this worker has started.
    """
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def work(jobs: list[WorkItem], root: str, report: str, threads: int, workers: int) -> list[tuple[bool, Result | None]]:
    """Train jobs, several of them stacked; the runs themselves travel back only if the store does not remember them."""
    for job in jobs:
        data = job.recipe.data
        if isinstance(data, SpooledArrays):
            object.__setattr__(job.recipe, "data", unspool(data.path))
    reached = [(job.from_step, math.nan) for job in jobs]

    def on_step(number: int, step: int, loss: float) -> None:
        reached[number] = (step, loss)
        with contextlib.suppress(OSError):  # a display is no reason to lose a training
            Path(report).write_bytes(b"".join(PROGRESS.pack(*at) for at in reached))

    execution = {"engine": "processes", "workers": workers, "threads": threads}
    found = compute_stack(Store(root), jobs, on_step, execution)
    return [
        (trained, None if job.key is not None else _portable(run))
        for job, (run, trained) in zip(jobs, found, strict=True)
    ]


def _portable(run: Result) -> Result:
    """A run that can travel."""
    if not isinstance(run, Run):
        return run
    return replace(run, states={s: State(v.weights, v.optimizer) for s, v in run.states.items()})
