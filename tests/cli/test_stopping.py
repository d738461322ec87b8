"""Signals and closed pipes: a line, the shell's exit code, the cursor back, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("sends signals to sessions of /proc", allow_module_level=True)

from spawning import Ended, stopped

from lotto.cli.main import main
from lotto.core.signals import held


def check(ended: Ended, number: int, *folders: Path) -> None:
    assert ended.code == 128 + number, ended.text
    assert "Traceback" not in ended.text
    assert "ignored" not in ended.text
    assert ended.text.count("Stopped.") == 1
    assert ended.text.rfind("\x1b[?25h") >= ended.text.rfind("\x1b[?25l")
    assert ended.left == []
    assert [path for folder in folders for path in folder.rglob("*") if path.suffix == ".tmp"] == []


def imp(folder: Path, jobs: int, steps: str = "40000it") -> list[str]:
    return [
        "imp", "mlp-mnist1d", "--steps", steps, "--levels", "1", "--jobs", str(jobs),
        "--out", str(folder / "out"), "--store", str(folder / "store"),
    ]  # fmt: skip


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.6, 1.2])
@pytest.mark.parametrize(("number", "terminal"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_while_the_command_starts(seconds, number, terminal, tmp_path):
    ended = stopped(imp(tmp_path, 1), lambda at, _: at > seconds, number, terminal=terminal)
    if (ended.code, ended.text) == (-number, ""):
        pytest.skip("the interpreter itself had not begun to read lotto: to a shell this is the same exit code")
    check(ended, number, tmp_path)
    assert ended.text.replace("^C", "").strip().startswith("Stopped.")


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.extras)])
@pytest.mark.parametrize(
    ("number", "group", "terminal"),
    [
        (signal.SIGINT, True, True),
        pytest.param(signal.SIGTERM, True, False, marks=pytest.mark.extras),
        pytest.param(signal.SIGHUP, False, True, marks=pytest.mark.extras),
    ],
)
def test_a_signal_while_networks_train(jobs, number, group, terminal, tmp_path):
    scratch, began = tmp_path / "scratch", []
    scratch.mkdir()

    def training(at: float, _: str) -> bool:
        # Workers start a while before they train: some of the signals come in between.
        if jobs == 2 and any(scratch.glob("lotto-*")):
            began.append(at)
        if jobs == 1 and any((tmp_path / "store").rglob("*.lock")):
            began.append(at)
        return bool(began) and at > began[0] + (0.3 if group else 1.5)

    ended = stopped(
        imp(tmp_path, jobs), training, number, group=group, terminal=terminal, environment={"TMPDIR": str(scratch)}
    )
    check(ended, number, tmp_path)
    assert list(scratch.iterdir()) == []


@pytest.mark.extras
def test_a_command_that_was_stopped_goes_on(tmp_path, capsys):
    arguments = [*imp(tmp_path, 1, "100it"), "--replicates", "1", "--controls", "none"]
    check(stopped(arguments, lambda _, text: "level  0" in text, signal.SIGINT), signal.SIGINT, tmp_path)
    main(arguments)
    assert " 0 remembered" not in capsys.readouterr().out


def test_a_hangup_that_was_ignored_stays_ignored(tmp_path):
    script = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from lotto.cli.main import main; main()"
    child = subprocess.Popen([sys.executable, "-c", script, "recipes"], stdout=subprocess.PIPE)
    time.sleep(0.15)
    child.send_signal(signal.SIGHUP)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert b"lenet-mnist" in out


@pytest.mark.parametrize("stream", ["stdout", pytest.param("stderr", marks=pytest.mark.extras)])
def test_a_reader_that_goes_away_ends_the_command_quietly(stream, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    arguments = ["recipes"] if stream == "stdout" else ["imp", "no-such-recipe"]
    done = subprocess.run(
        [sys.executable, "-m", "lotto", *arguments], **{stream: writer, other: subprocess.PIPE}, check=False
    )
    os.close(writer)
    assert done.returncode == 141
    assert not getattr(done, other)


@pytest.mark.extras
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_reader_that_goes_away_while_networks_train_leaves_nothing(jobs, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = " ".join([sys.executable, "-m", "lotto", *imp(tmp_path, jobs, "50it"), "--replicates", "2"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 141, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("redirection", "code", "words"), [(">/dev/full", 1, "No space left on device"), (">&-", 0, ""), ("2>&-", 0, "")]
)
def test_streams_that_take_nothing(redirection, code, words):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m lotto recipes {redirection}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == bool(words)


def test_held_signals_come_afterwards():
    got = []
    before = signal.signal(signal.SIGINT, lambda number, _: got.append(number))
    try:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert got == []
        assert got == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
