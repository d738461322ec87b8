"""The command line as a process of its own, on a terminal or not, that is sent signals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Ended:
    """How a command ended: its exit code, what it wrote, processes of its session that outlived it."""

    code: int
    text: str
    left: list[str]
    at: str = ""


def session(leader: int) -> list[str]:
    """Command lines of the living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def stopped(
    arguments: list[str],
    when: Callable[[float, str], bool],
    number: int = signal.SIGINT,
    *,
    group: bool = False,
    terminal: bool = False,
    environment: dict[str, str] | None = None,
) -> Ended:
    """Start ``lotto`` and send it a signal.

    Args:
        arguments: the command's.
        when: from the seconds since the start and what has been written to whether the signal is sent now.
        number: the signal.
        group: to the whole process group, as terminals and `timeout` do.
        terminal: on a terminal of its own, where Ctrl-C is typed.
    """
    reader, writer = pty.openpty() if terminal else os.pipe()

    def prepare() -> None:
        for each in ENDING:  # pytest may have been started where they are ignored
            signal.signal(each, signal.SIG_DFL)
        if terminal:
            fcntl.ioctl(writer, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "lotto", *arguments],
        stdin=writer if terminal else subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
        preexec_fn=prepare,
        env={**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1", "TERM": "xterm", **(environment or {})},
    )
    os.close(writer)
    text, began, sent = b"", time.monotonic(), False
    while True:
        if select.select([reader], [], [], 0.005)[0]:
            try:
                block = os.read(reader, 1 << 16)
            except OSError:  # the terminal's last user is gone
                break
            if not block:
                break
            text += block
        if not sent and when(time.monotonic() - began, text.decode(errors="replace")):
            sent = True
            if terminal and number == signal.SIGINT:
                os.write(reader, b"\x03")
            elif group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        if process.poll() is not None and not select.select([reader], [], [], 0.05)[0]:
            break
    code = process.wait(60)
    deadline = time.monotonic() + 3
    while (left := session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(reader)
    return Ended(code, text.decode(errors="replace"), left)
