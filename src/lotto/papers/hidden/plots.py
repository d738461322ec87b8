"""Plots of the experiments on what matching hides."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, IMP, RANDOM
from lotto.papers.hidden import measures as m
from lotto.report import plots

SHOWN = {
    m.CHANGED: "test examples predicted differently, %", m.CLASS_RISE: "largest rise of a class's error, points",
    m.CALIBRATION: "expected calibration error, %", m.LOG_LOSS: "negative log-likelihood, nats",
}  # fmt: skip
PERCENT = (m.CHANGED, m.CALIBRATION)


def examples(means: pd.DataFrame, tolerance: float) -> Figure:
    """Changed examples, classes, calibration and likelihood against density; grey and dashed: the dense networks."""
    made, axes = plots.panels(len(SHOWN), 3.0)
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    for axis, (measure, title) in zip(axes, SHOWN.items(), strict=True):
        found = measure.of(means)
        if measure in PERCENT:
            found = found.assign(mean=100 * found["mean"], std=100 * found["std"])
        for kind, label, dashes in ((DENSE, "dense", "-"), (m.OTHER_ORDER, "dense, another data order", "--")):
            for value in found[found["kind"] == kind]["mean"]:
                axis.axhline(value, color=plots.COLOURS["dense"], lw=1, ls=dashes, label=label)
        for kind in (IMP, RANDOM):
            part = found[found["kind"] == kind]
            if len(part):
                plots.line(axis, part, "density", plots.COLOURS[kind], {IMP: "ticket", RANDOM: "random mask"}[kind])
        plots.density_axis(axis, list(found[found["level"] > 0]["density"].unique()))
        plots.error_axis(axis, found["mean"])
        axis.set_title(title, fontsize=9)
    axes[-1].legend(frameon=False, fontsize=8)
    return made
