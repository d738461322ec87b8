"""Plots of the experiments on permuted masks."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, ERROR
from lotto.papers.permuted import measures as m
from lotto.report import plots

COLOURS = {
    m.OWN: plots.COLOURS["imp"], m.OTHERS_OWN: "#7aa6c2", m.BY_ACTIVATIONS: "#2a9d5c", m.BY_WEIGHTS: "#8fbf3f",
    m.NAIVE: plots.COLOURS["reinit"],
}  # fmt: skip


def transplant(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error under each mask against density, of the last rewind step."""
    found = ERROR.of(means)
    found = found[found["rewind_step"] == found["rewind_step"].max()]
    dense = found[found["kind"] == DENSE]["mean"].mean()
    return plots.errors_by_kind(found, dense, {kind: (colour, "-", kind) for kind, colour in COLOURS.items()})


def widths(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error at the last level against the width, of the last rewind step; grey: the dense networks."""
    made, axis = plots.figure()
    found = m.WIDTH_ERROR.of(means)
    found = found[found["rewind_step"] == found["rewind_step"].max()]
    plots.line(axis, found[found["level"] == 0], "x", plots.COLOURS["dense"], "dense", ls=":")
    for kind, colour in COLOURS.items():
        part = found[(found["kind"] == kind) & (found["level"] > 0)]
        if len(part):
            plots.line(axis, part, "x", colour, kind)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("width, times the recipe's")
    plots.error_axis(axis, found["mean"])
    axis.set_ylabel("test error, points")
    axis.legend(frameon=False, fontsize=8)
    return made


def barriers(means: pd.DataFrame, tolerance: float) -> Figure:
    """Barriers against density, a panel for each way with BatchNorm's statistics; dashed: connected below."""
    shown = [measure for measure in m.BARRIERS.values() if len(measure.of(means))]
    made, axes = plots.panels(len(shown), 3.4)
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    for axis, measure in zip(axes, shown, strict=True):
        found = measure.of(means)
        for kind, colour in COLOURS.items():
            part = found[found["kind"] == kind]
            if len(part):
                plots.line(axis, part, "density", colour, kind)
        axis.axhline(2 * tolerance, color=plots.COLOURS["dense"], ls="--", lw=1)
        plots.density_axis(axis, list(found["density"].unique()))
        axis.set_title(f"{measure.name}, points", fontsize=9)
    axes[0].legend(frameon=False, fontsize=8)
    return made
