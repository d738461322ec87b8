"""Plots of the experiments on what matching hides."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, IMP, RANDOM, Kind
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


ARMS: dict[Kind, tuple[str, str]] = {
    DENSE: (plots.COLOURS["dense"], "dense"), IMP: (plots.COLOURS["imp"], "ticket"),
    m.NARROW: (plots.COLOURS["random"], "narrower dense network"),
}  # fmt: skip


def budget(means: pd.DataFrame, tolerance: float) -> Figure:
    """Errors at the best rate against the number of parameters, and errors against the rate at the last level."""
    made, (by_size, by_rate) = plots.panels(2, 3.4)
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    tuned, rates = m.TUNED_ERROR.of(means), m.RATE_ERROR.of(means)
    sizes = m.PARAMETERS.of(means).set_index(["kind", "level"])["mean"].rename("parameters")
    tuned = tuned.join(sizes, on=["kind", "level"])
    for kind, (colour, label) in ARMS.items():
        part, at_rate = tuned[tuned["kind"] == kind], rates[rates["kind"] == kind]
        plots.line(by_size, part.sort_values("parameters"), "parameters", colour, label)
        plots.line(by_rate, at_rate[at_rate["level"] == at_rate["level"].max()], "x", colour, label)
    by_size.set_xscale("log")
    by_size.set_xlabel("parameters")
    by_rate.set_xscale("log", base=2)
    by_rate.set_xlabel("learning rate, times the recipe's")
    by_size.set_title("test error at the best rate, points", fontsize=10)
    by_rate.set_title("test error by rate, last level, points", fontsize=10)
    for axis, found in ((by_size, tuned), (by_rate, rates)):
        plots.error_axis(axis, found["mean"])
    by_size.legend(frameon=False, fontsize=8)
    return made


ELSEWHERE: dict[Kind, tuple[str, str]] = {
    m.OWN: (plots.COLOURS["imp"], "-"), m.MOVED: (plots.COLOURS["reinit"], "-"),
    m.MASK: (plots.COLOURS["reinit"], "--"), RANDOM: (plots.COLOURS["random"], "-"),
}  # fmt: skip


def moved(means: pd.DataFrame, tolerance: float) -> Figure:
    """Errors where tickets are moved to against density, a panel for each place; grey: the dense network there."""
    shown = [measure for measure in m.MOVED_ERRORS.values() if len(measure.of(means))]
    made, axes = plots.panels(len(shown), 3.4)
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    for axis, measure in zip(axes, shown, strict=True):
        found = measure.of(means)
        axis.axhline(found[found["kind"] == DENSE]["mean"].mean(), color=plots.COLOURS["dense"], lw=1, label="dense")
        for kind, (colour, dashes) in ELSEWHERE.items():
            plots.line(axis, found[found["kind"] == kind], "density", colour, str(kind), ls=dashes)
        plots.density_axis(axis, list(found[found["level"] > 0]["density"].unique()))
        plots.error_axis(axis, found["mean"])
        axis.set_title(f"{measure.name}, points", fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    return made
