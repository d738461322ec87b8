"""The figure of all methods: error against total training compute."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import stats

from lotto.experiments.measures import DENSE, ERROR
from lotto.papers.methods.measures import COMPUTE, KINDS, METHODS
from lotto.report import plots

UNDER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
"""Under labels, which may stand on intervals."""
NEAR, GAP = 2.2, 0.036
"""Labels of points whose compute is within this factor are kept so far apart, as a fraction of the axis."""


def compute(means: pd.DataFrame, tolerance: float) -> Figure:
    """A point for each method, its 95 % interval of the mean error, against training compute in dense trainings.

    The grey line is the dense network's mean error, the band reaches to the tolerance above it. Both axes are
    logarithmic.
    """
    made, axis = plots.figure(8.4, 5.6)
    points = _points(means)
    dense = float(ERROR.of(means[means["kind"] == DENSE])["mean"].mean())
    grey = plots.COLOURS["dense"]
    axis.axhspan(dense, dense + tolerance, color=grey, alpha=0.2, lw=0)
    axis.axhline(dense, color=grey, lw=1)
    for row in points.itertuples():
        colour = plots.COLOURS["reinit" if row.single else "imp"]
        axis.errorbar(row.compute, row.error, yerr=[[row.error - row.low], [row.high - row.error]], fmt="o",
                      color=colour, ms=5, lw=1.2, capsize=2, label=row.label)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one, subs in ((axis.xaxis, (1, 2, 5)), (axis.yaxis, (1, 2, 5))):
        one.set_major_locator(LogLocator(10, subs=subs))
        one.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        one.set_minor_formatter(NullFormatter())
    left, right = float(points["compute"].min()), float(points["compute"].max())
    axis.set_xlim(left / 1.3, right * 2.6)
    axis.set_ylim(min(dense, float(points["low"].min())) / 1.15, float(points["high"].max()) * 1.15)
    _labels(axis, points)
    axis.annotate("dense, and the tolerance above", (0, dense), (4, -10), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="left", fontsize=8, color=grey)  # fmt: skip
    axis.set_xlabel("training compute, in dense trainings")
    axis.set_ylabel("test error, points")
    return made


def _points(means: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and, where that matters, rewind step: compute, error and its interval, label."""
    errors, costs = ERROR.of(means), COMPUTE.of(means)
    steps = sorted(costs["rewind_step"].unique())
    rows = []
    for name, method in METHODS.items():
        for step in steps if method.rewinds else steps[:1]:
            of_method = (costs["kind"] == KINDS[name]) & (costs["rewind_step"] == step)
            found = errors[(errors["kind"] == KINDS[name]) & (errors["rewind_step"] == step)]
            if found.empty:
                continue
            error, n, std = (float(found[column].iloc[0]) for column in ("mean", "n", "std"))
            half = float(stats.t.ppf(0.975, n - 1)) * std / n**0.5 if n > 1 else 0.0
            label = f"{method.title}, k = {step}" if method.rewinds else method.title
            cost = float(costs[of_method]["mean"].iloc[0])
            rows.append((cost, error, max(error - half, 0.5 * error), error + half, method.single, label))
    return pd.DataFrame(rows, columns=["compute", "error", "low", "high", "single", "label"])


def _labels(axis: Axes, points: pd.DataFrame) -> None:
    """Labels at the right of their points, from below upwards, each above those near it."""
    placed: list[tuple[float, float]] = []
    to_axes = axis.transData + axis.transAxes.inverted()
    for row in points.sort_values("error").itertuples():
        at = float(to_axes.transform((row.compute, row.error))[1])
        for cost, height in sorted(placed, key=lambda one: one[1]):
            if max(cost / row.compute, row.compute / cost) < NEAR and abs(height - at) < GAP:
                at = height + GAP
        placed.append((row.compute, at))
        x = float(to_axes.transform((row.compute, row.error))[0]) + 0.012
        axis.text(x, at, row.label, transform=axis.transAxes, fontsize=8, va="center", bbox=UNDER)
