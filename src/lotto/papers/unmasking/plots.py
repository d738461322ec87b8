"""Plots of the experiments of *Unmasking the Lottery Ticket Hypothesis*: from means and spreads of rows.

``tolerance`` is that of matching levels, which only some of them mark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotto.experiments.measures import (
    BARRIER,
    DENSE,
    ERROR,
    IMP,
    LIMIT,
    PLANE,
    PLANE_CORNER,
    PRUNING_DISTANCE,
    RANDOM,
    WEIGHTS_IN_BIN,
)
from lotto.landscape.curvature.pruning_limit import EPSILON
from lotto.papers.unmasking import measures as m
from lotto.report import plots

STYLES = {m.MAGNITUDE: plots.COLOURS["imp"], RANDOM: plots.COLOURS["random"]}


def connectivity(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error and successive barrier against density for each rewind step; the matrix of barriers for the last.

    Circles: levels that match; of a barrier, both its ends. On the matrix's diagonal they are dots.
    """
    made, (errors, barriers, matrix) = plots.panels(3, 3.2)
    found = BARRIER.of(means[means["kind"] == IMP])
    next_to = found[found["x"] == found["level"] + 1]
    others = {
        "statistics re-estimated": ("--", m.RECOMPUTED_BARRIER.of(means[means["kind"] == IMP])),
        "nested random masks": (":", BARRIER.of(means[means["kind"] == RANDOM])),
    }
    matching: list[int] = []
    for i, (k, part) in enumerate(ERROR.of(means).groupby("rewind_step")):
        steps = next_to[next_to["rewind_step"] == k]
        for label, (dashes, rows) in others.items():
            beside = rows[(rows["rewind_step"] == k) & (rows["x"] == rows["level"] + 1)]
            if len(beside):
                plots.line(barriers, beside, "density", f"C{i}", label if i == 0 else "_", ls=dashes)
        dense = float(part[part["level"] == 0]["mean"].iloc[0])
        matching = list(part[part["mean"] <= dense + tolerance + 1e-9]["level"])
        for axis, shown, needed in ((errors, part, ("level",)), (barriers, steps, ("level", "x"))):
            plots.line(axis, shown, "density", f"C{i}", f"k = {k}")
            plots.circle(axis, shown[shown[list(needed)].isin(matching).all(axis=1)], f"C{i}", i == 0)
    for axis, title in ((errors, "test error, points"), (barriers, "barrier to the next level, points")):
        plots.density_axis(axis, list(means["density"].unique()))
        axis.set_title(title, fontsize=10)
    barriers.axhline(2 * tolerance, color=plots.COLOURS["dense"], lw=1, label="connected below (2 × tolerance)")
    barriers.legend(*_named(barriers, "k = "), frameon=False, fontsize=7)
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


def _named(axis: Axes, without: str) -> tuple[list[Any], list[str]]:
    """Handles and labels of a legend, without those that begin so: another panel has them."""
    kept = [(h, label) for h, label in zip(*axis.get_legend_handles_labels(), strict=True) if without not in label]
    return [h for h, _ in kept], [label for _, label in kept]


def projection(means: pd.DataFrame, tolerance: float) -> Figure:
    """Errors of solution, projection and next initialisation, the barrier from the projection, and the planes."""
    planes = [part for _, part in PLANE.of(means).groupby(["rewind_step", "level"])]
    made, axes = plots.panels(2 + len(planes), 3.2)
    names = (
        ("solution", ERROR, None),
        ("projection", m.PROJECTION_ERROR, m.RECOMPUTED_PROJECTION_ERROR),
        ("next initialisation", m.NEXT_INITIALISATION_ERROR, m.RECOMPUTED_NEXT_INITIALISATION_ERROR),
    )
    for i, (label, measure, recomputed) in enumerate(names):
        found = measure.of(means)
        for k, part in found.groupby("rewind_step"):
            several = found["rewind_step"].nunique() > 1
            plots.line(axes[0], part, "density", f"C{i}", f"{label}, k = {k}" if several else label)
        for _, part in () if recomputed is None else recomputed.of(means).groupby("rewind_step"):
            plots.line(axes[0], part, "density", f"C{i}", "_", ls="--")
    axes[0].legend(frameon=False, fontsize=8)
    for i, (k, part) in enumerate(m.PROJECTION_BARRIER.of(means).groupby("rewind_step")):
        plots.line(axes[1], part, "density", f"C{i}", f"k = {k}")
    recomputed = m.RECOMPUTED_PROJECTION_BARRIER.of(means)
    for i, (_, part) in enumerate(recomputed.groupby("rewind_step")):
        plots.line(axes[1], part, "density", f"C{i}", "_", ls="--")
    dashed = " (dashed: statistics re-estimated)" if len(recomputed) else ""
    axes[0].set_title(f"test error, points{dashed}", fontsize=10 if not dashed else 8)
    axes[1].set_title("barrier, projection to next solution", fontsize=10)
    for axis in axes[:2]:
        plots.density_axis(axis, list(means["density"].unique()))
    corners = PLANE_CORNER.of(means)
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


