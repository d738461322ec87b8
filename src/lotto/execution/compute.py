"""Get what is stored, or compute and store it: the only place where a store and a training meet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lotto.core.errors import StorageError
from lotto.execution.store import Store, WorkItem
from lotto.execution.task import Task
from lotto.training.job import Job, Run, State
from lotto.training.loop import train, train_stack
from lotto.training.network import device_of

OnStep = Callable[[int, float], None]
CHECKPOINT_SECONDS = 30.0


def get_or_compute(
    store: Store,
    item: WorkItem,
    *,
    on_step: OnStep | None = None,
    execution: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> tuple[Any, bool]:
    """Return the run of a job or the outcome of a task, and whether it had to be computed.

    Two processes that want the same: one computes, the other waits and reads. A training that was cut
    off goes on from its last checkpoint. A run that lacks a step the job wants is trained once more from the
    last stored state before it.

    Args:
        store: where runs are stored.
        item: what is wanted.
        on_step: progress, see `training.train`.
        execution: how it is executed, for the manifest.
        checkpoint_seconds: time between checkpoints.

    Raises:
        StorageError: if the store cannot be used.
    """
    if item.key is None:
        return (item.execute(on_step) if isinstance(item, Task) else train(item, on_step=on_step)), True
    if (found := store.lookup(item)) is not None:
        return found, False
    execution = {**(execution or {}), "device": str(device_of(item.recipe))}
    with store.locked(item.key):
        if (found := store.lookup(item, locked=True)) is not None:
            return found, False
        if isinstance(item, Task):
            began = time.perf_counter()
            outcome = item.execute(on_step)
            store.write_outcome(item, outcome, time.perf_counter() - began, execution)
        elif (older := store.run(item)) is not None:
            store.extend_run(item, _missing_states(item, older, on_step))
        else:
            run = train(
                item,
                resume=store.read_checkpoint(item),
                on_step=on_step,
                on_checkpoint=partial(store.write_checkpoint, item),
                checkpoint_seconds=checkpoint_seconds,
            )
            store.write_run(item, run, execution)
        return _read_back(store, item), True


def get_or_compute_stack(
    store: Store,
    jobs: Sequence[Job],
    *,
    on_step: Callable[[int, int, float], None] | None = None,
    execution: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[tuple[Run, bool]]:
    """`get_or_compute` for several jobs of one recipe, which train together; each is stored as if trained by itself.

    Args:
        store: where runs are stored.
        jobs: what is wanted.
        on_step: progress, see `training.train_stack`.
        execution: how they are executed, for the manifests.
        checkpoint_seconds: time between checkpoints.
    """
    if any(job.key is None for job in jobs):
        return [(run, True) for run in train_stack(jobs, on_step=on_step)]
    with contextlib.ExitStack() as locks:
        for key in sorted({job.key for job in jobs if job.key is not None}):  # in one order: no two wait for each other
            locks.enter_context(store.locked(key))
        missing = [i for i, job in enumerate(jobs) if store.lookup(job, locked=True) is None]
        execution = {**(execution or {}), "device": str(device_of(jobs[0].recipe))}
        older = {i: run for i in missing if (run := store.run(jobs[i])) is not None}  # stored, but for a step
        for i, run in older.items():
            emit = None if on_step is None else partial(on_step, i)
            store.extend_run(jobs[i], _missing_states(jobs[i], run, emit))
        if fresh := [i for i in missing if i not in older]:
            runs = train_stack(
                [jobs[i] for i in fresh],
                resume=[store.read_checkpoint(jobs[i]) for i in fresh],
                on_step=None if on_step is None else lambda n, step, loss: on_step(fresh[n], step, loss),
                on_checkpoint=lambda n, point: store.write_checkpoint(jobs[fresh[n]], point),
                checkpoint_seconds=checkpoint_seconds,
            )
            for i, run in zip(fresh, runs, strict=True):
                store.write_run(jobs[i], run, execution)
        return [(_read_back(store, job), i in missing) for i, job in enumerate(jobs)]


def _missing_states(job: Job, older: Run, on_step: OnStep | None) -> Mapping[int, State]:
    """The states that a job wants and its stored run lacks: only the part that gives them is trained."""
    missing = [s for s in job.steps if s not in older.states]
    before = [s for s in older.states if s < missing[0]]
    at = max(before, default=job.from_step)
    start = older.states[at] if before else job.start
    part = replace(job, start=start, from_step=at, to_step=missing[-1], keep=tuple(missing))
    return train(part, on_step=on_step).states


def _read_back(store: Store, item: Any) -> Any:
    if (found := store.lookup(item)) is None:
        raise StorageError(f"What was just written to {store.folder(item.key)} cannot be read back.")
    return found
