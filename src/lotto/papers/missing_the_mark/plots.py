"""The figure of *Missing the Mark*: error against density, a panel for each method."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from lotto.experiments.measures import ERROR
from lotto.papers.missing_the_mark.measures import FRESH, METHODS, OWN, SHUFFLED
from lotto.report import plots

LINES = (
    (OWN, "its mask", plots.COLOURS["imp"], "-"),
    (SHUFFLED, "shuffled within layers", plots.COLOURS["random"], "--"),
    (FRESH, "new initialisation", plots.COLOURS["reinit"], ":"),
)
COLUMNS = 4
"""Panels beside each other."""


def ablations(means: pd.DataFrame, tolerance: float) -> Figure:
    """A panel for each method: its mask, the same shuffled, on a new initialisation; at the first rewind step stored.

    The grey lines are the dense network's mean error, and the tolerance above it. Panels with ablations have one error
    axis, so that they can be compared; those of random masks, which may err far more, have their own.
    """
    errors = ERROR.of(means)
    errors = errors[errors["rewind_step"] == errors["rewind_step"].min()]
    shown = [name for name in METHODS if OWN[name] in set(errors["kind"])]
    dense, pruned = errors[errors["level"] == 0]["mean"].mean(), errors[errors["level"] > 0]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(plots.STYLE):
        made = plots.Drawing(figsize=(3.1 * columns, 2.9 * rows), layout="constrained")
        axes = made.subplots(rows, columns, squeeze=False).flatten()
    ablated = [kinds[name] for name in shown if METHODS[name].ablated for kinds in (OWN, SHUFFLED, FRESH)]
    common = pruned[pruned["kind"].isin(ablated)]
    top = 1.05 * (common["mean"] + common["std"].fillna(0)).max()
    for axis, name in zip(axes, shown, strict=False):
        axis.axhline(dense, color=plots.COLOURS["dense"], lw=1, label="dense")
        axis.axhline(dense + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":", label="dense + tolerance")
        for kinds, label, colour, dashes in LINES:
            part = pruned[pruned["kind"] == kinds[name]]
            if len(part):
                plots.line(axis, part, "density", colour, label, ls=dashes)
        plots.density_axis(axis, list(pruned["density"]))
        if METHODS[name].ablated and top > 0:  # not where all diverged
            axis.set_ylim(0, top)
        else:
            plots.error_axis(axis, pruned[pruned["kind"] == OWN[name]]["mean"])
        axis.set_title(METHODS[name].title, fontsize=10)
    for axis in axes[len(shown) :]:
        axis.remove()
    for axis in axes[: len(shown) : columns]:
        axis.set_ylabel("test error, points")
    axes[len(shown) - 1].legend(frameon=False, fontsize=8)
    return made
