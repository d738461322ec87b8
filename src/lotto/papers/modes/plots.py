"""Plots of barriers between solutions and between copies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import DENSE, ERROR, Measure
from lotto.landscape.stability import STABLE
from lotto.papers.modes import measures as m
from lotto.report import plots


def solutions(means: pd.DataFrame, tolerance: float) -> Figure:
    """Barriers between all solutions, of the last rewind step."""
    made, axis = plots.figure(6.4, 5.0)
    between = m.BETWEEN.of(means[means["rewind_step"] == means["rewind_step"].max()])
    numbers = {m.SOLUTIONS.index(kind) for kind in between["kind"]} | {int(x) for x in between["x"]}
    shown = sorted(numbers)
    grid = np.full((len(shown), len(shown)), np.nan)
    for kind, x, mean in zip(between["kind"], between["x"], between["mean"], strict=True):
        one, other = shown.index(m.SOLUTIONS.index(kind)), shown.index(int(x))
        grid[one, other] = grid[other, one] = mean
    image = axis.imshow(grid, cmap="viridis_r", vmin=0)
    names = [m.TITLES.get(m.SOLUTIONS[number], str(m.SOLUTIONS[number])) for number in shown]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False)
    finite = grid[np.isfinite(grid)]
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value > finite.max() / 2 else "black"
            axis.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8, color=colour)
    made.colorbar(image, ax=axis, label="barrier, points")
    return made


def copies(means: pd.DataFrame, tolerance: float) -> Figure:
    """Error of each method's ticket against the barrier between its copies; dashed: stable to the left of it.

    Dotted: the dense network's error and the tolerance above it, below which a ticket matches.
    """
    return _against(means, ERROR, m.COPIES, tolerance, "barrier between two data orders, points")


def starts(means: pd.DataFrame, tolerance: float) -> Figure:
    """The same of masks at the other start, against the barrier to the dense network."""
    return _against(means, m.MOVED_ERROR, m.MOVED_BETWEEN, tolerance, "barrier to the dense network, points")


def _against(means: pd.DataFrame, error: Measure, barrier: Measure, tolerance: float, title: str) -> Figure:
    """A measure of errors against one of barriers, a point for each method."""
    made, axis = plots.figure()
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    errors, barriers = error.of(means).set_index("kind"), barrier.of(means).set_index("kind")
    dense = ERROR.of(means).set_index("kind")
    for number, kind in enumerate(kind for kind in m.SOLUTIONS if kind in barriers.index and kind in errors.index):
        x, y = barriers.loc[kind], errors.loc[kind]
        axis.errorbar(
            x["mean"], y["mean"], xerr=x["std"], yerr=y["std"], fmt="o", color=f"C{number}",
            label=m.TITLES.get(kind, kind),
        )  # fmt: skip
    axis.axvline(STABLE, color=plots.COLOURS["dense"], lw=1, ls="--")
    if DENSE in dense.index:
        axis.axhline(dense.loc[DENSE]["mean"] + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":")
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(left=0)
    axis.set_xlabel(title)
    axis.set_ylabel("test error, points")
    axis.legend(frameon=False, fontsize=8)
    return made
