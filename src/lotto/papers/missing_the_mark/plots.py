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

    The grey lines are the dense network's mean error, and the tolerance above it; the error axis is logarithmic.
    """
    errors = ERROR.of(means)
    errors = errors[errors["rewind_step"] == errors["rewind_step"].min()]
    shown = [name for name in METHODS if OWN[name] in set(errors["kind"])]
    dense = errors[errors["level"] == 0]["mean"].mean()
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(plots.STYLE):
        made = plots.Drawing(figsize=(3.1 * columns, 2.9 * rows), layout="constrained")
        axes = made.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axis, name in zip(axes, shown, strict=False):
        axis.axhline(dense, color=plots.COLOURS["dense"], lw=1, label="dense")
        axis.axhline(dense + tolerance, color=plots.COLOURS["dense"], lw=1, ls=":", label="dense + tolerance")
        for kinds, label, colour, dashes in LINES:
            part = errors[errors["kind"] == kinds[name]]
            if len(part):
                plots.line(axis, part, "density", colour, label, ls=dashes)
        plots.density_axis(axis, list(errors["density"]))
        axis.set_yscale("log")
        axis.set_title(METHODS[name].title, fontsize=10)
    for axis in axes[len(shown) :]:
        axis.remove()
    axes[0].set_ylabel("test error, points")
    axes[len(shown) - 1].legend(frameon=False, fontsize=8)
    return made
