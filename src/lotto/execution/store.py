"""The store: finished trainings and tasks on disk, and trainings on their way. It only reads and writes.

state-500.safetensors     weights and optimizer at a kept step
history.json              the records of a training, and which test examples it gets wrong
outcome.json              what a task computed
checkpoint.safetensors    a training on its way, gone when it is finished
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import StorageError, UsageError
from lotto.execution.arithmetic import CROSSOVERS, ENTRY, arithmetic_of, crossovers_from, say_if_other
from lotto.execution.entries import CHECKPOINT, StoreFolder, state_name
from lotto.execution.task import Outcome, Task
from lotto.training.checkpoint import Checkpoint
from lotto.training.job import Job, Run, State
from lotto.training.mistakes import Mistakes

log = logging.getLogger(__name__)

WorkItem = Job | Task
Result = Run | Outcome
"""The run of a job, or the outcome of a task."""

WEIGHTS, OPTIMIZER = "w/", "o/"
MISTAKES = "test_mistakes"
"""Entry of the last record: which test examples are wrong."""


@checked
class Store(StoreFolder):
    """What has been computed, on disk.

    Args:
        root: folder of the store; default ``LOTTO_STORE``, or ``lotto/runs`` in the XDG cache.
        warn: called once when something cannot be kept; default the log.

    >>> store = Store("my-runs")
    >>> store.lookup(lotto.Job(recipe)) is None
    True
    >>> run = lotto.train(recipe, store=store)
    >>> store.lookup(lotto.Job(recipe)).test_error == run.test_error
    True
    """

    def __init__(self, root: str | Path | None = None, warn: Callable[[str], None] | None = None) -> None:
        super().__init__(root)
        self._begun = self._warned = False
        self._warn = warn or _log_not_kept

    def begin(self) -> None:
        """What is done once before a store is used: what killed processes have left goes; former versions are named."""
        if not self._begun:
            self._begun = True
            self.entries.sweep()
            self.entries.say_former()

    def warn_not_kept(self, problem: str) -> None:
        """Say once that what is computed cannot be kept here."""
        if not self._warned:
            self._warned = True
            self._warn(problem)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def folder(self, key: str) -> Path:
        """The folder of an entry."""
        return self.entries.folder(key)

    def clear(self) -> None:
        """Remove every entry."""
        self.entries.clear()

    @overload
    def lookup(self, item: Job, *, locked: bool = ...) -> Run | None: ...
    @overload
    def lookup(self, item: Task, *, locked: bool = ...) -> Outcome | None: ...
    def lookup(self, item: WorkItem, *, locked: bool = False) -> Result | None:
        """Return what is stored of ``item``, if it is whole and has the steps that a job asks for.

        With ``locked`` the caller holds the lock, and a damaged entry is moved out of the way.
        """
        if item.key is None:
            return None
        if isinstance(item, Task):

            def parse(folder: Path, manifest: dict[str, Any]) -> Outcome:
                _say_if_other(item, manifest)
                return _outcome(folder)

            return self.entries.read(item.key, parse, locked=locked)
        run = self.run(item, locked=locked)
        return run if run is not None and (run.diverged or set(item.steps) <= set(run.states)) else None

    def locked(self, key: str) -> AbstractContextManager[None]:
        """Hold the lock of an entry; waits for another process that makes it."""
        return self.entries.locked(key)

    def prepare(self, key: str) -> None:
        """Make the folder of an entry whose lock is held, before anything is computed for it."""
        self.entries.prepare(key)

    def write_outcome(self, task: Task, outcome: Outcome, seconds: float, execution: Mapping[str, Any]) -> None:
        """Write what a task computed."""
        assert task.key is not None
        checksums = {"outcome.json": files.write_json(self.folder(task.key) / "outcome.json", outcome)}
        self.entries.finish(
            task.key, task.description, checksums,
            label=task.label, recipe=task.recipe.describe(), seconds=round(seconds, 3), execution=execution,
        )  # fmt: skip

    def run(self, job: Job, *, locked: bool = False) -> Run | None:
        """What is stored of a job, whichever steps it has."""
        assert job.key is not None

        key = job.key

        def parse(folder: Path, manifest: dict[str, Any]) -> Run:
            records = json.loads((folder / "history.json").read_text())
            mistakes = records[-1].pop(MISTAKES, None) if records else None
            history = [{k: math.nan if v is None else v for k, v in record.items()} for record in records]
            _say_if_other(job, manifest)
            states = StoredStates(folder, key, [int(s) for s in manifest["states"]])
            diverged = str(manifest.get("diverged", ""))
            execution = manifest.get("execution", {})
            return Run(
                (job.from_step, job.end), history, states, key, float(manifest["seconds"]), diverged=diverged,
                arithmetic=str(execution.get("arithmetic", "")), crossovers=crossovers_from(execution.get(CROSSOVERS)),
                mistakes=None if mistakes is None else Mistakes.from_plain(mistakes),
            )  # fmt: skip

        return self.entries.read(key, parse, locked=locked)

    def write_run(self, job: Job, run: Run, execution: Mapping[str, Any]) -> None:
        """Write a finished training; its checkpoint goes. The caller holds the lock."""
        assert job.key is not None
        folder = self.folder(job.key)
        # JSON has no NaN; None stands for it.
        history: list[dict[str, Any]] = [{k: None if math.isnan(v) else v for k, v in r.items()} for r in run.history]
        if run.mistakes is not None:
            history[-1][MISTAKES] = run.mistakes.plain()
        checksums = {"history.json": files.write_json(folder / "history.json", history)}
        checksums |= self._write_states(job, run.states)
        chosen = {} if run.crossovers is None else {CROSSOVERS: run.crossovers}
        execution = {**execution, "arithmetic": run.arithmetic, **chosen}
        self.entries.finish(
            job.key, job.description, checksums,
            label=job.label, recipe=job.recipe.describe(), states=sorted(run.states), seconds=round(run.seconds, 3),
            execution=execution, **({"diverged": run.diverged} if run.diverged else {}),
        )  # fmt: skip
        with contextlib.suppress(OSError):  # it is read no more
            (folder / CHECKPOINT).unlink(missing_ok=True)

    def extend_run(self, job: Job, states: Mapping[int, State]) -> None:
        """Add states to a stored run, beside what is there. The caller holds the lock."""
        assert job.key is not None
        manifest = self.entries.read(job.key, lambda _, manifest: manifest)
        if manifest is None:
            raise StorageError(f"The stored {job.key} has been removed from {self.root} meanwhile.")
        checksums = {**manifest["checksums"], **self._write_states(job, states)}
        kept = sorted({*map(int, manifest["states"]), *states})
        more = {name: manifest[name] for name in ("label", "recipe", "seconds", "execution") if name in manifest}
        self.entries.finish(job.key, job.description, checksums, states=kept, **more)

    def _write_states(self, job: Job, states: Mapping[int, State]) -> dict[str, str]:
        """Write states of steps that no manifest names; returns the checksums by file name."""
        assert job.key is not None
        checksums = {}
        for step, state in states.items():
            # The optimizer's state at the end is of no use to anyone: no training goes on from there.
            state = state if step != job.end else state.at_end
            path = self.folder(job.key) / state_name(step)
            about = {"format": "lotto.state", "key": job.key, "step": str(step)}
            checksums[path.name] = files.save_tensors(path, pack(state), about)
        return checksums

    def write_checkpoint(self, job: Job, point: Checkpoint) -> None:
        """Write where a training stands; what cannot be written is warned of, once more each time."""
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
            CROSSOVERS: point.crossovers,
        }
        metadata = {
            "format": "lotto.checkpoint",
            "key": job.key,
            "progress": json.dumps(progress),
            ENTRY: json.dumps(arithmetic_of(job.recipe, together=True)),
        }
        try:
            files.save_tensors(self.folder(job.key) / CHECKPOINT, tensors, metadata)
        except StorageError as error:  # a run need not die for want of its checkpoint
            log.warning("No checkpoint could be written: %s", error)

    def read_checkpoint(self, job: Job) -> Checkpoint | None:
        """Where a training that was cut off stood; None if there is nothing that it can go on from."""
        assert job.key is not None
        path = self.folder(job.key) / CHECKPOINT
        if not os.path.lexists(path):
            return None
        try:
            tensors, metadata = files.load_tensors(path, "lotto.checkpoint")
            if metadata.get("key") != job.key:
                raise ValueError("it is that of another job")
            progress = json.loads(metadata["progress"])
            kept = {s: unpack(tensors, f"{s}/") for s in progress["kept"]}
            # A step that is wanted now and has passed without being kept needs the training from the start.
            if any(s <= progress["step"] and s not in kept for s in job.steps):
                return None
            say_if_other(
                job.recipe,
                json.loads(metadata.get(ENTRY, "null")),
                "A training goes on from a checkpoint of other arithmetic, so that it need not end in the same bits",
                together=True,
            )
            return Checkpoint(
                progress["step"],
                unpack(tensors, "now/"),
                kept,
                progress["history"],
                progress["loss_sum"],
                progress["loss_count"],
                progress["seconds"],
                crossovers_from(progress.get(CROSSOVERS)),
            )
        except (UsageError, KeyError, ValueError) as error:
            log.warning("A checkpoint is damaged (%s); the run starts again.", error)
            with contextlib.suppress(OSError):  # the next one takes its place
                path.unlink(missing_ok=True)
            return None


def _log_not_kept(problem: str) -> None:
    log.warning("%s What is computed now is handed out, and not remembered.", problem)


def _say_if_other(item: WorkItem, manifest: Mapping[str, Any]) -> None:
    say_if_other(
        item.recipe,
        manifest.get("execution", {}).get(ENTRY),
        "Remembered results are used whose last bits may not be those that this process would compute",
        together=isinstance(item, Job),
    )


def _outcome(folder: Path) -> Outcome:
    outcome: Outcome = json.loads((folder / "outcome.json").read_text())
    return outcome


class StoredStates(Mapping[int, State]):
    """The states of a stored run, read from disk when asked for."""

    def __init__(self, folder: Path, key: str, steps: list[int]) -> None:
        self.folder, self.key, self.steps = folder, key, steps

    def __getitem__(self, step: int) -> State:
        if step not in self.steps:
            raise KeyError(step)
        path = self.folder / state_name(step)
        try:
            tensors, metadata = files.load_tensors(path, "lotto.state")
        except UsageError as error:  # it was whole when the manifest was read
            raise StorageError(str(error)) from error
        # The first edition's files do not say.
        if metadata.get("key", self.key) != self.key:
            raise StorageError(f"{path} is a state of another job.")
        if metadata.get("step", str(step)) != str(step):
            raise StorageError(f"{path} is the state of step {metadata['step']}.")
        return unpack(tensors)

    def __contains__(self, step: object) -> bool:
        return step in self.steps

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def pack(state: State) -> dict[str, Tensor]:
    """One dict of tensors for weights and optimizer."""
    return {WEIGHTS + n: t for n, t in state.weights.items()} | {OPTIMIZER + n: t for n, t in state.optimizer.items()}


def unpack(tensors: Mapping[str, Tensor], prefix: str = "") -> State:
    """The inverse of `pack`."""

    def part(kind: str) -> dict[str, Tensor]:
        head = prefix + kind
        return {n.removeprefix(head): t for n, t in tensors.items() if n.startswith(head)}

    return State(part(WEIGHTS), part(OPTIMIZER))
