"""Plots of the experiments of *Stabilizing the Lottery Ticket Hypothesis*: from means and spreads of rows.

None of them marks the levels that match within the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotto.experiments.measures import (
    DEGREES,
    DENSE,
    ERROR,
    IMP,
    L2,
    LAST_QUARTER,
    POINTS,
    RANDOM,
    RECOMPUTED_TEST_BARRIER,
    REINIT,
    TEST_BARRIER,
    Measure,
)
from lotto.landscape.stability import STABLE
from lotto.papers.stabilizing import measures as m
from lotto.report import plots

TITLES = {IMP: "IMP", RANDOM: "random mask", REINIT: "new init"}


def distances(means: pd.DataFrame, tolerance: float) -> Figure:
    """Distances and error against the rewind step, or as bars if there is only one."""
    if means["rewind_step"].nunique() == 1:
        return _bars(means)
    return _panels(means, m.DATA_ORDER, m.PRUNING, ERROR)


def subnetworks(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error and barrier of subnetworks against the rewind step."""
    recomputed = [RECOMPUTED_TEST_BARRIER] if len(RECOMPUTED_TEST_BARRIER.of(means)) else []
    made = _panels(means, ERROR, TEST_BARRIER, *recomputed)
    for axis, measure in zip(made.axes[1:], (TEST_BARRIER, *recomputed), strict=False):
        _thresholds(axis, tolerance)
        axis.set_title(f"{measure.name}, points", fontsize=10)
    return made


def instability(means: pd.DataFrame, tolerance: float) -> Figure:
    """Barriers of the dense network and the error of its copies against the rewind step."""
    grey = {m.ERROR_OF_COPIES.name: m.ERROR_OF_COPIES.name}
    shown = means[(means["unit"] == POINTS) & (means["measure"] != LAST_QUARTER.name)]
    made = _against_step(shown, "measure", grey, "test error or barrier, points")
    _thresholds(made.axes[0], tolerance)
    made.axes[0].legend(frameon=False, fontsize=9)
    return made


def oneshot(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error after one cut and after several against the rewind step."""
    return _against_step(ERROR.of(means), "kind", {DENSE: "dense error"}, "test error, points")


def against_density(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error against density: a colour for each rewind step, from early to late, a dash for each kind of network.

    Around IMP lie the bounds of its paired gap, where they are known, so that a level matches where its band is below
    the dotted line; elsewhere bars of one standard deviation.

    The grey lines are the dense network's mean error, and the tolerance above it. The error axis is logarithmic where
    some networks err many times as often as others.
    """
    made, axis = plots.figure()
    means = ERROR.of(means)
    dense = means[means["level"] == 0]["mean"].mean()
    axis.axhline(dense, color=plots.COLOURS["dense"], lw=1, label="dense")
    axis.axhline(dense + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":", label="dense + tolerance")
    steps, kinds, notes = sorted(means["rewind_step"].unique()), list(means["kind"].unique()), {}
    for (step, kind), part in means.groupby(["rewind_step", "kind"], sort=False):
        number = kinds.index(kind)
        colour = plots.ramp(steps.index(step), len(steps)) if len(steps) > 1 else f"C{number}"
        name = TITLES.get(kind, kind)
        label = f"{name}, k = {step}" if len(steps) > 1 else name
        bounded = kind == IMP and "gap_high" in part and bool(part["gap_high"].notna().any())
        if bounded:
            ends = [part["mean"] + part[end] - part["gap"] for end in ("gap_low", "gap_high")]
            axis.fill_between(part["density"], *ends, color=colour, alpha=0.18, lw=0)
            if "verdict" in part:
                notes[label] = [_gap_and_verdict(row) for row in part.to_dict("records")]
        shown = part.assign(std=0.0) if bounded else part
        plots.line(axis, shown, "density", colour, label, ls=plots.DASHES[number % len(plots.DASHES)])
    plots.density_axis(axis, list(means["density"].unique()))
    plots.error_axis(axis, means["mean"])
    axis.set_ylabel("test error, points")
    axis.legend(frameon=False, fontsize=8, ncols=2 if len(steps) > 2 else 1)
    made.notes = notes
    return made


def _gap_and_verdict(row: Mapping[str, Any]) -> str:
    """What is said of a level of IMP beside its error."""
    if row["level"] == 0:
        return ""
    return f"gap {row['gap']:+.2f} ± {row['gap_high'] - row['gap']:.2f}, {row['verdict']}"


def _bars(means: pd.DataFrame) -> Figure:
    """Distances at one rewind step: bars of IMP and random masks, L2 and angle."""
    made, axes = plots.panels(2, 4.2)
    for axis, unit, title in zip(axes, (L2, DEGREES), ("L2 distance", "angle, degrees"), strict=True):
        for i, kind in enumerate((IMP, RANDOM)):
            found = means[(means["unit"] == unit) & (means["kind"] == kind)]
            at = [j + 0.36 * (i - 0.5) for j in range(len(found))]
            axis.bar(
                at, found["mean"], 0.34, yerr=found["std"].fillna(0), capsize=3, color=plots.COLOURS[kind],
                label=TITLES[kind],
            )  # fmt: skip
            axis.set_xticks(range(len(found)), found["measure"])
        axis.set_ylabel(title)
        axis.grid(False, axis="x")
    axes[0].legend(frameon=False)
    return made


def _panels(means: pd.DataFrame, *shown: Measure) -> Figure:
    """One panel for each measure, against the rewind step, at the sparsest level: a line for each kind."""
    made, axes = plots.panels(len(shown), 3.2)
    sparse = means[(means["level"] == means["level"].max()) | (means["kind"] == DENSE)]
    for axis, measure in zip(axes, shown, strict=True):
        for kind, part in measure.of(sparse).groupby("kind", sort=False):
            plots.line(axis, part, "rewind_step", plots.COLOURS[kind], TITLES.get(kind, kind))
        plots.step_axis(axis)
        axis.set_title(f"{measure.name.split(',')[0]}, {measure.unit}", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def _thresholds(axis: Axes, tolerance: float) -> None:
    """LMC's threshold of a stable network, and that of a connected path, which is of re-estimated statistics."""
    axis.axhline(STABLE, color=plots.COLOURS["dense"], ls=":", lw=1, label="stable below (LMC)")
    axis.axhline(2 * tolerance, color=plots.COLOURS["dense"], ls="--", lw=1, label="connected below (2 × tolerance)")


def _against_step(means: pd.DataFrame, by: str, grey: Mapping[str, str], title: str) -> Figure:
    """A line for each value of a column, against the rewind step; ``grey``: labels of those that are no colour."""
    made, axis = plots.figure()
    for i, (name, part) in enumerate(means.groupby(by, sort=False)):
        colour = plots.COLOURS["dense"] if name in grey else f"C{i}"
        plots.line(axis, part, "rewind_step", colour, grey.get(name, name))
    plots.step_axis(axis)
    axis.set_ylabel(title)
    axis.legend(frameon=False, fontsize=9)
    return made
