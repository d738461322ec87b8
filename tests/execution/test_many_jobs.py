"""Hundreds of jobs that take no time: each is done once, whichever engine has them, and nothing grows with their number."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import interpreter
from conftest import small_recipe
from lotto import Store
from lotto.execution.engine import Engine, JobFinished
from lotto.execution.factory import make
from lotto.execution.pilot import Pilot
from lotto.execution.task import Outcome, Task
from lotto.recipe.recipe import Recipe

COUNT = 200


@dataclass(frozen=True)
class Noted(Task):
    """Writes its number down when it is computed, and gives it."""

    recipe: Recipe
    number: int
    journal: str
    label: str = ""
    kind: ClassVar[str] = "noted"
    size: ClassVar[int] = 1

    def execute(self, on_step: object = None) -> Outcome:
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, f"{self.number}\n".encode())
        os.close(descriptor)
        return {"number": self.number}


@contextmanager
def engine_with(name: str, store: Store, workers: int) -> Iterator[Engine]:
    if name != "queue":
        yield make(workers, store, backend=name)
        return
    threads = [threading.Thread(target=Pilot(store.root, idle=1.0).work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    yield make(store=store, backend="queue")
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("name", "workers"),
    [("serial", 1), ("processes", 2), ("queue", 2), pytest.param("ray", 2, marks=pytest.mark.extras)],
)
def test_each_of_many_jobs_is_done_exactly_once(store, tmp_path, name, workers):
    if name == "ray":
        pytest.importorskip("ray")
    journal = tmp_path / "journal"
    jobs = [Noted(small_recipe(), number, str(journal)) for number in range(COUNT)]
    events: list = []
    with engine_with(name, store, workers) as engine:
        found = engine.run([*jobs, *reversed(jobs)], events.append)  # asked for twice
    assert [each["number"] for each in found] == [*range(COUNT), *reversed(range(COUNT))]
    assert Counter(map(int, journal.read_text().split())) == Counter(range(COUNT))
    assert sum(event.trained for event in events if isinstance(event, JobFinished)) == COUNT
    left = [path.name for folder in ("locks", "queue") for path in (store.root / folder).rglob("*") if path.is_file()]
    assert [name for name in left if not name.startswith("data-")] == []


def test_what_a_run_holds_does_not_grow_with_the_jobs_that_are_done(store, tmp_path):
    script = f"""
import gc, tracemalloc
from pathlib import Path
from conftest import small_recipe
from lotto import Store
from lotto.execution.serial import Serial
from test_many_jobs import COUNT, Noted

def one_after_another():
    for number in range(COUNT + 100):
        if number in (100, COUNT + 99):
            gc.collect()
            print(tracemalloc.get_traced_memory()[0])
        yield Noted(small_recipe(), number, {str(tmp_path / "journal")!r})

tracemalloc.start()
Serial(Store({str(store.root)!r})).run_procedures([one_after_another()], progress=False)
"""
    # In a process of its own: packages that other tests load have threads, in which memory comes and goes.
    done = interpreter.run(script, environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split())
    assert last - first < 400 * COUNT, "bytes; the data of a job alone take 20,000"


def test_of_many_that_wait_only_those_that_report_are_read(store, monkeypatch):
    """On a network each file that is asked for is a journey."""
    asked = Counter()
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        asked[path.name.partition("-")[0]] += 1
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with engine_with("queue", store, 1) as engine:
        engine.run([Noted(small_recipe(), number, str(store.root / "journal")) for number in range(20)])
    assert asked["progress"] <= 20
