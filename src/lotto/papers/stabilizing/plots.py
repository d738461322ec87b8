"""Plots of the experiments of *Stabilizing the Lottery Ticket Hypothesis*."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lotto.report import plots

AGAINST_DENSITY = ("sparsity", "retraining")
TITLES = {"imp": "IMP", "random": "random mask", "reinit": "new init"}


def draw(name: str, means: pd.DataFrame, tolerance: float = 0.0) -> Figure:
    """The plot of an experiment, from the means and spreads of its rows; none of these marks matching levels."""
    if name in AGAINST_DENSITY:
        return _against_density(means)
    if name == "instability":
        return _against_step(means[means["unit"] == "points"], "measure", "test error or barrier, points", stable=True)
    if name == "oneshot":
        return _against_step(means, "kind", "test error, points")
    if name == "subnetworks":
        return _panels(means, ("error", "points"), ("test barrier, statistics interpolated", "points"))
    if means["rewind_step"].nunique() == 1:
        return _bars(means)
    return _panels(means, ("data order", "L2"), ("pruning", "L2"), ("error", "points"))


def _bars(means: pd.DataFrame) -> Figure:
    """Distances at one rewind step: bars of IMP and random masks, L2 and angle."""
    made, axes = plots.panels(2, 4.2)
    for axis, unit, title in zip(axes, ("L2", "degrees"), ("L2 distance", "angle, degrees"), strict=True):
        for i, kind in enumerate(("imp", "random")):
            found = means[(means["unit"] == unit) & (means["kind"] == kind)]
            at = [j + 0.36 * (i - 0.5) for j in range(len(found))]
            axis.bar(
                at, found["mean"], 0.34, yerr=found["std"].fillna(0), capsize=3, color=plots.COLOURS[kind],
                label={"imp": "IMP", "random": "random mask"}[kind],
            )  # fmt: skip
            axis.set_xticks(range(len(found)), found["measure"])
        axis.set_ylabel(title)
        axis.grid(False, axis="x")
    axes[0].legend(frameon=False)
    return made


def _panels(means: pd.DataFrame, *shown: tuple[str, str]) -> Figure:
    """One panel for each measure, against the rewind step, at the sparsest level: a line for each kind."""
    made, axes = plots.panels(len(shown), 3.2)
    sparse = means[(means["level"] == means["level"].max()) | (means["kind"] == "dense")]
    for axis, (measure, unit) in zip(axes, shown, strict=True):
        found = sparse[(sparse["measure"] == measure) & (sparse["unit"] == unit)]
        for kind, part in found.groupby("kind", sort=False):
            plots.line(axis, part, "rewind_step", plots.COLOURS[str(kind)], TITLES.get(str(kind), str(kind)))
        plots.step_axis(axis)
        axis.set_title(f"{measure.split(',')[0]}, {unit}", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def _against_step(means: pd.DataFrame, by: str, title: str, stable: bool = False) -> Figure:
    made, axis = plots.figure()
    for i, (name, part) in enumerate(means.groupby(by, sort=False)):
        plain = name in ("error of the copies", "dense")
        plots.line(
            axis,
            part,
            "rewind_step",
            plots.COLOURS["dense"] if plain else f"C{i}",
            str(name) if name == "error of the copies" else "dense error" if plain else str(name),
        )
    if stable:
        axis.axhline(2.0, color=plots.COLOURS["dense"], ls=":", lw=1, label="stable below (LMC)")
    plots.step_axis(axis)
    axis.set_ylabel(title)
    axis.legend(frameon=False, fontsize=9)
    return made


def _against_density(means: pd.DataFrame) -> Figure:
    made, axis = plots.figure()
    steps = means["rewind_step"].nunique()
    for i, ((step, kind), part) in enumerate(means.groupby(["rewind_step", "kind"], sort=False)):
        name = TITLES.get(str(kind), str(kind))
        plots.line(axis, part, "density", f"C{i}", f"{name}, k = {step}" if steps > 1 else name)
    plots.density_axis(axis, list(means["density"].unique()))
    axis.set_ylabel("test error, points")
    axis.legend(frameon=False, fontsize=9)
    return made
