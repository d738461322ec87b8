"""Memory of trainings, each in an interpreter of its own: what it takes beyond the data and the libraries."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from loky import ProcessPoolExecutor
from rich.table import Table

from lotto.benchmarks.harness import Row
from lotto.execution.autotune import steps_of
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.loop import learner_of

STEPS = 3


def peak_memory() -> list[Row]:
    """Peak resident memory of a few steps, in MiB: of several networks, alone and stacked."""
    lenet = presets.lenet_mnist_sgd(device="cpu")
    resnet = presets.resnet20_cifar10_fast(device="cpu")
    cases = [
        ("LeNet-300-100, batch of 128", lenet, 1),
        ("4 LeNets stacked", lenet, 4),
        ("8 LeNets stacked", lenet, 8),
        ("784-1024-1024-10", lenet.replace(model="mlp-1024-1024"), 1),
        ("784-4096-4096-10", lenet.replace(model="mlp-4096-4096"), 1),
        ("ResNet-20, batch of 128, bfloat16", resnet, 1),
        ("2 ResNet-20 stacked", resnet, 2),
    ]
    rows: list[Row] = []
    for what, recipe, count in cases:
        with ProcessPoolExecutor(1) as worker:
            base, peak = worker.submit(_peaks, recipe, count).result()
        row = {"benchmark": "memory", "title": "Peak memory of training steps, MiB", "what": what}
        rows.append({**row, "mebibytes": peak - base, "mebibytes_before": base, "per_network": (peak - base) / count})
    return rows


def memory_table(rows: list[Row]) -> Table:
    """The readable table."""
    table = Table(title=str(rows[0]["title"]), caption="before: interpreter, libraries, data")
    for column in ("what", "before", "training", "per network"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row["what"]), *(f"{row[c]:.0f}" for c in ("mebibytes_before", "mebibytes", "per_network")))
    return table


def _peaks(recipe: Recipe, count: int) -> tuple[float, float]:
    """Before and after a few steps."""
    torch.set_num_threads(1)
    recipe.arrays  # noqa: B018 (loads the data)
    jobs = [Job(recipe, i, i) for i in range(count)]
    base = forget_peak()
    steps_of(learner_of(jobs))(STEPS)
    return base, peak_resident()


def forget_peak() -> float:
    """Present resident memory; on Linux the peak, which loading the data has set, begins anew from it."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return peak_resident()
    reset.write_text("5")
    return _status("VmRSS")


def peak_resident() -> float:
    """Most resident memory since then, in MiB."""
    if Path("/proc/self/status").exists():
        return _status("VmHWM")  # the C library's ru_maxrss has the parent's in it
    try:
        import resource
    except ImportError:  # Windows, which has another way, and no library of ours that knows it
        return float("nan")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status(name: str) -> float:
    (line,) = [at for at in Path("/proc/self/status").read_text().splitlines() if at.startswith(name)]
    return int(line.split()[1]) / 1024
