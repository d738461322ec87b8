"""Get what is stored, or compute and store it: the only place where a store and a training meet."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from lotto.core.errors import DivergedError, NotCacheableError, StorageError, UsageError
from lotto.core.files import is_unwritable
from lotto.core.fingerprint import digest
from lotto.core.rng import private_rng, torch_seed
from lotto.execution.arithmetic import ENTRY, arithmetic_of
from lotto.execution.recovery import LastingStates
from lotto.execution.store import Store, WorkItem
from lotto.execution.task import Task
from lotto.training.checkpoint import Checkpoint
from lotto.training.job import Job, Run, State
from lotto.training.loop import diverged_run, train, train_stack
from lotto.training.network import device_of

log = logging.getLogger(__name__)

OnStep = Callable[[int, float], None]
Trainer = Callable[..., Run]
CHECKPOINT_SECONDS = 30.0


def get_or_compute(
    store: Store,
    item: WorkItem,
    *,
    on_step: OnStep | None = None,
    execution: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    trainer: Trainer | None = None,
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
        trainer: what trains; by default `training.train`.

    Raises:
        StorageError: if the store cannot be used.
    """
    trainer = trainer or train
    if item.key is None:
        return (_outcome(item, on_step) if isinstance(item, Task) else _trained(item, trainer, on_step=on_step)), True
    if (found := lookup(store, item)) is not None:
        return found, False
    check_unchanged(item)
    execution = _recorded(execution, item)
    with _locked(store, [item.key]):
        if (found := lookup(store, item, locked=True)) is not None:
            return found, False
        _prepare(store, item.key)
        if isinstance(item, Task):
            began = time.perf_counter()
            outcome = _outcome(item, on_step)
            write = partial(store.write_outcome, item, outcome, time.perf_counter() - began, execution)
            return _kept(store, item, outcome, write), True
        if (run := _extended(store, item, on_step, trainer)) is not None:
            return run, True
        run = _trained(
            item,
            trainer,
            resume=store.read_checkpoint(item),
            on_step=on_step,
            on_checkpoint=partial(store.write_checkpoint, item),
            checkpoint_seconds=checkpoint_seconds,
        )
        return _kept(store, item, run, partial(store.write_run, item, run, execution)), True


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
        return [(run, True) for run in _trained_together(jobs, on_step=on_step)]
    check_unchanged(jobs[0])
    with _locked(store, [job.key for job in jobs if job.key is not None]):
        found = [lookup(store, job, locked=True) for job in jobs]
        missing = [i for i, run in enumerate(found) if run is None]
        for i in missing:
            _prepare(store, str(jobs[i].key))
            found[i] = _extended(store, jobs[i], None if on_step is None else partial(on_step, i), train)
        execution = _recorded(execution, jobs[0])
        if fresh := [i for i in missing if found[i] is None]:
            runs = _trained_together(
                [jobs[i] for i in fresh],
                resume=[store.read_checkpoint(jobs[i]) for i in fresh],
                on_step=None if on_step is None else lambda n, step, loss: on_step(fresh[n], step, loss),
                on_checkpoint=lambda n, point: store.write_checkpoint(jobs[fresh[n]], point),
                checkpoint_seconds=checkpoint_seconds,
            )
            for i, run in zip(fresh, runs, strict=True):
                found[i] = _kept(store, jobs[i], run, partial(store.write_run, jobs[i], run, execution))
        return [(run, i in missing) for i, run in enumerate(found)]


def _trained(job: Job, trainer: Trainer, **how: Any) -> Run:
    """A training, also one that diverges: that is an outcome like others, and no end of those beside it."""
    try:
        return trainer(job, **how)
    except DivergedError as error:
        return diverged_run(job, error)


def _trained_together(jobs: Sequence[Job], *, resume: Any = None, on_step: Any = None, **how: Any) -> list[Run]:
    """Trainings in a stack; if one of them diverges, each by itself."""
    try:
        return train_stack(jobs, resume=resume, on_step=on_step, **how)
    except DivergedError:
        each = [None if on_step is None else partial(on_step, i) for i in range(len(jobs))]
        return [_trained(job, train, on_step=one) for job, one in zip(jobs, each, strict=True)]


