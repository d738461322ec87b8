"""The threads of a learner in one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Team:
    """Threads that call one function together, in which they wait for each other.

    They are made when they are first needed, and anew in a forked process, which has none of its parent's.

    Args:
        count: how many there are, the caller's included.

    >>> Team(1).run(lambda thread, threads, count: print(thread, threads, count))
    0 1 [0]
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._process = -1
        self._pool: ThreadPoolExecutor | None = None

    def run(self, function: Callable[[int, int, np.ndarray], object]) -> None:
        """Call a function that lets go of the interpreter, in every thread with its number, theirs, and a zero."""
        zero = np.zeros(1, np.int64)
        if self.count == 1:
            function(0, 1, zero)
            return
        if self._pool is None or self._process != os.getpid():
            self._process, self._pool = os.getpid(), ThreadPoolExecutor(self.count - 1)
        others = [self._pool.submit(function, thread, self.count, zero) for thread in range(1, self.count)]
        function(0, self.count, zero)
        for other in others:
            other.result()
