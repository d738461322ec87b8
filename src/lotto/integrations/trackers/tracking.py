"""From events to trackers: what each is told, under which names, and that none can change or end a training."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from lotto.core import registry
from lotto.core.errors import UsageError, text
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, Progress
from lotto.execution.store import WorkItem
from lotto.execution.trackers import ENTRY_POINTS, guarded
from lotto.lottery.procedure import LevelFinished
from lotto.training.job import Run

log = logging.getLogger(__name__)

OURS = {
    "csv": "csv_folder:CsvTracker",
    "tensorboard": "tensorboard:TensorBoardTracker",
    "mlflow": "mlflow:MlflowTracker",
    "wandb": "wandb:WandbTracker",
}
"""Those that are made with a folder, as ``module:class`` beside this file."""


@runtime_checkable
class Tracker(Protocol):
    """What is told of trainings: any class with these four methods.

    >>> class Printing:
    ...     def start(self, name, config):
    ...         print("start", name)
    ...     def log(self, training, step, values):
    ...         pass
    ...     def artifact(self, path):
    ...         print(path.name)
    ...     def finish(self):
    ...         print("finish")
    >>> isinstance(Printing(), Tracker)
    True
    """

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Called once, before all else: the recipe's name, and the recipe as texts and numbers."""

    def log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a training at a step, such as ``loss`` or ``test_error``; all are finite."""

    def artifact(self, path: Path) -> None:
        """A file of the result: a report, a table, a ticket."""

    def finish(self) -> None:
        """Called once, when all is over; not if nothing was started."""


class Tracking:
    """A tracker as a function of events, and for its files; what it raises is logged once, and it is called no more.

    A training is called what progress displays call it, its parts with slashes between them: ``replicate 1/level 2``.
    Of each there is the ``loss`` lately, and at each evaluation, remembered ones too, what is in `Run.history`. The
    errors of levels against their number are under ``replicate 1/levels``.

    Args:
        tracker: what is told.
        name: what the log calls it.

    >>> from lotto.integrations.trackers.csv_folder import CsvTracker
    >>> with Tracking(CsvTracker("curves"), "csv") as watch:
    ...     run = lotto.train(recipe, progress=watch)
    >>> Path("curves/small/metrics.csv").read_text().splitlines()[0]
    'training,step,name,value'
    """

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker, self.name = tracker, name
        self.started = self.failed = False
        self._names: dict[int, tuple[WorkItem, str]] = {}
        self._used: dict[str, int] = {}

    def __call__(self, event: object) -> None:
        match event:
            case JobStarted(job):
                self._training(job)
            case JobAdvanced(job, step, loss):
                self._log(self._training(job), step, {"loss": loss})
            case JobFinished(job, run, _):
                training = self._training(job)
                for record in run.history if isinstance(run, Run) else ():
                    self._log(training, int(record["step"]), {n: v for n, v in record.items() if n != "step"})
                del self._names[id(job)]  # a job holds weights
            case LevelFinished(replicate, level, density, error):
                self._log(f"replicate {replicate + 1}/levels", level, {"density": density, "error": error})

    def artifact(self, path: str | Path) -> None:
        """Hand over a file of the result; nothing if no training was seen."""
        if self.started:
            self._tell(lambda: self.tracker.artifact(Path(path)))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.started:
            self._tell(self.tracker.finish)

    def _training(self, job: WorkItem) -> str:
        """The name of a training; two of the same name are told apart by a number."""
        if not self.started:
            self.started = True
            self._tell(lambda: self.tracker.start(job.recipe.name, job.recipe.describe()))
        if id(job) not in self._names:
            name = plain_name(job.label or job.recipe.name)
            self._used[name] = number = self._used.get(name, 0) + 1
            self._names[id(job)] = (job, name if number == 1 else f"{name} ({number})")
        return self._names[id(job)][1]

    def _log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite and self.started:
            self._tell(lambda: self.tracker.log(training, step, finite))

    def _tell(self, call: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            call()
        except Exception as error:  # whatever someone else's code may raise
            self.failed = True
            log.warning("The tracker %r failed and is called no more: %s: %s", self.name, type(error).__name__, error)


class Watching:
    """Several trackers as one function of events, and for their files."""

    def __init__(self, watching: Sequence[Progress]) -> None:
        self.watching = watching

    def __call__(self, event: object) -> None:
        for watch in self.watching:
            watch(event)

    def beside(self, display: Progress) -> Progress:
        """A display and the trackers, one after the other."""
        return Watching([display, *self.watching]) if self.watching else display

    def artifact(self, path: str | Path) -> None:
        """Hand a file of the result to those that take any."""
        for watch in self.watching:
            if isinstance(watch, Tracking):
                watch.artifact(path)


@contextlib.contextmanager
def track(*trackers: str | Tracker) -> Iterator[Watching]:
    """Trackers for the time of a block: what it gives is a ``progress=`` of `lotto.imp` and all that takes long.

    Args:
        trackers: ``csv:FOLDER``, ``tensorboard:FOLDER``, ``mlflow:FOLDER`` (or the URI of a server), ``wandb:FOLDER``;
            the name of an installed package's tracker (entry point ``lotto.trackers``) or ``package.module:name``,
            which may be a function of events, too; or an object with the methods of `Tracker`.

    Raises:
        UsageError: for an unknown name, and one whose package is not installed.

    >>> with track("csv:tracked") as watch:
    ...     result = lotto.imp(recipe, levels=1, replicates=1, controls=(), jobs=1, progress=watch)
    ...     watch.artifact(result.save("result") / "table.csv")
    >>> sorted(path.name for path in Path("tracked/small").iterdir())
    ['config.json', 'metrics.csv', 'table.csv']
    """
    with contextlib.ExitStack() as stack:
        watching: list[Progress] = []
        for given in trackers:
            watch = _watch(given)
            watching.append(stack.enter_context(watch) if isinstance(watch, Tracking) else watch)
        yield Watching(watching)


def _watch(given: str | Tracker) -> Progress:
    if not isinstance(given, str):
        if not isinstance(given, Tracker):
            raise UsageError(
                f"A tracker is a name such as csv:FOLDER, or has start, log, artifact and finish; got {text(given)}."
            )
        return Tracking(given, type(given).__name__)
    name, colon, folder = given.partition(":")
    if name in OURS:
        if not colon or not folder:
            raise UsageError(f"The tracker {name} writes into a folder: {name}:FOLDER; got {text(given)}.")
        module, _, kind = OURS[name].partition(":")
        return Tracking(getattr(import_module(f"{__package__}.{module}"), kind)(folder), given)
    found = registry.find("tracker", given, dict.fromkeys(OURS), ENTRY_POINTS)
    made = found() if isinstance(found, type) else found
    return Tracking(made, given) if isinstance(made, Tracker) else guarded(given, made)


def plain_name(label: str) -> str:
    """A label with slashes between its parts, and no sign that some trackers refuse.

    >>> plain_name("replicate 1 · level 2 · 64.0%")
    'replicate 1/level 2/64.0'
    """
    parts = [re.sub(r"[^A-Za-z0-9_.:\- ]+", " ", part).strip() for part in label.split("·")]
    return "/".join(" ".join(part.split()) for part in parts if part) or "training"


def own_folder(folder: str | Path, name: str) -> Path:
    """``FOLDER/NAME``, or ``NAME-2``, ... if there is something: what was written before stays as it is."""
    wanted = Path(folder) / plain_name(name).replace("/", " ")
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    path.mkdir(parents=True)
    return path
