"""Progress of long calls on a terminal and in a notebook: the one thing that the library shows without being asked.

It appears when a call takes more than a moment and goes when the call ends, however it ends. It writes to stderr alone,
never hides the cursor, lets prints through, and is silent where stderr is neither a terminal nor a notebook's.
"""

from __future__ import annotations

import contextlib
import html
import math
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from lotto.execution.events import (
    JobAdvanced,
    JobFinished,
    JobStarted,
    KernelsCompiled,
    KernelsCompiling,
    Progress,
    StageAdvanced,
)
from lotto.execution.store import WorkItem

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

DELAY, INTERVAL = 0.5, 0.1
"""Seconds before a call shows anything, and between two drawings."""
COMPILING, COMPILATION = "compiling kernels, once for this machine", 0
"""What is drawn meanwhile, and what stands for it among the identities of jobs."""
MOST = 12
"""Jobs on their way that are drawn one by one."""

_ONE = threading.Lock()
"""Held by the display that is on the screen: another one beside it, of another thread, would draw over it."""


class Display:
    """Counts what is done, knows what is on its way, and draws it now and then.

    Args:
        jobs: how many jobs there will be; None when that is not known beforehand.
        delay: seconds before anything is drawn.
    """

    def __init__(self, jobs: int | None = None, delay: float = DELAY) -> None:
        self.jobs, self.trained, self.remembered = jobs, 0, 0
        self.under_way: dict[int, tuple[WorkItem, int, float]] = {}
        self.compiling = False
        self.stage: StageAdvanced | None = None
        self.began = time.monotonic()
        self.next = self.began + delay

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __call__(self, event: object) -> None:
        match event:
            case JobStarted(job):
                self.under_way[id(job)] = (job, job.from_step, math.nan)
            case JobAdvanced(job, step, loss):
                self.under_way[id(job)] = (job, step, loss)
            case JobFinished(job, _, trained):
                self.under_way.pop(id(job), None)
                self.trained += trained
                self.remembered += not trained
            case KernelsCompiling() | KernelsCompiled():
                self.compiling = isinstance(event, KernelsCompiling)
                self.next = 0.0  # nothing else happens meanwhile that would draw it
            case StageAdvanced():
                self.stage = event
        if (now := time.monotonic()) >= self.next:
            self.next = now + INTERVAL
            self.draw()

    @property
    def done(self) -> int:
        """How many jobs are done."""
        return self.trained + self.remembered

    def draw(self) -> None:
        """Show where it stands."""

    def stop(self) -> None:
        """Take away what was drawn."""


class Bars(Display):
    """A bar for all jobs and one for each on its way, on a terminal.

    Args:
        console: where to draw.
        jobs: see `Display`.
        delay: see `Display`.
    """

    def __init__(self, console: Console, jobs: int | None = None, delay: float = DELAY) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(jobs, delay)
        self.console = console
        self.bars = RichProgress(
            TextColumn("{task.description}", markup=False),  # names are data
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,
            # What is printed to a file or a pipe is not for the screen.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self.total: TaskID | None = None
        self.tasks: dict[int, TaskID] = {}

    def more_jobs(self, times: int) -> None:
        """There are so many times as many jobs as was thought."""
        self.jobs = self.jobs and times * self.jobs
        if self.total is not None:
            self.bars.update(self.total, total=self.jobs)

    def draw(self) -> None:
        """Bring the bars to where the jobs are."""
        if self.total is None:
            self.total = self.bars.add_task(self._title(), total=self.jobs, note="")
            self.bars.start()
        if self.stage is None:
            self.bars.update(self.total, completed=self.done)
        else:
            self.bars.update(self.total, description=self._title(), completed=self.stage.done, total=self.stage.total)
        if self.compiling and COMPILATION not in self.tasks:
            self.tasks[COMPILATION] = self.bars.add_task(COMPILING, total=None, note="")
        for gone in self.tasks.keys() - self.under_way.keys() - ({COMPILATION} if self.compiling else set()):
            self.bars.remove_task(self.tasks.pop(gone))
        for key, (job, step, loss) in [*self.under_way.items()][:MOST]:
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(_name(job), total=job.length, note="")
            self.bars.update(self.tasks[key], completed=step - job.from_step, note=_note(loss))

    def _title(self) -> str:
        return "all jobs" if self.stage is None else self.stage.stage

    def stop(self) -> None:
        """Take the bars away; a line that was begun is shown."""
        if self.total is not None:
            with contextlib.suppress(OSError, ValueError):  # whoever reads has gone
                sys.stdout.flush()
            self.bars.stop()


class NotebookBars(Display):
    """The same in a notebook, as a few lines of HTML that need no widgets."""

    handle: Any = None

    def draw(self) -> None:
        """Write the lines in the place of the last ones."""
        self._show(self.text())

    def text(self) -> str:
        """Where it stands, as HTML."""
        at = self.stage
        lines = [_line("all jobs", self.done, self.jobs, "") if at is None else _line(at.stage, at.done, at.total, "")]
        lines += [html.escape(COMPILING)] * self.compiling
        for job, step, loss in [*self.under_way.values()][:MOST]:
            lines.append(_line(_name(job), step - job.from_step, job.length, _note(loss)))
        return "<br>".join(lines)

    def stop(self) -> None:
        """Leave an empty place."""
        if self.handle is not None:
            self._show("")

    def _show(self, text: str) -> None:
        display = sys.modules["IPython"].display
        if self.handle is None:
            self.handle = display.display(display.HTML(text), display_id=True)
        elif self.handle:
            self.handle.update(display.HTML(text))


@contextlib.contextmanager
def showing(progress: Progress | bool | None, jobs: int | None = None) -> Iterator[Progress]:
    """What a long call gives its events to.

    Args:
        progress: a function of events, called instead of a display; False = nothing is shown; None or True = a
            display where stderr is a terminal or the process is a notebook's.
        jobs: how many jobs there will be.
    """
    if callable(progress):
        yield progress
        return
    # Not in a thread beside another display, nor in a call that a displayed one has made.
    if progress is False or not (in_notebook() or _on_terminal()) or not _ONE.acquire(blocking=False):
        yield _ignored
        return
    try:
        with NotebookBars(jobs) if in_notebook() else Bars(_console(), jobs) as display:
            yield display
    finally:
        _ONE.release()


def callback(progress: Progress | bool | None) -> Progress:
    """A function of events, whatever was given."""
    return progress if callable(progress) else _ignored


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get is not None and type(get()).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter's, Colab's


def _on_terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def _console(file: IO[str] | None = None) -> Console:
    from rich.console import Console

    class Plain(Console):
        """A console that leaves the cursor as it is: nothing to put right for whoever ends the process."""

        def show_cursor(self, show: bool = True) -> bool:
            """Do nothing."""
            return False

    return Plain(stderr=True, file=file)


def _ignored(event: object) -> None:
    pass


def _name(job: WorkItem) -> str:
    return job.label or job.recipe.name


def _note(loss: float) -> str:
    return "" if math.isnan(loss) else f"loss {loss:.3f}"


def _line(name: str, done: int, total: int | None, note: str) -> str:
    size = "" if total is None else f' max="{max(1, total)}" value="{done}"'
    return f"<progress{size}></progress> {html.escape(name)} {done}/{'?' if total is None else total} {note}"
