"""Time and memory on a device: a card computes on while Python goes ahead, so it is waited for."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lotto.benchmarks.harness import Contender, timed
from lotto.benchmarks.memory import forget_peak, peak_resident

WARM_STEPS = 3


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def forget(device: str) -> float:
    """Have the peak of memory begin anew; returns the MiB that are in use now, on a processor of the whole process."""
    if torch.device(device).type != "cuda":
        return forget_peak()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / (1 << 20)


def peak(device: str) -> float:
    """Most MiB in use since then."""
    if torch.device(device).type != "cuda":
        return peak_resident()
    return torch.cuda.max_memory_allocated(device) / (1 << 20)


def release(device: str) -> None:
    """Give memory that nobody uses back to the device."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Paced:
    """A contender that takes as many steps as fill a turn.

    Attributes:
        run: takes them, and waits until they are done.
        count: how many.
        mebibytes: the most that the first steps took beyond what was in use before the contender was made.
        first_seconds: how long the contender took to be made, compiled, and to take its first step.
    """

    run: Contender
    count: int
    mebibytes: float
    first_seconds: float


def paced(made: Callable[[], Callable[[int], None]], device: str, turn_seconds: float, most: int) -> Paced:
    """Make a contender, take some steps, and see how many fill a turn.

    Args:
        made: makes what takes so many steps.
        device: where.
        turn_seconds: how long a turn is to be.
        most: steps of a turn.

    >>> paced(lambda: lambda count: None, "cpu", 0.0, 10).count
    1
    """
    base = forget(device)
    found: list[Callable[[int], None]] = []

    def begin() -> None:
        found.append(made())
        found[0](1)
        wait(device)

    first = timed(begin)
    (steps,) = found

    def turn(count: int) -> None:
        steps(count)
        wait(device)

    turn(WARM_STEPS)
    each = timed(lambda: turn(WARM_STEPS)) / WARM_STEPS
    count = max(1, min(most, round(turn_seconds / max(each, 1e-9))))
    return Paced(lambda: turn(count), count, peak(device) - base, first)
