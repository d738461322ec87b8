"""What a signal does to the command line.

Imported before everything else, so it imports nothing that takes time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time

from lotto.core.signals import ENDING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PATIENCE_SECONDS = 10.0
"""So long a second Ctrl-C does not interrupt the clean-up after the first."""
SHOW_CURSOR = b"\x1b[?25h"
OUT_OF_TIME = 75
"""The exit code where a command's time was up, for scripts that call it again."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to end."""


class Stopping:
    """One line and the shell's exit code for every signal; nothing is left behind.

    At first a signal ends the process at once: there is nothing to undo, and an exception amid imports would not
    always arrive. Commands that have something to undo say `unwind` once they have imported what they need.
    """

    def __init__(self) -> None:
        self.number = 0
        self.silent = False
        """Whether another process says what is to be said."""
        self._since = 0.0
        self._unwinding = False
        self._began = time.monotonic()
        self._clock: Any = None
        self._is_up = False

    @contextlib.contextmanager
    def handled(self, program: bool) -> Iterator[None]:
        """Handle signals; what was ignored before (`nohup`, background jobs of a script) stays ignored.

        Args:
            program: whether the process ends after the block; else the handlers are put back.
        """
        self.number, self._unwinding, self._is_up = 0, False, False
        self._began = time.monotonic()
        before: dict[int, Any] = {}
        if program:
            sys.unraisablehook = self._unraisable
            atexit.register(_ignore)  # the first to register is the last to be called
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._receive)
        try:
            yield
        finally:
            self._unwinding = False
            if self._clock is not None:
                self._clock.cancel()
            if not program:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def unwind(self, seconds: float | None = None) -> None:
        """From here on a signal is an exception, `Stopped`, in the main thread.

        Args:
            seconds: so long after it has begun the program sends itself one; None = never.
        """
        self._unwinding = True
        if seconds is None:
            return
        self._end_in(self._began + seconds - time.monotonic())

    def stopped(self) -> int:
        """Say that the program was stopped, once all is undone; returns the exit code, as shells have it."""
        kept = " Finished trainings are kept; the same command goes on from here." if self._unwinding else ""
        self._say(f"{'Time is up' if self._is_up else 'Stopped'}.{kept}\n")
        return OUT_OF_TIME if self._is_up else 128 + (self.number or signal.SIGINT)

    def _end_in(self, seconds: float) -> None:
        from threading import Timer

        self._clock = Timer(max(0.0, seconds), self._end)
        self._clock.daemon = True
        self._clock.start()

    def _end(self) -> None:
        """Send the process a signal, as anybody might; and again, if someone's ``except:`` has taken it."""
        if self.number and not self._is_up:
            return
        self._is_up, self.number = True, 0
        self._end_in(PATIENCE_SECONDS)
        _send(signal.SIGTERM)

    def _receive(self, number: int, _: object) -> None:
        if self.number and time.monotonic() - self._since < PATIENCE_SECONDS:
            return
        if self.number or not self._unwinding:
            self._leave(number)
        self.number, self._since = number, time.monotonic()
        raise Stopped

    def _leave(self, number: int) -> None:
        self._say("Stopped.\n")
        os._exit(128 + number)

    def _say(self, line: str) -> None:
        if self.silent:
            return
        with contextlib.suppress(OSError):  # the terminal may be gone
            if self._unwinding and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
                os.write(1, SHOW_CURSOR)
            os.write(2, line.encode())

    def _unraisable(self, unraisable: Any) -> None:
        """What is raised in a destructor goes no further: the signal is sent once more, a little later."""
        if unraisable.exc_type is not Stopped:
            if not self.number:
                sys.__unraisablehook__(unraisable)
            return
        from threading import Timer

        number, self.number = self.number, 0
        Timer(0.01, _send, (number,)).start()


def _send(number: int) -> None:
    """Send this process a signal, from whichever thread."""
    if os.name == "posix":  # a call that waits in the main thread ends
        os.kill(os.getpid(), number)
    else:  # where `os.kill` would end the process at once
        signal.raise_signal(number)


def _ignore() -> None:
    """At the very end, when the interpreter lets go of our handlers."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


stopping = Stopping()