def robustness(means: pd.DataFrame, tolerance: float) -> Figure:
    """Barrier and error after training against the length of the perturbation, a line for each rewind step."""
    recomputed = [m.RECOMPUTED_BARRIER] if len(m.RECOMPUTED_BARRIER.of(means)) else []
    measures = (BARRIER, m.ERROR_AFTER_TRAINING, *recomputed)
    made, axes = plots.panels(len(measures))
    for axis, measure in zip(axes, measures, strict=True):
        found = measure.of(means)
        for i, (k, part) in enumerate(found[found["kind"] == m.PERTURBED].groupby("rewind_step")):
            plots.line(axis, part, "x", f"C{i}", f"k = {k}")
            noise = found[(found["kind"] == m.ANOTHER_ORDER) & (found["rewind_step"] == k)]["mean"]
            if len(noise):
                axis.axhline(float(noise.iloc[0]), color=f"C{i}", ls=":", lw=1)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("length / distance of successive rewind points")
        axis.set_title(f"{measure.name}, points (dotted: another data order)", fontsize=10 if len(axes) < 3 else 8)
        if measure != m.ERROR_AFTER_TRAINING:
            axis.axhline(2 * tolerance, color=plots.COLOURS["dense"], lw=1, label="connected below (2 × tolerance)")
    axes[0].legend(frameon=False, fontsize=9)
    return made


def pruning_limit(means: pd.DataFrame, tolerance: float) -> Figure:
    """Rise of the loss against the fraction pruned, a panel for each level, with vertical lines for the theory.

    Where the theory's distances were measured, a second panel for each level: how far pruning moves the weights against
    how far the theory lets them go. The limit is where the lines cross.
    """
    levels = sorted(m.LARGEST_FRACTION[m.SUBSPACE].of(means)["level"].unique())
    distances = pd.concat([measure.of(means) for measure in PRUNING_DISTANCE.values()])
    drawn = [level for level in levels if level in set(distances["level"])]
    made, axes = plots.panels(len(levels) + len(drawn), 3.2)
    for axis, level in zip(axes, levels, strict=False):
        _rises(axis, means[means["level"] == level])
    for axis, level in zip(axes[len(levels) :], drawn, strict=True):
        _distances(axis, distances[distances["level"] == level])
    names = axes[0].get_legend_handles_labels()
    if len(axes) % 2 and len(axes) > 1:  # in the place that is left over
        made.legend(*names, frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(0.9, 0.15))
    else:
        axes[0].legend(*names, frameon=False, fontsize=6)
    if drawn:
        axes[len(levels)].legend(frameon=False, fontsize=6)
    return made


