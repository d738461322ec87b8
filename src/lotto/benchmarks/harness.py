"""How speed is compared: contenders take turns, and the ratio is taken pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from lotto.training.network import flushed_denormals

Contender = Callable[[], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        title: what the table is called.
        contenders: by name; they take turns.
        pairs: (faster, slower, goal): which are compared, and how many times faster the one should be.
        threads: of all contenders; None = all cores.
        replicates: how many a contender trains at once, where more than one: its time is divided by it.

    >>> contenders = {"sum": lambda: sum(range(1000)), "sorted": lambda: sorted(range(1000))}
    >>> Benchmark("Numbers", contenders, [("sum", "sorted", "none")]).pairs
    [('sum', 'sorted', 'none')]
    """

    title: str
    contenders: dict[str, Contender]
    pairs: Sequence[tuple[str, str, str]]
    threads: int | None = None
    replicates: Mapping[str, int] = field(default_factory=dict)


def measure(name: str, benchmark: Benchmark, repetitions: int) -> list[Row]:
    """Let the contenders take turns and compare pairs of them turn by turn.

    Each turn begins with another one: a contender is not always measured after the same neighbour.

    >>> same = Benchmark("The same twice", {"a": lambda: None, "b": lambda: None}, [("a", "b", "none")])
    >>> (row,) = measure("same", same, repetitions=3)
    >>> row["what"], row["against"], row["repetitions"]
    ('a', 'b', 3)
    """
    names = list(benchmark.contenders)
    seconds: dict[str, list[float]] = {c: [] for c in names}
    with flushed_denormals():
        for turn in range(repetitions + 1):
            at = turn % len(names)
            for contender in names[at:] + names[:at]:
                took = timed(benchmark.contenders[contender])
                if turn:
                    seconds[contender].append(took / benchmark.replicates.get(contender, 1))
    return [
        compared(name, benchmark.title, (faster, seconds[faster]), (slower, seconds[slower]), goal)
        for faster, slower, goal in benchmark.pairs
    ]


def compared(name: str, title: str, one: tuple[str, list[float]], other: tuple[str, list[float]], goal: str) -> Row:
    """The row of a comparison.

    Args:
        name: of the benchmark.
        title: of its table.
        one: what, and its seconds turn by turn.
        other: against what, and its seconds in the same turns.
        goal: how many times faster it should be.
    """
    (what, seconds), (against, seconds_against) = one, other
    ratios = [b / a for a, b in zip(seconds, seconds_against, strict=True)]
    return {
        "benchmark": name,
        "title": title,
        "what": what,
        "against": against,
        "seconds": statistics.median(seconds),
        "seconds_against": statistics.median(seconds_against),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "goal": goal,
        "repetitions": len(ratios),
    }


def timed(contender: Contender) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    contender()
    return time.perf_counter() - began


def ratio_table(rows: Sequence[Row]) -> Table:
    """The readable table of one benchmark."""
    table = Table(
        title=str(rows[0]["title"]), caption="times in seconds: medians; faster by: median (min to max) of the turns"
    )
    for column in ("what", "against", "time", "time against", "faster by", "goal"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["what"]),
            str(row["against"]),
            f"{row['seconds']:.3g}",
            f"{row['seconds_against']:.3g}",
            f"{row['ratio']:.2f}× ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
            str(row["goal"]),
        )
    return table


def ignore(result: object) -> None:
    """A contender returns nothing."""
