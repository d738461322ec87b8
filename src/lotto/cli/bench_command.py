"""``lotto bench``: speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lotto.cli.screen import console
from lotto.cli.stopping import stopping

REPETITIONS = 5
GPU_SECONDS = 9 * 60.0
"""A card is often lent for ten minutes."""


def bench(
    names: Positional[tuple[str, ...]] = (),
    /,
    *,
    repetitions: int = REPETITIONS,
    count: int | None = None,
    out: Path | None = None,
    device: str | None = None,
    for_: Annotated[str | None, arg(name="for")] = None,
) -> None:
    """Measure speed as ratios within one run, pair by pair.

    Args:
        names: which benchmarks: lenet, resnet, sparse, wide, signals, images, images-bfloat16, deep, deep-bfloat16,
            threads, cut, dynamic, width, stacked, path, hessian, again, data, replicates, whole, memory (default: all);
            convolutions is signals, images and deep, these in both precisions; paper and levels take a quarter of an
            hour each, so only by name; so do scheduler, what an engine costs for each job, and store, how a large store
            is read; gpu measures a graphics card in ten minutes (docs/gpu.md), by itself.
        repetitions: interleaved repetitions of each pair.
        count: jobs of scheduler (default: 10,000), entries of store (default: 100,000).
        out: write the table as CSV, and beside it a figure of what a step costs as fewer weights are left; of gpu, the
            JSON file where every row is written at once and from which a rerun goes on (default: lotto-gpu.json).
        device: of gpu: cuda (default), cuda:1; cpu shows that all of it runs, with tiny sizes.
        for_: of gpu: stop cleanly after so long (default: 9min) with exit code 75; the same command goes on.
    """
    from lotto.core.errors import UsageError
    from lotto.core.seconds import seconds_of

    if "gpu" not in names:
        from lotto.benchmarks import run_benchmarks

        if device is not None or for_ is not None:
            raise UsageError("--device and --for are options of lotto bench gpu; the others run on the processor.")
        stopping.unwind()
        run_benchmarks(names, repetitions, console, out, count)
        return
    from lotto.benchmarks.gpu.campaign import run_gpu_benchmarks

    if len(names) > 1 or count is not None or repetitions != REPETITIONS:
        raise UsageError("gpu is measured by itself, in its own way: lotto bench gpu [--out FILE.json] [--for 9min].")
    stopping.unwind(GPU_SECONDS if for_ is None else seconds_of(for_))
    run_gpu_benchmarks(console, out or Path("lotto-gpu.json"), device or "cuda")
