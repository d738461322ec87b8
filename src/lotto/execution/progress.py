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
from collections.abc import Callable, Iterator
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
from lotto.training.job import Job

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


class Counted:
    """Trainings, each once however often it is asked for; what has no key is never the same as another."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._others = 0

    def add(self, job: Job) -> None:
        """One more, or one of those that there are."""
        if job.key is None:
            self._others += 1
        else:
            self._keys.add(job.key)

    def __len__(self) -> int:
        return len(self._keys) + self._others


class Display:
    """Counts what is done, knows what is on its way, and draws it now and then.

    Args:
        jobs: how many jobs there will be; None when that is not known beforehand.
        delay: seconds before anything is drawn.
        trainings: how many different trainings there will be among more jobs than are known: then these are counted.
    """

    def __init__(self, jobs: int | None = None, delay: float = DELAY, *, trainings: int | None = None) -> None:
        self.jobs, self.trained, self.remembered = jobs, 0, 0
        self.trainings, self.counted = trainings, Counted()
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
                if self.trainings is not None and isinstance(job, Job):
                    self._count(job)
            case KernelsCompiling() | KernelsCompiled():
                self.compiling = isinstance(event, KernelsCompiling)
                self.next = 0.0  # nothing else happens meanwhile that would draw it
            case StageAdvanced():
                self.stage = event
        if (now := time.monotonic()) >= self.next:
            self.next = now + INTERVAL
            self.draw()

    def _count(self, job: Job) -> None:
        self.counted.add(job)
        if self.trainings is not None and len(self.counted) > self.trainings:
            self.trainings = None  # there are more than was thought: nobody knows how many

    @property
    def done(self) -> int:
        """How many jobs are done, or trainings, where their number is known."""
        return self.trained + self.remembered if self.trainings is None else len(self.counted)

    @property
    def total(self) -> int | None:
        """How many there are in all."""
        return self.jobs if self.trainings is None else self.trainings

    @property
    def title(self) -> str:
        """What is counted."""
        if self.stage is not None:
            return self.stage.stage
        return "all jobs" if self.trainings is None else "all trainings"

    def draw(self) -> None:
        """Show where it stands."""

    def stop(self) -> None:
        """Take away what was drawn."""


class Bars(Display):
    """A bar for all jobs and one for each on its way, on a terminal.

    Args:
        console: where to draw.
        jobs, delay, trainings: see `Display`.
    """

    def __init__(
        self, console: Console, jobs: int | None = None, delay: float = DELAY, *, trainings: int | None = None
    ) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(jobs, delay, trainings=trainings)
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
        self.whole: TaskID | None = None
        self.tasks: dict[int, TaskID] = {}

    def more_jobs(self, times: int) -> None:
        """There are so many times as many jobs as was thought."""
        self.jobs = self.jobs and times * self.jobs

    def draw(self) -> None:
        """Bring the bars to where the jobs are."""
        done, total = (self.done, self.total) if self.stage is None else (self.stage.done, self.stage.total)
        if self.whole is None:
            self.whole = self.bars.add_task(self.title, total=total, note="")
            self.bars.start()
        self.bars.update(self.whole, description=self.title, completed=done)
        task = next(task for task in self.bars.tasks if task.id == self.whole)
        task.total = total  # which `update` leaves as it is if nobody knows it any more
        if self.compiling and COMPILATION not in self.tasks:
            self.tasks[COMPILATION] = self.bars.add_task(COMPILING, total=None, note="")
        for gone in self.tasks.keys() - self.under_way.keys() - ({COMPILATION} if self.compiling else set()):
            self.bars.remove_task(self.tasks.pop(gone))
        for key, (job, step, loss) in [*self.under_way.items()][:MOST]:
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(_name(job), total=job.length, note="")
            self.bars.update(self.tasks[key], completed=step - job.from_step, note=_note(loss))

    def stop(self) -> None:
        """Take the bars away; a line that was begun is shown."""
        if self.whole is not None:
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
        done, total = (self.done, self.total) if self.stage is None else (self.stage.done, self.stage.total)
        lines = [_line(self.title, done, total, "")]
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
def showing(
    progress: Progress | bool | None, jobs: int | None = None, trainings: Callable[[], int | None] = lambda: None
) -> Iterator[Progress]:
    """What a long call gives its events to.

    Args:
        progress: a function of events, called instead of a display; False = nothing is shown; None or True = a
            display where stderr is a terminal or the process is a notebook's.
        jobs: see `Display`.
        trainings: gives them, see there; called only where they are shown, as counting may take seconds.
    """
    if callable(progress):
        yield progress
        return
    # Not in a thread beside another display, nor in a call that a displayed one has made.
    if progress is False or not (in_notebook() or _on_terminal()) or not _ONE.acquire(blocking=False):
        yield _ignored
        return
    try:
        if in_notebook():
            made: Display = NotebookBars(jobs, trainings=trainings())
        else:
            made = Bars(_console(), jobs, trainings=trainings())
        with made as display:
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
