"""Named randomness: every random number is a function of (seed, purpose, step).

Philox is a counter-based generator: the stream of any step can be opened directly, so a run that starts
in the middle sees the numbers it would have seen had it started at the beginning. No global generator is
read or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from lotto.core.errors import UsageError

T = TypeVar("T")


def stream(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """Open the generator of (``seed``, ``purpose``, ``step``)."""
    digest = hashlib.blake2b(f"{purpose}:{int(seed)}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype=np.uint64)
    # The step sits in the highest counter word, so that streams of different steps never overlap.
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def derived_seed(seed: int, purpose: str, step: int = 0) -> int:
    """A seed of its own for ``purpose``: seeds made by addition could meet."""
    return int(stream(seed, purpose, step).integers(2**53))


def torch_seed(seed: int, purpose: str, step: int = 0) -> int:
    """A seed for ``torch.manual_seed``, where only torch can draw (module constructors, dropout)."""
    return int(stream(seed, purpose, step).integers(2**63 - 1))


_ONE_AT_A_TIME = threading.RLock()
"""A process has one generator of each kind for all threads: two blocks at once would draw each other's numbers."""


@contextlib.contextmanager
def private_rng(seed: int | None = None) -> Iterator[None]:
    """Run a block whose draws leave the caller's generators as they were: Python's, numpy's, torch's and CUDA's.

    Such blocks of several threads run one after another.

    Args:
        seed: of all generators at the beginning; None leaves them where they are.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        python, arrays = random.getstate(), np.random.get_state()
        try:
            if seed is not None:
                # Before CUDA is there, torch.manual_seed writes down where it is called from: a millisecond each time.
                seeded = torch if torch.cuda.is_available() else torch.default_generator
                seeded.manual_seed(seed)
                seed_host(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def seed_host(seed: int) -> None:
    """Seed Python's and numpy's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed what a computation on ``device`` draws from; on a CPU in a tenth of the time of `torch.manual_seed`."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def host_state() -> Hashable:
    """Where Python's and numpy's global generators are."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, np.asarray(keys).tobytes(), *rest


class Draws:
    """Global generators in a training, step by step: what is drawn in a step is a function of (seed, step).

    torch's is seeded where a network is called. Python's and numpy's are seeded at the first step and compared after
    it: only where they have been drawn from are they seeded before every step. The others' steps cost nothing.

    Args:
        possible: whether anything runs that is not ours.
        data: whether that is also so for what makes the batches.
    """

    def __init__(self, possible: bool, data: bool = False) -> None:
        self.possible, self.data = possible, data
        self.seen: bool | None = None if possible else False
        self._resting: Hashable = None

    def steps(self, batches: Iterable[T], seed: int, first: int) -> Iterator[tuple[int, T]]:
        """The batches with their steps; whoever takes one has done its step when he asks for the next."""
        if not self.possible:
            yield from enumerate(batches, start=first)
            return
        waiting, step = iter(batches), first
        while True:
            before = self._begin(seed, step)
            try:
                batch = next(waiting)
            except StopIteration:
                return
            if self.seen is None and self.data and before != self._state():
                self.seen = True
            yield step, batch
            if self.seen is None:
                self._resting = host_state()
                self.seen = self._resting != before[0]
            step += 1

    def check(self, name: str) -> None:
        """Raise ``UsageError`` if numbers were drawn after a first step in which none were."""
        if self.possible and self.seen is False and host_state() != self._resting:
            raise UsageError(
                f"{name} draws from Python's random or numpy.random in some steps and in others not, so a training "
                "that goes on from the middle would draw others. Draw in every step, or by torch's functions."
            )

    def rest(self) -> None:
        """Take the generators as they are: what others did with them in between is not the training's."""
        if self.possible and self.seen is False:
            self._resting = host_state()

    def _begin(self, seed: int, step: int) -> tuple[Hashable, Hashable]:
        if self.seen is False:
            return None, None
        number = torch_seed(seed, "step", step)
        seed_host(number)
        if self.data:
            torch.manual_seed(number)
        return self._state() if self.seen is None else (None, None)

    def _state(self) -> tuple[Hashable, Hashable]:
        return host_state(), torch.get_rng_state().numpy().tobytes() if self.data else None
