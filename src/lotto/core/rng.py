"""Named randomness: every random number is a function of (seed, purpose, step).

Philox is a counter-based generator: the stream of any step can be opened directly, so a run that starts
in the middle sees the numbers it would have seen had it started at the beginning. No global generator is
read or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import numpy as np
import torch


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
"""torch has one generator for all threads: two blocks at once would draw each other's numbers."""


@contextlib.contextmanager
def private_torch_rng() -> Iterator[None]:
    """Run a block whose torch draws leave the caller's generators as they were, CUDA's included.

    Such blocks of several threads run one after another.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        yield
