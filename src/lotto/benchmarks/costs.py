"""The figure of what a training step costs as fewer weights are left, from the rows of benchmarks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from lotto.benchmarks.convolutions import FLOAT32
from lotto.benchmarks.harness import Row
from lotto.report.plots import figure, svg

LEFT = re.compile(r"(\d+)% left$")
DENSE = ("100% left", FLOAT32)
"""What a step is compared with: that of all weights by ours (perceptrons), or by torch's layers."""


def costs_figure(rows: Sequence[Row]) -> str | None:
    """An ``<svg>`` element with a curve for each network; None if no rows are of densities.

    Args:
        rows: see `run_benchmarks`; those of a density against the dense step are drawn.

    >>> row = {"title": "Net, 5 steps", "what": "5% left", "against": "100% left", "ratio": 4.0}
    >>> "Net" in costs_figure([row])
    True
    """
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if (found := LEFT.match(str(row["what"]))) and row["against"] in DENSE:
            curves[str(row["title"]).partition(",")[0]].append((float(found[1]), 1 / float(row["ratio"])))
    if not curves:
        return None
    made, axes = figure()
    for name, points in curves.items():
        if all(left != 100 for left, _ in points):
            points.append((100.0, 1.0))  # compared with itself
        points.sort()
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.axhline(1, color="#8a8a8a", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1], ["1/20", "1/10", "1/5", "1/2", "1"])
    axes.minorticks_off()
    axes.set_xlim(1.6, 125)
    axes.set_xlabel("weights left")
    axes.set_ylabel("time of a training step, of the dense one's")
    axes.legend(frameon=False)
    return svg(made)
