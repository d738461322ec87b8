"""The store: it remembers finished trainings and tasks, and trainings on their way.

state-500.safetensors     weights and optimizer at a kept step
history.json              the records of a training
outcome.json              what a task computed
checkpoint.safetensors    a training on its way, gone when it is finished
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import Tensor

from lotto.core import files
from lotto.core.errors import StorageError, UsageError
from lotto.execution.entries import Entries
from lotto.execution.task import Outcome, Task
from lotto.training.job import Job, Run, State
from lotto.training.loop import Checkpoint, train
from lotto.training.network import device_of
from lotto.training.together import train_together

log = logging.getLogger(__name__)

Work = Job | Task
OnStep = Callable[[int, float], None]
T = TypeVar("T")

WEIGHTS, OPTIMIZER = "w/", "o/"
CHECKPOINT = "checkpoint.safetensors"


class Store:
    """What has been computed, on disk.

    Args:
        root: folder of the store; default ``LOTTO_STORE``, or ``lotto/runs`` in the XDG cache.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        if root is None:
            base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
            root = os.environ.get("LOTTO_STORE") or Path(base) / "lotto" / "runs"
        self.root = Path(root).expanduser().absolute()
        self.entries = Entries(self.root)

    def folder(self, key: str) -> Path:
        """The folder of an entry."""
        return self.entries.folder(key)

    def clear(self) -> None:
        """Remove every entry."""
        self.entries.clear()

    @overload
    def lookup(self, work: Job) -> Run | None: ...
    @overload
    def lookup(self, work: Task) -> Outcome | None: ...
    def lookup(self, work: Work) -> Run | Outcome | None:
        """Return what is remembered of ``work``, if it is whole and has the steps that a job asks for."""
        if work.key is None:
            return None
        if isinstance(work, Task):
            return self.entries.read(work.key, lambda folder, _: _outcome(folder))
        run = self._run(work)
        return run if run is not None and set(work.steps) <= set(run.states) else None

    @overload
    def obtain(
        self,
        work: Job,
        *,
        on_step: OnStep | None = ...,
        execution: Mapping[str, Any] | None = ...,
        checkpoint_seconds: float = ...,
    ) -> tuple[Run, bool]: ...
    @overload
    def obtain(
        self,
        work: Task,
        *,
        on_step: OnStep | None = ...,
        execution: Mapping[str, Any] | None = ...,
        checkpoint_seconds: float = ...,
    ) -> tuple[Outcome, bool]: ...
    def obtain(
        self,
        work: Work,
        *,
        on_step: OnStep | None = None,
        execution: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> tuple[Run | Outcome, bool]:
        """Return the run of a job or the outcome of a task, and whether it had to be computed.

        Two processes that want the same: one computes, the other waits and reads. A training that was cut
        off goes on from its last checkpoint. A run that lacks a step the job wants is trained again from the
        last stored state before it.

        Args:
            work: what is wanted.
            on_step: progress, see `training.train`.
            execution: how it is executed, for the manifest.
            checkpoint_seconds: time between checkpoints.

        Raises:
            StorageError: if the store cannot be used.
        """
        if work.key is None:
            return (work.execute(on_step) if isinstance(work, Task) else train(work, on_step=on_step)), True
        if (found := self.lookup(work)) is not None:
            return found, False
        execution = {**(execution or {}), "device": str(device_of(work.recipe))}
        with self.entries.locked(work.key):
            if (found := self.lookup(work)) is not None:
                return found, False
            if isinstance(work, Task):
                self._compute(work, on_step, execution)
            else:
                self._train(work, on_step, execution, checkpoint_seconds)
            if (found := self.lookup(work)) is None:
                raise StorageError(f"What was just written to {self.folder(work.key)} cannot be read back.")
            return found, True

    def obtain_together(
        self,
        jobs: Sequence[Job],
        *,
        on_step: Callable[[int, int, float], None] | None = None,
        execution: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> list[tuple[Run, bool]]:
        """`obtain` for several jobs of one recipe, which train together; each is remembered as if trained alone.

        Args:
            jobs: what is wanted.
            on_step: progress, see `training.train_together`.
            execution: how they are executed, for the manifests.
            checkpoint_seconds: time between checkpoints.
        """
        if any(job.key is None for job in jobs):
            return [(run, True) for run in train_together(jobs, on_step=on_step)]
        with contextlib.ExitStack() as locks:
            for key in sorted({job.key for job in jobs if job.key is not None}):  # in one order: nobody waits in a ring
                locks.enter_context(self.entries.locked(key))
            missing = [i for i, job in enumerate(jobs) if self.lookup(job) is None]
            execution = {**(execution or {}), "device": str(device_of(jobs[0].recipe))}
            extended = [i for i in missing if self._run(jobs[i]) is not None]  # stored, but for a step
            for i in extended:
                tell = None if on_step is None else partial(on_step, i)
                self._train(jobs[i], tell, execution, checkpoint_seconds)
            if fresh := [i for i in missing if i not in extended]:
                runs = train_together(
                    [jobs[i] for i in fresh],
                    resume=[self._read_checkpoint(jobs[i]) for i in fresh],
                    on_step=None if on_step is None else lambda n, step, loss: on_step(fresh[n], step, loss),
                    on_checkpoint=lambda n, point: self._write_checkpoint(jobs[fresh[n]], point),
                    checkpoint_seconds=checkpoint_seconds,
                )
                for i, run in zip(fresh, runs, strict=True):
                    self._write(jobs[i], run, execution)
            found = [self.lookup(job) for job in jobs]
        if any(run is None for run in found):
            raise StorageError(f"What was just written to {self.root} cannot be read back.")
        return [(run, i in missing) for i, run in enumerate(found) if run is not None]

    # --- tasks ----------------------------------------------------------------------------------------

    def _compute(self, task: Task, on_step: OnStep | None, execution: Mapping[str, Any]) -> None:
        assert task.key is not None
        began = time.perf_counter()
        outcome = task.execute(on_step)
        checksums = {"outcome.json": files.write_json(self.folder(task.key) / "outcome.json", outcome)}
        seconds = round(time.perf_counter() - began, 3)
        self.entries.finish(
            task.key, task.description, checksums, label=task.label, seconds=seconds, execution=dict(execution)
        )

    # --- trainings ------------------------------------------------------------------------------------

    def _train(
        self,
        job: Job,
        on_step: Callable[[int, float], None] | None,
        execution: Mapping[str, Any],
        checkpoint_seconds: float,
    ) -> None:
        """Train a job that is not stored, or only the part that gives the steps its stored run lacks."""
        older = self._run(job)
        if older is not None:
            missing = [s for s in job.steps if s not in older.states]
            before = [s for s in older.states if s < missing[0]]
            at = max(before, default=job.from_step)
            start = older.states[at] if before else job.start
            part = replace(job, start=start, from_step=at, to_step=missing[-1], keep=tuple(missing))
            found = train(part, on_step=on_step)
            states = {**older.states, **found.states}
            self._write(job, replace(older, states=states), execution)
            return
        run = train(
            job,
            resume=self._read_checkpoint(job),
            on_step=on_step,
            on_checkpoint=lambda point: self._write_checkpoint(job, point),
            checkpoint_seconds=checkpoint_seconds,
        )
        self._write(job, run, execution)

    def _run(self, job: Job) -> Run | None:
        assert job.key is not None

        def parse(folder: Path, manifest: dict[str, Any]) -> Run:
            history = [
                {k: math.nan if v is None else v for k, v in record.items()}
                for record in json.loads((folder / "history.json").read_text())
            ]
            states = StoredStates(folder, [int(s) for s in manifest["states"]])
            return Run((job.from_step, job.end), history, states, job.key, float(manifest["seconds"]))

        return self.entries.read(job.key, parse)

    def _write(self, job: Job, run: Run, execution: Mapping[str, Any]) -> None:
        assert job.key is not None
        folder = self.folder(job.key)
        # JSON has no NaN; None stands for it.
        history = [{k: None if math.isnan(v) else v for k, v in r.items()} for r in run.history]
        checksums = {"history.json": files.write_json(folder / "history.json", history)}
        for step, state in run.states.items():
            # The optimizer's state at the end is of no use to anyone: no training goes on from there.
            state = state if step != job.end else state.without_optimizer
            name = state_name(step)
            checksums[name] = files.save_tensors(folder / name, pack(state), {"format": "lotto.state"})
        execution = {**execution, "arithmetic": run.arithmetic}
        self.entries.finish(
            job.key, job.description, checksums,
            label=job.label, states=sorted(run.states), seconds=round(run.seconds, 3), execution=execution,
        )  # fmt: skip
        (folder / CHECKPOINT).unlink(missing_ok=True)

    # --- checkpoints ----------------------------------------------------------------------------------

    def _write_checkpoint(self, job: Job, point: Checkpoint) -> None:
        assert job.key is not None
        tensors = {f"now/{n}": t for n, t in pack(point.state).items()}
        for step, state in point.kept.items():
            tensors |= {f"{step}/{n}": t for n, t in pack(state).items()}
        progress = {
            "step": point.step,
            "kept": sorted(point.kept),
            "history": point.history,
            "loss_sum": point.loss_sum,
            "loss_count": point.loss_count,
            "seconds": point.seconds,
        }
        metadata = {"format": "lotto.checkpoint", "progress": json.dumps(progress)}
        try:
            files.save_tensors(self.folder(job.key) / CHECKPOINT, tensors, metadata)
        except StorageError as error:  # a run need not die for want of its checkpoint
            log.warning("No checkpoint could be written: %s", error)

    def _read_checkpoint(self, job: Job) -> Checkpoint | None:
        assert job.key is not None
        path = self.folder(job.key) / CHECKPOINT
        if not path.exists():
            return None
        try:
            tensors, metadata = files.load_tensors(path, "lotto.checkpoint")
            progress = json.loads(metadata["progress"])
            kept = {s: unpack(tensors, f"{s}/") for s in progress["kept"]}
            # A step that is wanted now and has passed without being kept needs the training from the start.
            if any(s <= progress["step"] and s not in kept for s in job.steps):
                return None
            return Checkpoint(
                progress["step"],
                unpack(tensors, "now/"),
                kept,
                progress["history"],
                progress["loss_sum"],
                progress["loss_count"],
                progress["seconds"],
            )
        except (UsageError, KeyError, ValueError) as error:
            log.warning("A checkpoint is damaged (%s); the run starts again.", error)
            path.unlink(missing_ok=True)
            return None


def _outcome(folder: Path) -> Outcome:
    outcome: Outcome = json.loads((folder / "outcome.json").read_text())
    return outcome


class StoredStates(Mapping[int, State]):
    """The states of a stored run, read from disk when asked for."""

    def __init__(self, folder: Path, steps: list[int]) -> None:
        self.folder, self.steps = folder, steps

    def __getitem__(self, step: int) -> State:
        if step not in self.steps:
            raise KeyError(step)
        tensors, _ = files.load_tensors(self.folder / state_name(step), "lotto.state")
        return unpack(tensors)

    def __contains__(self, step: object) -> bool:
        return step in self.steps

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def state_name(step: int) -> str:
    """File name of the state at a step."""
    return f"state-{step}.safetensors"


def pack(state: State) -> dict[str, Tensor]:
    """One dict of tensors for weights and optimizer."""
    return {WEIGHTS + n: t for n, t in state.weights.items()} | {OPTIMIZER + n: t for n, t in state.optimizer.items()}


def unpack(tensors: Mapping[str, Tensor], prefix: str = "") -> State:
    """The inverse of `pack`."""

    def part(kind: str) -> dict[str, Tensor]:
        head = prefix + kind
        return {n.removeprefix(head): t for n, t in tensors.items() if n.startswith(head)}

    return State(part(WEIGHTS), part(OPTIMIZER))
