"""What happens in a worker process: it receives jobs, stores their runs, reports how far it is in a small file."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

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

    def __init__(self, path: str, kind: type[Arrays], additions: Mapping[str, Any]) -> None:
        self.path, self.kind, self.additions = path, kind, additions

    def read(self) -> Arrays:
        """The arrays: of the same class, with all that it holds."""
        kind: Any = self.kind
        arrays = unspool(self.path, kind)
        vars(arrays).update(self.additions)
        return arrays


@lru_cache(maxsize=4)
def unspool(path: str, kind: Any) -> Arrays:
    """The user's arrays, read once in each worker; the path says which content and class."""
    tensors, metadata = files.load_tensors(Path(path), "lotto.arrays")
    arrays: Arrays = object.__new__(kind)
    arrays.name = metadata["name"]
    arrays._scale, arrays._shift = tensors.get("scale"), tensors.get("shift")
    for part in ("x", "y"):
        setattr(arrays, part, {k[2:]: t for k, t in tensors.items() if k.startswith(f"{part}/")})
    return arrays


def start(threads: int) -> None:
    """What a worker does before its first job."""
    torch.set_num_threads(threads)
    keep_freed_memory()


Answer = tuple[list[tuple[bool, Result | None]], str]


def work(jobs: list[WorkItem], root: str, report: str, threads: int, workers: int) -> Answer:
    """Train jobs, several of them stacked.

    Returns:
        For each job whether it was trained, and its run if the parent will not find it in the store; then why
        something could not be stored.
    """
    for job in jobs:
        data = job.recipe.data
        if isinstance(data, SpooledArrays):
            object.__setattr__(job.recipe, "data", data.read())
    reached = [(job.from_step, math.nan) for job in jobs]

    def on_step(number: int, step: int, loss: float) -> None:
        reached[number] = (step, loss)
        with contextlib.suppress(OSError):  # a display is no reason to lose a training
            Path(report).write_bytes(b"".join(PROGRESS.pack(*at) for at in reached))

    execution = {"engine": "processes", "workers": workers, "threads": threads}
    problems: list[str] = []
    found = compute_stack(Store(root, problems.append), jobs, on_step, execution)
    return [(trained, _portable(run)) for run, trained in found], " ".join(problems)


def _portable(run: Result) -> Result | None:
    """What travels of a result: all of it, unless it is a run that the store holds."""
    if not isinstance(run, Run):
        return run
    if run.key is not None:
        return None
    return replace(run, states={s: State(v.weights, v.optimizer) for s, v in run.states.items()})
