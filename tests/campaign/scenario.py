"""What the campaign's processes do: small trainings, extensions of finished ones, paths; and what is right."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import torch

from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.core import files
from lotto.core.errors import LottoError
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobFinished
from lotto.execution.processes import Processes
from lotto.landscape import PathTask
from lotto.training.job import Run
from lotto.training.loop import train

LAST = 12
RECIPE = small_recipe(steps=f"{LAST}it")
ROWS = 200
"""Lines of the table that the processes write to one folder."""


@cache
def reference(seed: int) -> Run:
    """A training with the states of all its steps, in memory."""
    return train(Job(RECIPE, seed, seed, keep=tuple(range(LAST))))


@cache
def path(seed: int) -> tuple[PathTask, dict[str, object]]:
    """A path and what it gives."""
    task = PathTask(RECIPE, RECIPE.initial(seed), RECIPE.initial(seed + 1), 3)
    return task, task.execute()


def is_right(run: Run, job: Job) -> bool:
    """Whether a run has the bits of the reference at every step that the job asks for, and its records."""
    expected = reference(job.init_seed)
    same = all(same_tensors(run.at(step), expected.at(step)) for step in job.steps)
    return same and list(map(dict, run.history)) == list(map(dict, expected.history))


def any_job(draw: random.Random, seeds: range) -> Job:
    """A training that keeps some steps: the first of a seed is made, the others extend it."""
    seed = draw.choice(seeds)
    return Job(RECIPE, seed, seed, keep=tuple(draw.sample(range(LAST), draw.randrange(3))))


def table(number: int) -> str:
    """What a process writes to the folder of results: every line says which process it is."""
    return f"{number}\n" * ROWS


class Journal:
    """What a process has finished, line by line, whole even if it is killed in between."""

    def __init__(self, file: Path) -> None:
        self.descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, *words: object) -> None:
        os.write(self.descriptor, (" ".join(map(str, words)) + "\n").encode())


def note(journal: Journal, job: Job, run: Run) -> None:
    """Write down that a run is finished, or what is wrong with it."""
    kept = "finished" if run.key is not None else "not-kept"
    journal.write(kept if is_right(run, job) else "wrong", job.init_seed, ",".join(map(str, job.steps)))


def serial(store: Store, out: Path, journal: Journal, seeds: range, number: int, draw: random.Random) -> None:
    """Trainings, extensions, paths and results in this process, until it is killed."""
    while True:
        job = any_job(draw, seeds)
        note(journal, job, get_or_compute(store, job, checkpoint_seconds=draw.choice([0.0, 30.0]))[0])
        if draw.random() < 0.1:
            task, expected = path(seeds[0])
            journal.write("path" if get_or_compute(store, task)[0] == expected else "wrong", "path")
        if draw.random() < 0.3:
            files.write_text(out / "table.csv", table(number))


def over_workers(store: Store, out: Path, journal: Journal, seeds: range, number: int, draw: random.Random) -> None:
    """The same over two worker processes; comes to an end."""
    jobs = [any_job(draw, seeds) for _ in range(40)]

    def emit(event: object) -> None:
        if isinstance(event, JobFinished):
            note(journal, event.job, event.run)  # type: ignore[arg-type]

    Processes(store, 2).run(jobs, emit)
    files.write_text(out / "table.csv", table(number))


def child(what: object, root: Path, out: Path, seeds: range, number: int, seed: int) -> int:
    """Start a process of its own group that does something; its journal and what it says stand beside the store."""
    journal = root.with_name(f"{root.name}.journal")
    if pid := os.fork():
        return pid
    code = 0
    try:
        os.setsid()
        said = os.open(root.with_name(f"{root.name}.said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(said, stream)
        torch.set_num_threads(1)
        what(Store(root), out, Journal(journal), seeds, number, random.Random(seed))  # type: ignore[operator]
    except LottoError as error:
        Journal(journal).write("refused", str(error).replace("\n", " "))
        code = 2
    except BaseException as error:
        Journal(journal).write("raw", repr(error).replace("\n", " "))
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        code = 3
    finally:
        os._exit(code)


def journal_of(root: Path) -> Iterator[list[str]]:
    """The lines that the processes on a store have written."""
    file = root.with_name(f"{root.name}.journal")
    for line in file.read_text().splitlines() if file.exists() else []:
        yield line.split(" ", 2)


def count_finished(store: Store, finished: Mapping[int, set[int]]) -> tuple[int, int, int]:
    """Look for everything that was finished: how many there are, how many are lost, how many have wrong bits."""
    lost = wrong = 0
    for seed, steps in finished.items():
        job = Job(RECIPE, seed, seed, keep=tuple(steps))
        run = store.lookup(job)
        lost += run is None
        wrong += run is not None and not is_right(run, job)
    return len(finished), lost, wrong
