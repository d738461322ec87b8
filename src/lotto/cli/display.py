"""Live displays of the command line: what is being trained, how far it is, what came out."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
)

from lotto.cli.screen import say
from lotto.data import Progress as DataProgress
from lotto.execution.events import JobFinished, KernelsCompiled, KernelsCompiling
from lotto.execution.progress import COMPILING, Bars
from lotto.lottery.procedure import LevelFinished, SecondLook

log = logging.getLogger(__name__)


class Display(Bars):
    """The library's bars, and a line for each finished level of IMP.

    Without a terminal only the lines are printed.

    Args:
        console: where to draw.
        jobs, trainings: see `lotto.execution.progress.Display`.
    """

    def __init__(self, console: Console, jobs: int | None = None, trainings: int | None = None) -> None:
        super().__init__(console, jobs, 0.0, trainings=trainings)
        self.errors: dict[int, list[float]] = {}

    def __call__(self, event: object) -> None:
        super().__call__(event)
        match event:
            case JobFinished(job, _, True) if not self.console.is_interactive and not self.errors:
                self._line(job.label)
            case KernelsCompiling() if not self.console.is_interactive:  # else a bar says so
                self._line(f"{COMPILING} …")
            case KernelsCompiled(_, seconds):
                self._line(f"compiled kernels, once for this machine, in {seconds:.1f} s")
            case SecondLook(level, replicates):
                self.more_jobs(2)
                self._line(f"level {level} is borderline: a second look, with {replicates} replicates")
            case LevelFinished(replicate, level, density, error):
                self.errors.setdefault(level, []).append(error)
                dense = [at for at in self.errors[0] if not math.isnan(at)]
                said = "diverged    " if math.isnan(error) else f"error {brief(error):>6}"
                against = f"  (dense {brief(sum(dense) / len(dense))})" if dense else ""
                self._line(f"replicate {replicate + 1}  level {level:2}  {100 * density:6.2f} % left  {said}{against}")

    def _line(self, text: str) -> None:
        say(f"{time.monotonic() - self.began:6.1f} s  {text}", to=self.console)


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


def brief(error: float) -> str:
    """An error with two decimals, or three digits of one below 1."""
    return f"{error:.2f}" if error >= 1 or error == 0 else f"{error:.3g}"