def lookup(store: Store, item: WorkItem, *, locked: bool = False) -> Any:
    """What is stored of ``item``, see `Store.lookup`; a state that cannot be read later on is computed again."""
    found = store.lookup(item, locked=locked)
    return _lasting(store, item, found) if isinstance(found, Run) else found


def _lasting(store: Store, job: Any, run: Run) -> Run:
    return replace(run, states=LastingStates(run.states, job, partial(_recomputed_states, store)))


def _recomputed_states(store: Store, job: Job) -> Mapping[int, State]:
    states: Mapping[int, State] = get_or_compute(store, job)[0].states
    return states


@contextlib.contextmanager
def _locked(store: Store, keys: Sequence[str]) -> Iterator[None]:
    """Hold locks. Where nothing can be written there are none, and what is computed is only handed out."""
    with contextlib.ExitStack() as locks:
        with _unless_unwritable(store):
            for key in sorted(set(keys)):  # in one order: no two wait for each other
                locks.enter_context(store.locked(key))
        yield


def _prepare(store: Store, key: str) -> None:
    with _unless_unwritable(store):
        store.prepare(key)


@contextlib.contextmanager
def _unless_unwritable(store: Store) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        if not is_unwritable(error):
            raise
        store.warn_not_kept(str(error))


def _kept(store: Store, item: Any, computed: Any, write: Callable[[], None]) -> Any:
    """Write what was computed and read it back; what the store does not take is handed out as it is."""
    try:
        write()
        if (found := lookup(store, item)) is not None:
            return found
        problem = f"What was just written to {store.folder(item.key)} cannot be read back."
    except StorageError as error:
        problem = str(error)
    store.warn_not_kept(problem)
    return computed


def _extended(store: Store, job: Job, on_step: OnStep | None, trainer: Trainer) -> Run | None:
    """The stored run with the states that it lacks; None if nothing is stored that they can be computed from."""
    if (older := store.run(job)) is None:
        return None
    try:
        states = _missing_states(job, older, on_step, trainer)
    except StorageError as error:
        log.warning("%s The run is computed again.", error)
        return None
    more = _lasting(store, job, replace(older, states=ChainMap(dict(states), cast(Any, older.states)), key=None))
    run: Run = _kept(store, job, more, partial(store.extend_run, job, states))
    return run


def _recorded(execution: Mapping[str, Any] | None, item: WorkItem) -> dict[str, Any]:
    """How it is executed, for the manifest: by which engine, where, with what arithmetic."""
    together = isinstance(item, Job)
    device = str(device_of(item.recipe))
    return {**(execution or {}), "device": device, ENTRY: arithmetic_of(item.recipe, together=together)}


def check_unchanged(item: WorkItem) -> None:
    """Raise ``UsageError`` if the code or the values that a key was made from have become others in this process."""
    try:
        now = item.recipe.fingerprint() if isinstance(item, Job) else item.description
    except NotCacheableError as error:
        now = {str(error): None}
    before = item.description["recipe"] if isinstance(item, Job) else None
    if digest(now) != (item.key if before is None else digest(before)):
        which = [n for n in sorted({*now, *before}) if now.get(n) != before.get(n)] if before else ["code or values"]
        raise UsageError(
            f"What {item.recipe.name} is made of ({', '.join(which)}) has changed since it was asked for, or is "
            "another in this worker process; ask once more, with jobs=1 if a value was set while the program ran."
        )


@private_rng(torch_seed(0, "task"))
def _outcome(task: Task, on_step: OnStep | None) -> Any:
    """A task's outcome; what a user's network draws in it is the same every time."""
    return task.execute(on_step)


def _missing_states(job: Job, older: Run, on_step: OnStep | None, trainer: Trainer) -> Mapping[int, State]:
    """The states that a job wants and its stored run lacks: only the part that gives them is trained."""
    if not (missing := [s for s in job.steps if s not in older.states]):
        return {}
    # A loop of the user's own begins with a new optimizer wherever it begins: only from its start it is the same one.
    before = [s for s in older.states if s < missing[0]] if job.recipe.loop is None else []
    at = max(before, default=job.from_step)
    start = older.states[at] if before else job.start
    part = replace(job, start=start, from_step=at, to_step=missing[-1], keep=tuple(missing))
    point = Checkpoint(at, part.initial_state(), crossovers=older.crossovers)
    return trainer(part, resume=point, on_step=on_step).states