def _rises(axis: Axes, here: pd.DataFrame) -> None:
    for kind, colour in STYLES.items():
        of_kind = here[here["kind"] == kind]
        for how, dashes in ((m.SUBSPACE, "-"), (m.PROJECTION, "--"), (m.QUADRATIC, "-.")):
            part = m.RISE[how].of(of_kind)
            part = part[part["rewind_step"] == part["rewind_step"].max()]
            if len(part):
                plots.line(axis, part, "x", colour, f"{kind}, {how}", ls=dashes)
        for how, dashes in ((m.THEORY, ":"), (m.THEORIES["published"], ":"), (m.THEORIES["corrected"], "-.")):
            for value in m.LARGEST_FRACTION[how].of(of_kind)["mean"].dropna().iloc[-1:]:
                axis.axvline(float(value), color=colour, ls=dashes, lw=1.5)
    for end in m.FRACTION_TO_LAST.of(here)["mean"].iloc[-1:]:
        axis.axvline(float(end), color=plots.COLOURS["dense"], ls="-", lw=3, alpha=0.4, label="one cut to the end")
    axis.axhline(EPSILON, color=plots.COLOURS["dense"], lw=1)
    axis.set_yscale("symlog", linthresh=EPSILON)
    axis.set_xlabel("share pruned at once (dotted: theory, -.: corrected)")
    axis.set_title(f"{100 * here['density'].iloc[0]:.3g} % left: rise of the training loss", fontsize=9)


def _distances(axis: Axes, here: pd.DataFrame) -> None:
    last = here[here["rewind_step"] == here["rewind_step"].max()]
    for (reading, measure), dashes in zip(PRUNING_DISTANCE.items(), ("-", "-."), strict=True):
        for kind, colour in (*STYLES.items(), (LIMIT, plots.COLOURS["dense"])):
            part = measure.of(last[last["kind"] == kind])
            if len(part):
                label = "allowed by theory" if kind == LIMIT else f"moved by {kind}"
                axis.plot(part["x"], part["mean"], color=colour, ls=dashes, lw=1.5, label=f"{label}, {reading}")
    moved = last[last["kind"] != LIMIT]["mean"].max()
    axis.set_ylim(0, 1.3 * moved)  # little pruning may go very far
    axis.set_xlabel("share pruned at once")
    axis.set_title(f"{100 * here['density'].iloc[0]:.3g} % left: distance R, L2", fontsize=9)


def flatness(means: pd.DataFrame, tolerance: float) -> Figure:
    """Normalised mean curvature against density, and the largest random share against it, for each rewind step."""
    made, (sharp, shares) = plots.panels(2)
    for i, (k, part) in enumerate(m.SHARPNESS.of(means).groupby("rewind_step")):
        plots.line(sharp, part, "density", f"C{i}", f"k = {k}")
        largest = m.HALVED_FRACTION.of(means[means["rewind_step"] == k]).set_index("level")["mean"]
        both = part.set_index("level")["mean"]
        shares.plot(both, largest.reindex(both.index), "o", color=f"C{i}", ms=4, label=f"k = {k}")
    plots.density_axis(sharp, list(means["density"].unique()))
    sharp.set_title("trace(H) |w|² / D", fontsize=10)
    sharp.set_yscale("log")
    shares.set_xscale("log")
    shares.set_xlabel("trace(H) |w|² / D")
    shares.set_title("largest share of random pruning, a dot a level", fontsize=10)
    sharp.legend(frameon=False, fontsize=9)
    return made


