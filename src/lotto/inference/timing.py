"""Times of calls that are measured in turns, so that their ratios hold also where the machine is busy."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)

TURNS, FEWEST = 45, 7
"""Of each call, and of calls so long that all of them together would take more than `SECONDS`."""
SECONDS = 20.0
LONG_ENOUGH = 0.005
"""Seconds that a call's turn lasts at least: it is made so often."""
FEW = 2
CHANCE = 0.05


def clock_of(threads: int) -> Callable[[], float]:
    """What times calls that use so many threads: of one, the processor's time that the process has had.

    That is the clock's where nothing else runs, and what other processes take from the machine is not in it. Several
    threads overlap, so that only the clock says how long they take.
    """
    return time.process_time if threads == 1 else time.perf_counter


def interleaved(
    calls: Mapping[Name, Callable[[], Any]],
    threads: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Name, list[float]]:
    """Seconds of each call in every turn: those of the quickest of a few, where they are short of many.

    What another process takes from the machine makes a call longer, never shorter; so the quickest of a turn is the
    call's own, and the median over turns is of what remains different.

    Args:
        calls: by name; each is warmed up first.
        threads: that they use, see `clock_of`.
        progress: is given the number of turns done, and of all.
    """
    clock, often, turn_takes = clock_of(threads), {}, 0.0
    for name, made in calls.items():
        made()
        taken = max(1e-7, min(_seconds(made, clock) for _ in range(3)))
        often[name] = max(FEW, math.ceil(LONG_ENOUGH / taken))
        turn_takes += often[name] * taken
    turns = max(FEWEST, min(TURNS, int(SECONDS / max(1e-7, turn_takes))))
    found: dict[Name, list[float]] = {name: [] for name in calls}
    names, began = list(calls), time.perf_counter()
    for turn in range(turns):
        if turn >= FEWEST and time.perf_counter() - began > SECONDS:  # the machine is busy
            break
        progress(turn, turns)
        at = turn % max(1, len(names))  # none always comes after the same neighbour
        for name in names[at:] + names[:at]:
            found[name].append(min(_seconds(calls[name], clock) for _ in range(often[name])))
    return found


def _seconds(made: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    made()
    return clock() - began


def is_quicker(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a call was quicker than another in more turns than chance allows: a one-sided sign test at 5 %.

    >>> is_quicker([1.0] * 7, [2.0] * 7), is_quicker([1.0, 3.0] * 4, [2.0] * 8)
    (True, False)
    """
    wins, losses = (sum(a < b for a, b in zip(*pair, strict=True)) for pair in ((one, other), (other, one)))
    turns = wins + losses
    return wins > losses and sum(math.comb(turns, k) for k in range(wins, turns + 1)) <= CHANCE * 2**turns


def simplest_quickest(times: Mapping[Name, Sequence[float]]) -> Name:
    """The first call than which the one with the least median is not shown to be quicker; see `is_quicker`.

    >>> simplest_quickest({"plain": [2.0, 1.0] * 4, "clever": [1.0, 1.5] * 4, "slow": [3.0] * 8})
    'plain'
    """
    least = min(times, key=lambda name: statistics.median(times[name]))
    return next(name for name, taken in times.items() if name == least or not is_quicker(times[least], taken))
