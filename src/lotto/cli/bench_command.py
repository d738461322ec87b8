"""``lotto bench``: speed and memory."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import console
from lotto.cli.stopping import stopping


def bench(
    names: Positional[tuple[str, ...]] = (),
    /,
    *,
    repetitions: int = 5,
    count: int | None = None,
    out: Path | None = None,
) -> None:
    """Measure speed as ratios within one run, pair by pair.

    Args:
        names: which benchmarks: lenet, resnet, sparse, wide, signals, images, images-bfloat16, deep, deep-bfloat16,
            cut, width, stacked, path, hessian, again, data, replicates, whole, memory (default: all); convolutions is
            signals, images and deep, these in both precisions; paper and levels take a quarter of an hour each, so
            only by name; so do scheduler, what an engine costs for each job, and store, how a large store is read.
        repetitions: interleaved repetitions of each pair.
        count: jobs of scheduler (default: 10,000), entries of store (default: 100,000).
        out: write the table as CSV, and beside it a figure of what a step costs as fewer weights are left.
    """
    from lotto.benchmarks import run_benchmarks

    stopping.unwind()
    run_benchmarks(names, repetitions, console, out, count)
