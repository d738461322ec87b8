"""Options of several commands: what is changed in a preset, how and where it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from lotto.cli.common import find_modules_of, load_with_progress
from lotto.core.errors import LottoError, UsageError

if TYPE_CHECKING:
    from lotto.execution.engine import Engine
    from lotto.execution.forks import Template
    from lotto.integrations.trackers.tracking import Watching
    from lotto.recipe.recipe import Recipe


@dataclass(frozen=True)
class Changes:
    """What is changed in a preset."""

    steps: str | None = None
    """Length of training: 8ep, 2000it."""
    batch_size: int | None = None
    """Examples per step."""
    lr: float | None = None
    """Peak learning rate."""
    precision: str | None = None
    """float32, bfloat16 or float64."""
    device: str | None = None
    """auto, cpu or cuda."""
    arithmetic: str | None = None
    """dense (torch's layers), sparse (kernels of single weights where there are some) or auto (what is quicker)."""
    compile: bool | None = None
    """Compile the steps of convolutional and your own networks (torch.compile)."""
    graphs: bool | None = None
    """Replay the steps of lotto's own networks as CUDA graphs."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """Any field of the recipe: --set optimizer.momentum=0.9 --set schedule.kind=cosine."""

    def apply(self, name: str) -> Recipe:
        """The preset with the changes, its data downloaded if they are not in the cache."""
        from lotto.recipe import presets

        find_modules_of(name)
        changes: dict[str, Any] = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "optimizer__lr": self.lr,
            "precision": self.precision,
            "device": self.device,
            "arithmetic": self.arithmetic,
            "compile": self.compile,
            "graphs": self.graphs,
        }
        changed = overridden(presets.get(name), {k: v for k, v in changes.items() if v is not None}, self.set)
        if isinstance(changed.data, str):
            load_with_progress(changed.data)
        return changed


@dataclass(frozen=True)
class Machine:
    """How it is run."""

    jobs: str = "auto"
    """Worker processes, or auto (one per core; none for work of a second or two)."""
    threads: int = 1
    """Threads of each worker; one gives the same bits every time."""
    stack: str = "auto"
    """Jobs that train together in each worker: a number, measured, or auto (measured on a GPU, else 1)."""
    backend: str | None = None
    """What runs the jobs: serial, processes, ray, queue, the name of an installed package's engine or
    package.module:name."""
    address: str | None = None
    """A running cluster of the backend's (ray: auto, HOST:6379); default: RAY_ADDRESS, or this machine."""
    gpus_per_job: float | None = None
    """GPUs of each job of the backend ray: 0.25 lets four share one."""
    store: Path | None = None
    """Folder where runs are remembered (default: LOTTO_STORE or the user's cache)."""
    for_: Annotated[str | None, arg(name="for")] = None
    """Stop cleanly after so long (9min, 2h) with exit code 75; the same command goes on."""

    @property
    def seconds(self) -> float | None:
        """After which to stop; None = never.

        Raises:
            UsageError: if it is so short that a training might not get on.
        """
        if self.for_ is None:
            return None
        from lotto.core.seconds import seconds_of
        from lotto.execution.compute import CHECKPOINT_SECONDS

        found = seconds_of(self.for_)
        if found < 2 * CHECKPOINT_SECONDS:
            shortest = f"{2 * CHECKPOINT_SECONDS:g}s"
            raise UsageError(f"--for is at least {shortest}: trainings are saved every {CHECKPOINT_SECONDS:g} seconds.")
        return found

    def warmed(self) -> Template | None:
        """What workers are forked from, when all is imported and before anything is computed; see `engine`."""
        from lotto.execution.forks import warmed

        forks = self.jobs != "1" if self.backend is None else self.backend == "processes"
        return warmed() if forks else None

    def engine(self, recipe: Recipe, template: Template | None = None) -> Engine:
        """The engine for a recipe; its workers are forks of a template where there is one."""
        from lotto.execution.factory import make
        from lotto.execution.processes import Processes
        from lotto.execution.store import Store

        find_modules_of(self.backend)
        options = {"address": self.address, "gpus_per_job": self.gpus_per_job}
        given = {name: value for name, value in options.items() if value is not None}
        engine = make(
            self.jobs, Store(self.store), self.threads, self.stack, recipe.device, backend=self.backend, **given
        )
        if isinstance(engine, Processes):
            engine.template = template
        return engine


@dataclass(frozen=True)
class Execution(Machine):
    """How it is run, and where the results go."""

    out: Path | None = None
    """Folder of the results (default: in lotto-results)."""
    tracker: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["--track"])] = ()
    """What is told of each step: csv:FOLDER, tensorboard:FOLDER, mlflow:FOLDER, wandb:FOLDER, the name of an installed
    package's tracker or package.module:name."""

    def tracking(self) -> AbstractContextManager[Watching]:
        """The trackers that are asked for, for the time of a block."""
        from lotto.integrations.trackers import track

        find_modules_of(*self.tracker)
        return track(*self.tracker)


def overridden(recipe: Recipe, changes: Mapping[str, Any], pairs: Sequence[str]) -> Recipe:
    """Apply fields by name and ``key=value`` texts."""
    changes = dict(changes)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes field=value, such as optimizer.lr=0.05; got {pair!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        changes[key.strip().replace("-", "_").replace(".", "__")] = value
    try:
        return recipe.replace(**changes)
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, LottoError):
            raise
        raise UsageError(f"A value of --set has the wrong type: {error}.") from error
