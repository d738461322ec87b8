"""The table of ways to run a trained ticket."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich import box
from rich.table import Table

from lotto.inference.variants import SPARSE, Variant
from lotto.report.table import percent

NOTHING = "-"


def export_table(variants: Sequence[Variant], density: float, unit: str) -> Table:
    """Ways to run a trained ticket: size, error, time, in float32 and in bfloat16, against the dense network.

    >>> from lotto.inference.variants import Variant
    >>> dense = Variant("dense", kilobytes=90, error=2.0, difference=0.0, milliseconds={1: 0.2})
    >>> compact = Variant("compact", kilobytes=9, error=2.0, difference=1e-6, milliseconds={1: 0.1})
    >>> export_table([dense, compact], density=0.1, unit=" %").row_count
    4
    """
    table = Table(
        title=f"The trained ticket, {percent(density)} of the weights left",
        caption=(
            "dense: pruned weights are zeros; compact: without units that are cut off; sparse: kept weights only, one "
            f"thread, no bfloat16. Times: medians over interleaved turns, here and now, torch with "
            f"{torch.get_num_threads()} thread(s)."
        ),
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for variant in variants:
        table.add_column(variant.name, justify="right")
    for title, cells in _lines(variants, unit).items():
        if any(cell != NOTHING for cell in cells):
            table.add_row(title, *cells)
    return table


def _lines(variants: Sequence[Variant], unit: str) -> dict[str, list[str]]:
    """The cells of a line by its title."""
    first = variants[0].milliseconds
    lines = {
        "memory, kB": [NOTHING if v.kilobytes is None else f"{v.kilobytes:,.0f}" for v in variants],
        "file, kB": [NOTHING if v.file_kilobytes is None else f"{v.file_kilobytes:,.0f}" for v in variants],
        f"test error{unit}": [f"{v.error:.2f}" for v in variants],
        "  in bfloat16": [NOTHING if v.error_bfloat16 is None else f"{v.error_bfloat16:.2f}" for v in variants],
        "largest difference of an output": [f"{v.difference:.1g}" for v in variants],
    }
    for n, dense in first.items():
        lines[f"batch of {n}, ms"] = [_time(v.milliseconds.get(n), dense) for v in variants]
        lines[f"batch of {n} in bfloat16, ms"] = [_time(v.milliseconds_bfloat16.get(n), dense) for v in variants]
    return lines


def _time(milliseconds: float | None, dense: float) -> str:
    return NOTHING if milliseconds is None else f"{milliseconds:.3g} ({dense / milliseconds:.2f}×)"


def what_pays(variants: Sequence[Variant]) -> str:
    """How quick the sparse network is against the quickest other one, and where sparsity does not pay.

    >>> dense = Variant("dense", 90, 2.0, 0.0, {1: 0.2, 64: 8.0}, milliseconds_bfloat16={1: 0.3, 64: 5.0})
    >>> what_pays([dense, Variant("sparse", 9, 2.0, 0.0, {1: 0.25, 64: 2.0})]).split("; ")[1]
    'batches of 64: 4.00× float32, 2.50× bfloat16.'
    """
    sparse = next((variant for variant in variants if variant.name == SPARSE), None)
    if sparse is None:
        return "There is no sparse network: too many weights are left of every layer, or its kind is not understood."
    parts = []
    for n, taken in sparse.milliseconds.items():
        others = {
            "float32": [v.milliseconds[n] for v in variants if v is not sparse],
            "bfloat16": [v.milliseconds_bfloat16[n] for v in variants if n in v.milliseconds_bfloat16],
        }
        ratios = {kind: min(times) / taken for kind, times in others.items() if times}
        said = ", ".join(f"{ratio:.2f}× {kind}" for kind, ratio in ratios.items())
        parts.append(f"batches of {n}: {said}{'' if min(ratios.values()) >= 1 else ', sparsity does not pay'}")
    return f"Sparse against the quickest other network: {'; '.join(parts)}."