def flat_directions(means: pd.DataFrame, tolerance: float) -> Figure:
    """Curvature along what is pruned, and on average over it, against density: magnitude, random, all weights."""
    made, axes = plots.panels(2)
    last = means[means["rewind_step"] == means["rewind_step"].max()]
    for axis, measure, title in (
        (axes[0], m.ALONG, "curvature along the pruned weights"),
        (axes[1], m.BLOCK, "mean curvature of the pruned weights"),
    ):
        for kind, colour in {**STYLES, m.ALL: plots.COLOURS["dense"]}.items():
            part = measure.of(last[last["kind"] == kind])
            plots.line(axis, part, "density", colour, str(kind))
        plots.density_axis(axis, list(means["density"].unique()))
        axis.set_title(title, fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def membership(means: pd.DataFrame, tolerance: float) -> Figure:
    """How far the line to the next subspace rises, for each rewind step and a random subspace; the level's error."""
    made, (losses, errors, reached) = plots.panels(3, 3.2)
    for axis, plain, again, title in (
        (losses, m.RISE_TO_SUBSPACE, m.RECOMPUTED_RISE_TO_SUBSPACE, "rise of the training loss on the way"),
        (errors, m.ERROR_RISE_TO_SUBSPACE, m.RECOMPUTED_ERROR_RISE_TO_SUBSPACE, "rise of the test error, points"),
    ):
        found = again.of(means) if len(again.of(means)) else plain.of(means)
        for i, (k, of_step) in enumerate(found.groupby("rewind_step")):
            for kind, dashes in ((IMP, "-"), (RANDOM, ":")):
                plots.line(axis, of_step[of_step["kind"] == kind], "density", f"C{i}", f"k = {k}, {kind}", ls=dashes)
        axis.set_title(title, fontsize=10)
    losses.axhline(EPSILON, color=plots.COLOURS["dense"], lw=1)
    errors.axhline(2 * tolerance, color=plots.COLOURS["dense"], lw=1)
    of_levels = ERROR.of(means)
    for i, (k, part) in enumerate(of_levels[of_levels["kind"] == IMP].groupby("rewind_step")):
        plots.line(reached, part, "density", f"C{i}", f"k = {k}")
    dense = of_levels[of_levels["kind"] == DENSE]["mean"].mean()
    reached.axhline(dense + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":")
    reached.set_title("test error of the level, points", fontsize=10)
    for axis in (losses, errors, reached):
        plots.density_axis(axis, list(means["density"].unique()))
    losses.legend(frameon=False, fontsize=7)
    return made


def retraining(means: pd.DataFrame, tolerance: float) -> Figure:
    """Weight magnitudes around a level, the next projection's length, and error with and without retraining."""
    made, (weights, lengths, errors) = plots.panels(3, 3.2)
    bins = WEIGHTS_IN_BIN.of(means)
    middle = sorted(bins["level"].unique())[len(bins["level"].unique()) // 2]
    for i, kind in enumerate((m.BEFORE_PRUNING, m.AFTER_PRUNING, m.AFTER_RETRAINING)):
        part = bins[(bins["kind"] == kind) & (bins["level"] == middle)]
        part = part[part["rewind_step"] == part["rewind_step"].min()]
        weights.step(part["x"], part["mean"], where="mid", color=f"C{i}", label=kind, lw=1.5)
    weights.set_xlabel("log10 |w|")
    weights.set_title(f"share of weights, level {middle}", fontsize=10)
    weights.legend(frameon=False, fontsize=8)
    for axis, measure, title in (
        (lengths, m.PROJECTION_LENGTH, "length of the next projection, L2"),
        (errors, ERROR, "test error, points"),
    ):
        for i, (kind, part) in enumerate(measure.of(means).groupby("kind", sort=False)):
            part = part[part["rewind_step"] == part["rewind_step"].min()]
            plots.line(axis, part, "density", f"C{i}", "IMP" if kind == IMP else kind)
        plots.density_axis(axis, list(means["density"].unique()))
        axis.set_title(title, fontsize=10)
    errors.legend(frameon=False, fontsize=8)
    return made


def adaptive(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error against density with adaptive and with fixed fractions, and how many trainings each takes."""
    made, (errors, counts) = plots.panels(2)
    labels = {IMP: "fixed share", m.ADAPTIVE: "adaptive"}
    for i, (kind, label) in enumerate(labels.items()):
        part = ERROR.of(means[means["kind"] == kind])
        for k, of_step in part.groupby("rewind_step"):
            several = part["rewind_step"].nunique() > 1
            plots.line(errors, of_step, "density", f"C{i}", f"{label}, k = {k}" if several else label)
    plots.density_axis(errors, list(means["density"].unique()))
    errors.set_title("test error, points", fontsize=10)
    errors.legend(frameon=False, fontsize=9)
    found = m.TRAININGS.of(means)
    for i, kind in enumerate(labels):
        part = found[found["kind"] == kind]
        places = [str(k) for k in part["rewind_step"]]
        counts.bar(
            [j + 0.35 * i for j in range(len(places))], part["mean"], 0.33, yerr=part["std"].fillna(0), color=f"C{i}"
        )
        counts.set_xticks([j + 0.17 for j in range(len(places))], [f"k = {place}" for place in places])
    counts.set_title("trainings to the same density", fontsize=10)
    return made
