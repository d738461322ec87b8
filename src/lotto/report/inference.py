"""The table of ways to run a trained ticket."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich import box
from rich.table import Table

from lotto.inference.variants import DENSE, SPARSE, Variant
from lotto.report.table import percent

NAMES = {DENSE: "dense (pruned weights are zeros)", SPARSE: "sparse (kept weights only)"}
"""What variants are called where people read; the others as they are."""
NOTHING = "-"


def export_table(variants: Sequence[Variant], density: float, unit: str) -> Table:
    """Ways to run a trained ticket: size, error, time, in float32 and in bfloat16, against the dense network.

    >>> from lotto.inference.variants import Variant
    >>> dense = Variant("dense", kilobytes=90, error=2.0, difference=0.0, milliseconds={1: 0.2})
    >>> compact = Variant("compact", kilobytes=9, error=2.0, difference=1e-6, milliseconds={1: 0.1})
    >>> export_table([dense, compact], density=0.1, unit=" %").row_count
    2
    """
    table = Table(
        title=f"The trained ticket, {percent(density)} of the weights left",
        caption=(
            "times: medians of interleaved turns, here and now; torch has "
            f"{torch.get_num_threads()} thread(s), the sparse network one and no bfloat16"
        ),
        box=box.SIMPLE_HEAD,
    )
    first, batches = variants[0], list(variants[0].milliseconds)
    times = [title for n in batches for title in (f"batch of {n}, ms", "bfloat16")]
    for title in ("network", "kB", "file, kB", f"error{unit}", "bfloat16", "largest difference", *times):
        table.add_column(title, justify="left" if title == "network" else "right", overflow="fold")
    for variant in variants:
        cells = [
            _time(found.get(n), first.milliseconds[n])
            for n in batches
            for found in (variant.milliseconds, variant.milliseconds_bfloat16)
        ]
        size, half = variant.file_kilobytes, variant.error_bfloat16
        table.add_row(
            NAMES.get(variant.name, variant.name),
            f"{variant.kilobytes:,.0f}",
            NOTHING if size is None else f"{size:,.0f}",
            f"{variant.error:.2f}",
            NOTHING if half is None else f"{half:.2f}",
            f"{variant.difference:.1g}",
            *cells,
        )
    return table


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
