"""Live displays of the command line: what is being trained, how far it is, what came out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from lotto.cli.screen import say
from lotto.data import Progress as DataProgress
from lotto.execution.engine import JobAdvanced, JobFinished, JobStarted
from lotto.lottery.procedure import LevelFinished

log = logging.getLogger(__name__)


class Display:
    """A bar for all jobs, one for each job on its way, a line for each finished level of IMP.

    Without a terminal only the lines are printed.

    Args:
        console: where to draw.
        jobs: how many jobs there will be; None when that is not known beforehand.
    """

    def __init__(self, console: Console, jobs: int | None = None) -> None:
        self.console = console
        self.trained = self.remembered = 0
        self.began = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )
        self.total = self.bars.add_task("all jobs", total=jobs, note="")
        self.tasks: dict[str, TaskID] = {}
        self.errors: dict[int, list[float]] = {}

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: object) -> None:
        match event:
            case JobStarted(job):
                self.tasks[job.label] = self.bars.add_task(job.label, total=job.end - job.from_step, note="")
            case JobAdvanced(job, step, loss):
                if job.label in self.tasks:
                    self.bars.update(
                        self.tasks[job.label],
                        completed=step - job.from_step,
                        note=f"loss {loss:.3f}",
                    )
            case JobFinished(job, _, trained):
                if (task := self.tasks.pop(job.label, None)) is not None:
                    self.bars.remove_task(task)
                self.trained += trained
                self.remembered += not trained
                self.bars.advance(self.total)
                if trained and not self.console.is_interactive and not self.errors:
                    say(f"{time.monotonic() - self.began:6.1f} s  {job.label}", to=self.console)
            case LevelFinished(replicate, level, density, error):
                self.errors.setdefault(level, []).append(error)
                dense = self.errors[0]
                say(
                    f"{time.monotonic() - self.began:6.1f} s  replicate {replicate + 1}  level {level:2}  "
                    f"{100 * density:6.2f} % left  error {error:6.2f}  (dense {sum(dense) / len(dense):.2f})",
                    to=self.console,
                )


@contextlib.contextmanager
def download_display(console: Console) -> Iterator[DataProgress]:
    """A progress bar for downloads; it appears only if something is downloaded."""
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), console=console, transient=True
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield progress
