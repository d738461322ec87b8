"""Plots of the experiments of *Unmasking the Lottery Ticket Hypothesis*."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotto.landscape.curvature.pruning_limit import EPSILON
from lotto.report import plots

STYLES = {"magnitude": plots.COLOURS["imp"], "random": plots.COLOURS["random"]}


def draw(name: str, means: pd.DataFrame, tolerance: float = 0.0) -> Figure:
    """The plot of an experiment, from the means and spreads of its rows; ``tolerance`` is that of matching levels."""
    drawn: dict[str, Callable[[pd.DataFrame], Figure]] = {
        "connectivity": partial(_connectivity, tolerance),
        "projection": _projection,
        "robustness": _robustness,
        "pruning_limit": _pruning_limit,
        "retraining": _retraining,
        "adaptive": _adaptive,
    }
    return drawn[name](means)


def _connectivity(tolerance: float, means: pd.DataFrame) -> Figure:
    """Error and successive barrier against density for each rewind step; the matrix of barriers for the last.

    Circles: levels that match; of a barrier, both its ends. On the matrix's diagonal they are dots.
    """
    made, (errors, barriers, matrix) = plots.panels(3, 3.2)
    found = means[means["measure"] == "barrier"]
    next_to = found[found["x"] == found["level"] + 1]
    matching: list[int] = []
    for i, (k, part) in enumerate(means[means["measure"] == "error"].groupby("rewind_step")):
        steps = next_to[next_to["rewind_step"] == k]
        dense = float(part[part["level"] == 0]["mean"].iloc[0])
        matching = list(part[part["mean"] <= dense + tolerance + 1e-9]["level"])
        for axis, shown, needed in ((errors, part, ("level",)), (barriers, steps, ("level", "x"))):
            plots.line(axis, shown, "density", f"C{i}", f"k = {k}")
            plots.circle(axis, shown[shown[list(needed)].isin(matching).all(axis=1)], f"C{i}", i == 0)
    for axis, title in ((errors, "test error, points"), (barriers, "barrier to the next level, points")):
        plots.density_axis(axis, list(means["density"].unique()))
        axis.set_title(title, fontsize=10)
    errors.legend(frameon=False, fontsize=9)
    last = found[found["rewind_step"] == found["rewind_step"].max()]
    size = int(last["x"].max()) + 1
    grid = np.full((size, size), np.nan)
    for at in last.to_dict("records"):
        grid[int(at["level"]), int(at["x"])] = grid[int(at["x"]), int(at["level"])] = at["mean"]
    shown = matrix.imshow(grid, cmap="viridis", origin="lower")
    matrix.plot(matching, matching, "o", color=plots.COLOURS["imp"], ms=3)
    matrix.grid(False)
    matrix.set_xlabel("level")
    matrix.set_title(f"barrier between levels, k = {last['rewind_step'].max()}", fontsize=10)
    made.colorbar(shown, ax=matrix, shrink=0.8)
    return made


def _projection(means: pd.DataFrame) -> Figure:
    """Errors of solution, projection and next initialisation, the barrier from the projection, and the planes."""
    planes = [part for _, part in means[means["measure"] == "plane"].groupby(["rewind_step", "level"])]
    made, axes = plots.panels(2 + len(planes), 3.2)
    names = {
        "error": "solution",
        "projection error": "projection",
        "next initialisation error": "next initialisation",
    }
    for i, (measure, label) in enumerate(names.items()):
        found = means[means["measure"] == measure]
        for k, part in found.groupby("rewind_step"):
            several = found["rewind_step"].nunique() > 1
            plots.line(axes[0], part, "density", f"C{i}", f"{label}, k = {k}" if several else label)
    axes[0].set_title("test error, points", fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    barrier = means[means["measure"] == "barrier from the projection"]
    for i, (k, part) in enumerate(barrier.groupby("rewind_step")):
        plots.line(axes[1], part, "density", f"C{i}", f"k = {k}")
    axes[1].set_title("barrier, projection to next solution", fontsize=10)
    for axis in axes[:2]:
        plots.density_axis(axis, list(means["density"].unique()))
    corners = means[means["measure"] == "plane corner"]
    for axis, part in zip(axes[2:], planes, strict=True):
        level, k = part["level"].iloc[0], part["rewind_step"].iloc[0]
        _plane(axis, part, corners[(corners["level"] == level) & (corners["rewind_step"] == k)])
        axis.set_title(f"level {level}: test error", fontsize=10)
    return made


def _plane(axis: Axes, part: pd.DataFrame, corners: pd.DataFrame) -> None:
    grid = part.pivot_table(index="y", columns="x", values="mean")
    low = float(grid.to_numpy().min())
    steps = low + np.geomspace(0.05, max(1.0, float(grid.to_numpy().max()) - low), 12)
    shown = axis.contourf(grid.columns, grid.index, grid.to_numpy(), levels=[low - 1e-9, *steps], cmap="viridis")
    axis.figure.colorbar(shown, ax=axis, shrink=0.8, format="%.1f")
    for mark, at in zip("oxs", corners.to_dict("records"), strict=False):
        axis.plot(at["x"], at["y"], mark, color="white", mec="black", ms=6, label=at["kind"])
    axis.legend(fontsize=7, loc="best")
    axis.set_xlabel("L2 distance")
    axis.grid(False)


def _robustness(means: pd.DataFrame) -> Figure:
    """Barrier and error after training against the length of the perturbation, a line for each rewind step."""
    made, axes = plots.panels(2)
    for axis, measure in zip(axes, ("barrier", "error after training"), strict=True):
        found = means[means["measure"] == measure]
        for i, (k, part) in enumerate(found[found["kind"] == "perturbed"].groupby("rewind_step")):
            plots.line(axis, part, "x", f"C{i}", f"k = {k}")
            noise = found[(found["kind"] == "another order") & (found["rewind_step"] == k)]["mean"]
            if len(noise):
                axis.axhline(float(noise.iloc[0]), color=f"C{i}", ls=":", lw=1)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("length / distance of successive rewind points")
        axis.set_title(f"{measure}, points (dotted: another data order)", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def _pruning_limit(means: pd.DataFrame) -> Figure:
    """Rise of the loss against the share pruned, a panel for each level; vertical lines: the theory, and one cut."""
    levels = sorted(means[means["measure"] == "largest share, theory"]["level"].unique())
    made, axes = plots.panels(len(levels), 3.2)
    for axis, level in zip(axes, levels, strict=True):
        here = means[means["level"] == level]
        for kind, colour in STYLES.items():
            for where, dashes in (("subspace", "-"), ("projection", "--"), ("quadratic", "-.")):
                part = here[(here["kind"] == kind) & (here["measure"] == f"rise of the loss, {where}")]
                part = part[part["rewind_step"] == part["rewind_step"].max()]
                if len(part):
                    plots.line(axis, part, "x", colour, f"{kind}, {where}", ls=dashes)
            theory = here[(here["kind"] == kind) & (here["measure"] == "largest share, theory")]
            axis.axvline(float(theory["mean"].iloc[-1]), color=colour, ls=":", lw=1.5)
        for share in here[here["measure"] == "share to the last level"]["mean"].iloc[-1:]:
            axis.axvline(
                float(share), color=plots.COLOURS["dense"], ls="-", lw=3, alpha=0.4, label="one cut to the end"
            )
        axis.axhline(EPSILON, color=plots.COLOURS["dense"], lw=1)
        axis.set_yscale("symlog", linthresh=EPSILON)
        axis.set_xlabel("share pruned at once (dotted: theory)")
        axis.set_title(f"{100 * here['density'].iloc[0]:.3g} % left: rise of the training loss", fontsize=9)
    names = axes[0].get_legend_handles_labels()
    if len(axes) % 2 and len(axes) > 1:  # in the place that is left over
        made.legend(*names, frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(0.9, 0.15))
    else:
        axes[0].legend(*names, frameon=False, fontsize=8)
    return made


def _retraining(means: pd.DataFrame) -> Figure:
    """Weight magnitudes around a level, the next projection's length, and error with and without retraining."""
    made, (weights, lengths, errors) = plots.panels(3, 3.2)
    bins = means[means["measure"] == "weights in bin"]
    middle = sorted(bins["level"].unique())[len(bins["level"].unique()) // 2]
    for i, kind in enumerate(("before pruning", "after pruning", "after retraining")):
        part = bins[(bins["kind"] == kind) & (bins["level"] == middle)]
        part = part[part["rewind_step"] == part["rewind_step"].min()]
        weights.step(part["x"], part["mean"], where="mid", color=f"C{i}", label=kind, lw=1.5)
    weights.set_xlabel("log10 |w|")
    weights.set_title(f"share of weights, level {middle}", fontsize=10)
    weights.legend(frameon=False, fontsize=8)
    for axis, measure, title in (
        (lengths, "projection length", "length of the next projection, L2"),
        (errors, "error", "test error, points"),
    ):
        for i, (kind, part) in enumerate(means[means["measure"] == measure].groupby("kind", sort=False)):
            part = part[part["rewind_step"] == part["rewind_step"].min()]
            plots.line(axis, part, "density", f"C{i}", {"imp": "IMP"}.get(str(kind), str(kind)))
        plots.density_axis(axis, list(means["density"].unique()))
        axis.set_title(title, fontsize=10)
    errors.legend(frameon=False, fontsize=8)
    return made


def _adaptive(means: pd.DataFrame) -> Figure:
    """Error against density with adaptive and with fixed shares, and how many trainings each takes."""
    made, (errors, counts) = plots.panels(2)
    labels = {"imp": "fixed share", "adaptive": "adaptive"}
    for i, (kind, label) in enumerate(labels.items()):
        part = means[(means["kind"] == kind) & (means["measure"] == "error")]
        for k, of_step in part.groupby("rewind_step"):
            several = part["rewind_step"].nunique() > 1
            plots.line(errors, of_step, "density", f"C{i}", f"{label}, k = {k}" if several else label)
    plots.density_axis(errors, list(means["density"].unique()))
    errors.set_title("test error, points", fontsize=10)
    errors.legend(frameon=False, fontsize=9)
    found = means[means["measure"] == "trainings"]
    for i, kind in enumerate(labels):
        part = found[found["kind"] == kind]
        places = [str(k) for k in part["rewind_step"]]
        counts.bar(
            [j + 0.35 * i for j in range(len(places))], part["mean"], 0.33, yerr=part["std"].fillna(0), color=f"C{i}"
        )
        counts.set_xticks([j + 0.17 for j in range(len(places))], [f"k = {place}" for place in places])
    counts.set_title("trainings to the same density", fontsize=10)
    return made
