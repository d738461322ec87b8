"""The store: finished runs on disk by the hash of their job; whole, verified, locked.

    ROOT/ab/abcdef.../state-500.safetensors    weights and optimizer at a kept step
                      history.json             the records of the run
                      manifest.json            written last: checksums, job, versions, machine, duration
                      checkpoint.safetensors   a run on its way, gone when it is finished
    ROOT/ab/abcdef....lock                     held by the process that trains the job

An entry without a manifest is not finished. An entry whose checksums are wrong, or whose job is not the one
its key stands for, is reported, moved out of the way and computed again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from lotto import files, identity
from lotto.errors import StorageError, UsageError
from lotto.job import Job, Run, State
from lotto.training import Checkpoint, train

log = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER = "w/", "o/"
CHECKPOINT = "checkpoint.safetensors"


class Store:
    """Runs on disk.

    Args:
        root: folder of the store; default ``LOTTO_STORE``, or ``lotto/runs`` in the XDG cache.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        if root is None:
            base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
            root = os.environ.get("LOTTO_STORE") or Path(base) / "lotto" / "runs"
        self.root = Path(root).expanduser().absolute()

    def folder(self, key: str) -> Path:
        """The folder of an entry."""
        return self.root / key[:2] / key

    def lookup(self, job: Job) -> Run | None:
        """Return the finished run of ``job`` if it is here, whole, and has the steps it asks for."""
        if job.key is None:
            return None
        run = self._read(job)
        return run if run is not None and set(job.steps) <= set(run.states) else None

    def obtain(
        self,
        job: Job,
        *,
        on_step: Callable[[int, float], None] | None = None,
        execution: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> tuple[Run, bool]:
        """Return the run of ``job`` and whether it had to be trained.

        Two processes that want the same job: one trains, the other waits and reads. A training that was cut
        off goes on from its last checkpoint. A run that lacks a step the job wants is trained again from the
        last stored state before it.

        Args:
            job: what is wanted.
            on_step: progress, see `training.train`.
            execution: how the run is executed, for the manifest.
            checkpoint_seconds: time between checkpoints.

        Raises:
            StorageError: if the store cannot be written.
        """
        if job.key is None:
            return train(job, on_step=on_step), True
        if (run := self.lookup(job)) is not None:
            return run, False
        with self._locked(job.key):
            if (run := self.lookup(job)) is not None:
                return run, False
            self._train(job, on_step, execution or {}, checkpoint_seconds)
            finished = self._read(job)
            if finished is None:
                raise StorageError(f"The run just written to {self.folder(job.key)} cannot be read back.")
            return finished, True

    def _train(
        self,
        job: Job,
        on_step: Callable[[int, float], None] | None,
        execution: Mapping[str, Any],
        checkpoint_seconds: float,
    ) -> None:
        """Train a job that is not stored, or only the part that gives the steps its stored run lacks."""
        older = self._read(job)
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

    # --- entries --------------------------------------------------------------------------------------

    def _read(self, job: Job) -> Run | None:
        assert job.key is not None
        folder = self.folder(job.key)
        manifest_path = folder / "manifest.json"
        if not manifest_path.exists():
            return None
        try:
            manifest = json.loads(manifest_path.read_text())
            if identity.digest(manifest["job"]) != job.key:
                raise ValueError("its manifest describes another job")
            for name, expected in manifest["checksums"].items():
                if files.checksum(folder / name) != expected:
                    raise ValueError(f"the checksum of {name} is wrong")
            history = [
                {k: math.nan if v is None else v for k, v in record.items()}
                for record in json.loads((folder / "history.json").read_text())
            ]
            steps = [int(s) for s in manifest["states"]]
            seconds = float(manifest["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
            log.warning(
                "The stored run %s is damaged (%s); it is moved to %s and trained again.",
                folder.name,
                error,
                aside.name,
            )
            with contextlib.suppress(OSError):
                folder.rename(aside)
            return None
        return Run((job.from_step, job.end), history, StoredStates(folder, steps), job.key, seconds)

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
        files.write_json(
            folder / "manifest.json",
            {
                "job": job.description,
                "label": job.label,
                "states": sorted(run.states),
                "checksums": checksums,
                "seconds": round(run.seconds, 3),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "execution": dict(execution),
                "versions": versions(),
            },
        )
        (folder / CHECKPOINT).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        path = self.folder(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("Another process trains this job; waiting for it.")
                lock.acquire()
        except OSError as error:
            raise StorageError(f"Cannot use the store {self.root}: {error.strerror or error}.") from error
        try:
            yield
        finally:
            lock.release()

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

    def clear(self) -> None:
        """Remove every entry, and nothing else that the folder may hold."""
        for path in self.root.glob("??/*"):
            if re.match(r"[0-9a-f]{32}(\.|$)", path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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


def versions() -> dict[str, str]:
    """Versions of what computes, for manifests and reports."""
    return {
        "lotto": version("lotto-tickets"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
