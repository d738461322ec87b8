"""Signs of life: something is said again and again in the background, for as long as a process lives and wants it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from lotto.core.errors import LottoError


class SignsOfLife:
    """Counts up until it is closed. What cannot be said now, as where a store is gone for a while, is said later.

    Args:
        say: called with 0 at once, if that can be, and with the next number after each pause.
        seconds: of a pause.

    >>> said = []
    >>> SignsOfLife(said.append, 60.0).close()
    >>> said
    [0]
    """

    def __init__(self, say: Callable[[int], None], seconds: float) -> None:
        self._say, self._seconds = say, seconds
        self._ended = threading.Event()
        self._once(0)
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _once(self, number: int) -> None:
        with contextlib.suppress(LottoError, OSError):
            self._say(number)

    def _go_on(self) -> None:
        number = 1
        while not self._ended.wait(self._seconds):
            self._once(number)
            number += 1

    def close(self) -> None:
        """Say nothing any more; nothing is on its way when this returns."""
        self._ended.set()
        self._thread.join()
