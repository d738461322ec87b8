"""The plot of the experiment of *Rigging the Lottery*."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, ERROR, IMP
from lotto.papers.rigging import measures as m
from lotto.report import plots

PANELS = {
    ERROR: "test error, points",
    m.EXPLORED: "weights ever kept",
    m.EMPTY: "channels without weights",
    m.ARITHMETIC: "multiplications, of a dense training",
}
KINDS = (
    m.STATIC, m.SET, m.SET_EXPLORING, m.SET_FEWER, m.RIGL, m.RIGL_EXPLORING, m.RIGL_FEWER, m.GRADUAL, IMP,
)  # fmt: skip
TITLES = {
    IMP: "IMP, rewound",
    m.SET: "SET",
    m.RIGL: "RigL",
    m.SET_EXPLORING: "SET, exploring",
    m.SET_FEWER: "SET, fewer at once",
    m.RIGL_FEWER: "RigL, fewer at once",
    m.RIGL_EXPLORING: "RigL, exploring",
}


def dynamic(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error, weights explored, empty channels and arithmetic against density, a line for each kind of training.

    Dotted: the dense network's error and the tolerance above it.
    """
    made, axes = plots.panels(len(PANELS), 3.6)
    dense = ERROR.of(means[means["kind"] == DENSE])["mean"].mean()
    for axis, (measure, title) in zip(axes, PANELS.items(), strict=True):
        found = measure.of(means)
        found = found[(found["level"] > 0) & (found["rewind_step"] == found["rewind_step"].min())]
        for number, kind in enumerate(KINDS):
            part = found[found["kind"] == kind]
            if len(part):
                plots.line(axis, part, "density", f"C{number}", TITLES.get(kind, kind))
        plots.density_axis(axis, sorted(found["density"].unique()))
        if len(found) and measure in (ERROR, m.ARITHMETIC):
            plots.error_axis(axis, found["mean"])
        axis.set_ylabel(title)
    axes[0].axhline(dense + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":", label="dense + tolerance")
    axes[0].legend(frameon=False, fontsize=8)
    return made
