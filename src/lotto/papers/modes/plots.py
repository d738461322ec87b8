"""The plot of barriers between solutions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lotto.papers.modes import measures as m
from lotto.report import plots


def solutions(means: pd.DataFrame, tolerance: float) -> Figure:
    """Barriers between all solutions, on the diagonal between two data orders of each, of the last rewind step."""
    made, axis = plots.figure(6.4, 5.0)
    means = means[means["rewind_step"] == means["rewind_step"].max()]
    between, copies = m.BETWEEN.of(means), m.COPIES.of(means)
    kinds = [kind for kind in m.SOLUTIONS if (copies["kind"] == kind).any()]
    grid = np.full((len(kinds), len(kinds)), np.nan)
    for row, kind in enumerate(kinds):
        grid[row, row] = copies[copies["kind"] == kind]["mean"].iloc[0]
        for column, other in enumerate(kinds[:row]):
            found = between[(between["kind"] == kind) & (between["x"] == m.SOLUTIONS.index(other))]
            if len(found):
                grid[row, column] = grid[column, row] = found["mean"].iloc[0]
    image = axis.imshow(grid, cmap="viridis_r", vmin=0)
    names = [m.TITLES.get(kind, kind) for kind in kinds]
    axis.set_xticks(range(len(kinds)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(kinds)), names)
    axis.grid(visible=False)
    highest = np.nanmax(grid) if np.isfinite(grid).any() else 0.0
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value > highest / 2 else "black"
            axis.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8, color=colour)
    made.colorbar(image, ax=axis, label="barrier, points; diagonal: another data order")
    return made
