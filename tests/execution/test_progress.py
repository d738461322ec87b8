"""Long calls show how far they are on a terminal and in a notebook, and nowhere else; whatever happens, it goes again."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import lotto
from conftest import small_recipe
from lotto.execution import progress as module
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, KernelsCompiled, KernelsCompiling
from lotto.execution.progress import Bars, NotebookBars, callback, showing
from lotto.training.job import Job


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in stderr's place, on which displays appear at once."""
    made = Terminal()
    monkeypatch.setattr(module, "_on_terminal", lambda: True)  # pytest has a stderr of its own in every phase
    monkeypatch.setattr(module, "_console", partial(module._console, made))
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setattr(Bars.__init__, "__defaults__", (None, 0.0))
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    return made


def long_calls(recipe):
    a, b, c = (recipe.initial(i) for i in range(3))
    land = lotto.landscape
    return {
        "imp": lambda **rule: lotto.imp(recipe, levels=1, replicates=1, jobs=1, **rule),
        "train": lambda **rule: lotto.train(recipe, **rule),
        "instability": lambda **rule: land.instability(recipe, points=2, jobs=1, **rule),
        "path": lambda **rule: land.evaluate_path(recipe, a, b, 3, **rule),
        "plane": lambda **rule: land.evaluate_plane(recipe, a, b, c, 2, **rule),
        "spectrum": lambda **rule: land.curvature.spectrum(recipe, a, steps=2, probes=1, **rule),
    }


@pytest.mark.parametrize("name", list(long_calls(small_recipe())))
def test_a_terminal_shows_how_far_a_call_is_unless_it_is_told_not_to(name, recipe, terminal, tmp_path):
    call = long_calls(recipe)[name]
    call(progress=False, store=tmp_path / "silent")
    seen: list = []
    call(progress=seen.append, store=tmp_path / "own")
    assert terminal.getvalue() == ""
    assert any(isinstance(event, JobFinished) for event in seen)
    for i, given in enumerate(({}, {"progress": None}, {"progress": True})):
        call(store=tmp_path / f"shown-{i}", **given)
        assert "all jobs" in terminal.getvalue()
        assert "\x1b[?25l" not in terminal.getvalue(), "the cursor is never hidden"
        terminal.truncate(0)


def test_pipes_stay_silent(recipe, capfd):
    lotto.train(recipe)
    lotto.train(recipe, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_short_call_shows_nothing(recipe, terminal, monkeypatch):
    monkeypatch.setattr(Bars.__init__, "__defaults__", (None, 60.0))
    lotto.train(recipe)
    assert terminal.getvalue() == ""


def test_prints_to_a_pipe_go_there_and_errors_take_the_bars_away(recipe, terminal, capsys):
    def stopped():
        with showing(None, 3) as emit:
            emit(JobStarted(job := Job(recipe, label="[/b] of a user")))
            emit(JobAdvanced(job, 3, 0.5))
            print("a user's line")
            raise KeyboardInterrupt

    streams = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr().out == "a user's line\n"
    assert "[/b] of a user" in terminal.getvalue()
    assert "loss 0.500" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the last lines are erased"
    with showing(None) as emit:  # and the next one may show something again
        assert isinstance(emit, Bars)


def test_one_display_at_a_time(terminal):
    inside: list = []

    def other():
        with showing(None) as emit:
            inside.append(isinstance(emit, Bars))

    with showing(None) as emit:
        assert isinstance(emit, Bars)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert inside == [False]


def test_a_notebook_shows_lines_that_are_replaced(recipe, monkeypatch, tmp_path):
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)

    class ZMQInteractiveShell:
        pass

    notebook = SimpleNamespace(
        get_ipython=ZMQInteractiveShell,
        display=SimpleNamespace(HTML=str, display=lambda text, display_id: [shown.append(text), handle][1]),
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setattr(module.Display.__init__, "__defaults__", (None, 0.0))
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    lotto.train(recipe.replace(name="<net>"))
    assert "<progress" in shown[0]
    assert any("&lt;net&gt; 40/40" in text for text in shown)
    assert shown[-1] == "", "nothing is left"
    with showing(None) as emit:
        assert isinstance(emit, NotebookBars)


def test_what_is_no_function_is_none():
    for given in (None, False, True):
        callback(given)(object())
    seen: list = []
    callback(seen.append)(1)
    assert seen == [1]


SCRIPT = """
import sys, time
import lotto
from conftest import small_recipe
from lotto.execution import progress
progress.Bars.__init__.__defaults__ = (None, 0.0)
print("before")
lotto.train(small_recipe(steps="600it", name="a net"))
print("after")
"""


def test_a_real_terminal(tmp_path):
    parent, child = pty.openpty()
    read = bytearray()

    def drain():
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while part := os.read(parent, 1 << 16):
                read.extend(part)

    reader = threading.Thread(target=drain)
    reader.start()
    paths = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    environment = {**os.environ, "LOTTO_STORE": str(tmp_path), "TERM": "xterm", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=child, env=environment, timeout=120, check=True
    )
    os.close(child)
    reader.join()
    os.close(parent)
    seen = read.decode()
    assert done.stdout.decode().split() == ["before", "after"]
    assert "all jobs" in seen
    assert "a net" in seen
    assert "before" not in seen


def test_compiling_is_on_the_screen_while_nothing_else_happens(recipe, terminal):
    job = Job(recipe)
    with Bars(module._console(), 1, 60.0) as bars:
        bars(KernelsCompiling(job))
        assert module.COMPILATION in bars.tasks
        bars(KernelsCompiled(job, 7.5))
        assert not bars.tasks
    assert module.COMPILING in terminal.getvalue()


def test_compiling_is_in_a_notebooks_lines(recipe):
    bars = NotebookBars(1)
    bars._show = lambda text: None
    bars(KernelsCompiling(Job(recipe)))
    assert module.COMPILING in bars.text()
    bars(KernelsCompiled(Job(recipe), 7.5))
    assert module.COMPILING not in bars.text()


@pytest.mark.parametrize("interactive", [False, True])
def test_the_command_line_says_once_how_long_compiling_took(recipe, interactive):
    from rich.console import Console

    from lotto.cli.display import Display

    text = io.StringIO()
    with Display(Console(file=text, force_terminal=interactive, force_interactive=interactive, width=80)) as display:
        display(KernelsCompiling(Job(recipe)))
        display(KernelsCompiled(Job(recipe), 7.54))
    assert text.getvalue().count("compiled kernels, once for this machine, in 7.5 s\n") == 1
    assert ("compiling kernels, once for this machine …\n" in text.getvalue()) is not interactive
