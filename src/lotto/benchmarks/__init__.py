"""Speed as ratios within one run, and memory; see `harness` for how and `baselines` for what lotto is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from lotto.benchmarks.analyses import hessian, path, products, signal_path
from lotto.benchmarks.changing_masks import rigl
from lotto.benchmarks.commands import again, levels_by_kernels, paper, replicates, whole
from lotto.benchmarks.convolutions import deep, deep_in_bfloat16, images, images_in_bfloat16, signals, threads
from lotto.benchmarks.costs import costs_figure
from lotto.benchmarks.harness import Benchmark, Row, measure, ratio_table
from lotto.benchmarks.loaders import data
from lotto.benchmarks.many_entries import large_store, large_store_table
from lotto.benchmarks.memory import memory_table, peak_memory
from lotto.benchmarks.overheads import scheduler, scheduler_table
from lotto.benchmarks.steps import cut, lenet, resnet, sparse, stacked, wide, width
from lotto.core import files
from lotto.core.errors import UsageError, unknown
from lotto.execution.factory import available_cores
from lotto.execution.memory import keep_freed_memory
from lotto.execution.threads import limited_threads

__all__ = ["BENCHMARKS", "Benchmark", "measure", "run_benchmarks"]

BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "lenet": lenet,
    "resnet": resnet,
    "sparse": sparse,
    "wide": wide,
    "signals": signals,
    "images": images,
    "images-bfloat16": images_in_bfloat16,
    "deep": deep,
    "deep-bfloat16": deep_in_bfloat16,
    "threads": threads,
    "dynamic": rigl,
    "cut": cut,
    "path": path,
    "hessian": hessian,
    "products": products,
    "signal-path": signal_path,
    "again": again,
    "data": data,
    "stacked": stacked,
    "width": width,
    "replicates": replicates,
    "whole": whole,
}
OTHERS: dict[str, tuple[Callable[[], list[Row]], Callable[[list[Row]], Table]]] = {
    "memory": (peak_memory, memory_table),
    "paper": (paper, ratio_table),
    "levels": (levels_by_kernels, ratio_table),
}
"""What has its own way to measure, and its table."""
COUNTED: dict[str, tuple[Callable[[int | None], list[Row]], Callable[[list[Row]], Table]]] = {
    "scheduler": (scheduler, scheduler_table),
    "store": (large_store, large_store_table),
}
"""What is measured with so many of something, how, and its table."""
GROUPS = {"convolutions": ("signals", "images", "images-bfloat16", "deep", "deep-bfloat16")}
"""Names of several."""
ONLY_BY_NAME = ("paper", "levels", *COUNTED)
"""They take a quarter of an hour each, about."""


def run_benchmarks(
    names: Sequence[str], repetitions: int, console: Console, out: Path | None = None, count: int | None = None
) -> pd.DataFrame:
    """Run benchmarks and print their ratios.

    Args:
        names: keys of `BENCHMARKS`, `OTHERS`, `COUNTED` or `GROUPS`; empty for all but those of `ONLY_BY_NAME`.
        repetitions: how often each contender runs; they take turns, after one uncounted turn.
        console: where the tables go.
        out: a CSV file for the rows; beside it a figure of what a step costs at each density, if that was measured.
        count: of what those of `COUNTED` are measured with; None = as many as each says.

    Returns:
        One row per comparison: what against what, seconds of both (medians), ratio (median, min, max), goal.

    Raises:
        UsageError: for an unknown name; lists the choices.

    >>> run_benchmarks(["unknown"], 1, Console())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lotto.core.errors.UsageError: Unknown benchmark 'unknown'. ...
    """
    known = [*BENCHMARKS, *OTHERS, *COUNTED, *GROUPS]  # beside gpu, see `lotto.benchmarks.gpu`
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, [*known, "gpu"])
    if repetitions < 1:
        raise UsageError(f"repetitions is 1 or more; got {repetitions}.")
    if count is not None and (count < 1 or not set(names) & set(COUNTED)):
        raise UsageError(f"count is 1 or more, and of {', '.join(COUNTED)}; got {count} with {list(names)}.")
    keep_freed_memory()  # as lotto's workers do; all contenders gain alike
    rows: list[Row] = []
    single = [name for given in names for name in GROUPS.get(given, (given,))]
    for name in single or [n for n in (*BENCHMARKS, *OTHERS) if n not in ONLY_BY_NAME]:
        if name in OTHERS or name in COUNTED:
            measured, table = OTHERS[name] if name in OTHERS else _counted(name, count)
            with limited_threads(available_cores()), console.status(f"measuring {name}"):
                rows += (found := measured())
            console.print(table(found))
            continue
        benchmark = BENCHMARKS[name]()
        with limited_threads(benchmark.threads or available_cores()), console.status(f"measuring {name}"):
            rows += (found := measure(name, benchmark, repetitions))
        console.print(ratio_table(found))
    frame = pd.DataFrame(rows)
    if out is not None:
        files.write_text(out, frame.to_csv(index=False))
        if (drawn := costs_figure(rows)) is not None:
            files.write_text(out.with_suffix(".svg"), drawn)
    return frame


def _counted(name: str, count: int | None) -> tuple[Callable[[], list[Row]], Callable[[list[Row]], Table]]:
    measured, table = COUNTED[name]
    return partial(measured, count), table
