"""What an engine costs: jobs that compute nothing, over processes, Ray and the queue, and over more workers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

import lotto
from lotto.benchmarks.harness import Row
from lotto.benchmarks.memory import forget_peak, peak_resident
from lotto.core.errors import WorkerError
from lotto.execution.engine import Engine
from lotto.execution.factory import make
from lotto.execution.queue_folder import QueueFolder
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Outcome, Task
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe

JOBS = 10_000
GOALS = {"processes": 20.0, "ray": 50.0, "queue": 50.0}
"""Milliseconds for each job, with one worker."""
WORKERS = (1, 2, 4)
START_SECONDS = 60.0


@dataclass(frozen=True)
class Instant(Task):
    """A task that gives its number. It travels, is stored and read as any other.

    >>> Instant(recipe, 3).execute()
    {'number': 3}
    """

    recipe: Recipe
    number: int
    label: str = ""
    kind: ClassVar[str] = "number"

    @property
    def size(self) -> int:
        """Nothing is reported on the way."""
        return 1

    def execute(self, on_step: OnStep | None = None) -> Outcome:
        """Its number."""
        return {"number": self.number}


def scheduler(count: int | None = None) -> list[Row]:
    """Milliseconds for each of many jobs that take none, all asked for at once; what asking for them takes of memory.

    The queue's workers and Ray run before the clock starts; processes are started by each run. Ray is measured where
    it is installed.

    Args:
        count: jobs; default 10,000.
    """
    jobs = JOBS if count is None else count
    names = [name for name in GOALS if name != "ray" or find_spec("ray")]
    return [_measured(name, workers, jobs) for name in names for workers in WORKERS]


def _measured(name: str, workers: int, count: int) -> Row:
    recipe = presets.get("mlp-mnist1d", model="mlp-4", steps="10it")
    with tempfile.TemporaryDirectory(prefix="lotto-") as folder, engine_of(name, Store(folder), workers) as engine:
        engine.run([Instant(recipe, -1 - i) for i in range(4 * workers)], progress=False)
        before = forget_peak()
        began = time.perf_counter()
        found = engine.run([Instant(recipe, i) for i in range(count)], progress=False)
        seconds = time.perf_counter() - began
        if [each["number"] for each in found] != list(range(count)):
            raise WorkerError(f"{name} with {workers} workers gave other results than were asked for.")
        return {
            "benchmark": "scheduler", "title": f"{count:,} jobs that compute nothing", "what": name,
            "workers": workers, "milliseconds": 1e3 * seconds / count, "goal": f"≤ {GOALS[name]:g}",
            "mebibytes": peak_resident() - before,
        }  # fmt: skip


@contextlib.contextmanager
def engine_of(name: str, store: Store, workers: int) -> Iterator[Engine]:
    """An engine with so many workers, which end afterwards."""
    if name == "queue":
        with _queue_workers(store, workers):
            yield make(store=store, backend="queue")
        return
    try:
        yield make(workers, store, backend=name)
    finally:
        if name == "ray":
            import ray

            ray.shutdown()


@contextlib.contextmanager
def _queue_workers(store: Store, count: int) -> Iterator[None]:
    paths = [str(Path(lotto.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "lotto", "work", str(store.root), "--idle-timeout", "60s"]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        queue, end = QueueFolder(store.root), time.monotonic() + START_SECONDS
        while len(queue.workers()) < count:
            if time.monotonic() > end or any(process.poll() is not None for process in started):
                raise WorkerError(f"Of {count} workers only {len(queue.workers())} have started.")
            time.sleep(0.05)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def scheduler_table(rows: list[Row]) -> Table:
    """The readable table."""
    table = Table(title=str(rows[0]["title"]), caption="memory: what the asking process takes beyond what it had")
    for column in ("engine", "workers", "ms each", "goal", "memory, MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        cells: list[Any] = [row["what"], row["workers"], f"{row['milliseconds']:.1f}", row["goal"]]
        table.add_row(*map(str, cells), f"{row['mebibytes']:.1f}")
    return table
