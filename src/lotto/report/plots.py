"""The plots of a report, as SVG text."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lotto.core.errors import unknown
from lotto.core.text import printable
from lotto.lottery.result import DENSE, ImpResult
from lotto.report.levels import histories, layers
from lotto.report.metric import Metric
from lotto.report.table import CONTROL_TITLES

COLOURS = {"imp": "#1b6ca8", "reinit": "#d1495b", "random": "#edae49", "dense": "#8a8a8a"}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "text.usetex": False,
    "grid.color": "#e8e8e8",
    "svg.hashsalt": "lotto",  # the same plot gives the same file
}


BAND = "one-sided 95 % bounds of its paired gap"


class Drawing(Figure):
    """A figure that notebooks show without pyplot.

    Attributes:
        notes: more words on each point of a line, by its label; pages show them, see `points.points_of`.
    """

    notes: Mapping[str, Sequence[str]] = MappingProxyType({})

    def _repr_svg_(self) -> str:
        return svg(self)


def figure(width: float = 7.2, height: float = 4.2) -> tuple[Drawing, Axes]:
    """A figure with one axis, without any global state."""
    with mpl.rc_context(STYLE):
        made = Drawing(figsize=(width, height), layout="constrained")
        return made, made.subplots()


def svg(made: Figure, *, words: bool = False) -> str:
    """The figure as an ``<svg>`` element, at 72 dots per inch; ``words``: its texts as texts, not as outlines."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.fonttype": "none" if words else "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may have signs that the font has not
        FigureCanvasSVG(made).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def of_result(result: ImpResult, kind: str = "error") -> Figure:
    """One of the report's figures of a result; see `ImpResult.plot`."""
    draw = KINDS.get(kind)
    if draw is None:
        raise unknown("kind of plot", kind, KINDS)
    return draw(result)


def density_axis(axis: Axes, densities: Sequence[float]) -> None:
    """A logarithmic density axis from dense on the left to sparse on the right, in percent."""
    axis.set_xscale("log")
    shown = [density for density in densities if density > 0]  # an empty network has no place on it
    axis.set_xlim(max(shown) * 1.08, min(shown) / 1.08)
    axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("weights left, %")


def method(plan: Mapping[str, Any]) -> str:
    """What the levels of a described plan are called.

    >>> method({"score": "magnitude"}), method({"score": "snip", "prune_at": "init"})
    ('IMP', 'snip at initialisation')
    """
    when = {"init": "at initialisation", "rewind": "at the rewind step"}.get(plan.get("prune_at", ""))
    return f"{plan['score']} {when}" if when else "IMP"


def error_against_density(table: pd.DataFrame, metric: Metric, name: str = "IMP") -> Figure:
    """Error of IMP, or what else the levels are, and its controls against density, with the dense mean and its band.

    Around it lie the bounds of its paired gap, so that a level matches where its band is below the dotted line.
    Results of the time before bounds, and those of one replicate, have bars of one standard deviation, as controls do.
    """
    made, axis = figure()
    dense, std = table["dense_error"].iloc[0], table["dense_std"].iloc[0]
    band = 0.0 if math.isnan(std) else std
    axis.axhspan(dense - band, dense + band, color=COLOURS["dense"], alpha=0.2, lw=0)
    axis.axhline(dense, color=COLOURS["dense"], lw=1, label="dense, mean ± std")
    limit, label = dense + metric.margin.above(dense), f"matching: dense + {metric.margin}"
    axis.axhline(limit, color=COLOURS["dense"], lw=1, ls=":", label=label)
    names = {"imp": "error", **{c: c for c in CONTROL_TITLES if c in table}}
    for kind, column in names.items():
        found = table[table[column].notna()]
        if not len(found):
            continue
        bounded = kind == "imp" and "gap_high" in found and found["gap_high"].notna().any()
        if bounded:
            ends = [found["error"] + found[end] - found["gap"] for end in ("gap_low", "gap_high")]
            axis.fill_between(found["density"], *ends, color=COLOURS[kind], alpha=0.2, lw=0, label=BAND)
        axis.errorbar(
            found["density"],
            found[column],
            yerr=None if bounded else found[f"{column}_std"].fillna(0),
            color=COLOURS[kind],
            label=name if kind == "imp" else CONTROL_TITLES[kind],
            marker="o",
            ms=4,
            lw=1.6,
            capsize=2,
        )
    matching = table[table["matching"]]
    axis.plot(matching["density"], matching["error"], "o", ms=9, mfc="none", mec=COLOURS["imp"], label="matching")
    density_axis(axis, list(table["density"]))
    if "parameter_fraction" in table and (always := _always_left(table)) >= 0.005:
        axis.set_xlabel(f"prunable weights left, % ({100 * (1 - always):.3g} % of all parameters are prunable)")
    axis.set_ylabel(metric.axis, parse_math=False)
    axis.legend(frameon=False, fontsize=9)
    if "verdict" in table:
        made.notes = {name: [_gap_and_verdict(row, metric) for row in table[table["error"].notna()].to_dict("records")]}
    return made


def _gap_and_verdict(row: Mapping[str, Any], metric: Metric) -> str:
    """What is said of a level beside its error: ``gap +0.12 ± 0.05, matching``."""
    if row["verdict"] == DENSE:
        return ""
    return f"gap {metric.gap(row['gap'], row['gap_high'] - row['gap'])}, {row['verdict']}"


def _always_left(table: pd.DataFrame) -> float:
    """The fraction of all parameters that no pruning reaches; 0 where nothing is pruned."""
    last = table.iloc[-1]
    pruned = 1 - last["density"]
    return 1 - (1 - last["parameter_fraction"]) / pruned if pruned else 0.0


def training_curves(
    histories: Mapping[int, Sequence[Sequence[Mapping[str, Any]]]],
    densities: Sequence[float],
    metric: Metric,
) -> Figure:
    """Test error along training, a line per level (mean over replicates), dark = dense, bright = sparse."""
    made, axis = figure()
    colours = mpl.colormaps["viridis"]
    last = max(histories)
    for level, runs in histories.items():
        if not runs:  # all have diverged
            continue
        steps = [record["step"] for record in runs[0]]
        means = [sum(run[i]["test_error"] for run in runs) / len(runs) for i in range(len(steps))]
        label = f"{100 * densities[level]:.3g} %"
        axis.plot(steps, means, color=colours(0.92 * level / max(1, last)), lw=1.2, marker=".", ms=3, label=label)
    axis.set_xlabel("iteration")
    axis.set_ylabel(metric.axis, parse_math=False)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "2345" else ""))
    handles, labels = axis.get_legend_handles_labels()
    chosen = sorted({0, len(labels) // 2, len(labels) - 1})
    axis.legend(
        [handles[i] for i in chosen], [labels[i] for i in chosen], frameon=False, fontsize=9, title="weights left"
    )
    return made


def named(name: str) -> str:
    """A name in a legend, which leaves out what begins with an underscore."""
    return printable(name.replace("\n", "\\n"), 40).replace("_", " _", name.startswith("_"))


def layer_densities(layers: Mapping[str, Sequence[float]], densities: Sequence[float]) -> Figure:
    """Density of each layer against the density of the whole network."""
    made, axis = figure()
    colours = mpl.colormaps["plasma"]
    for i, (layer, values) in enumerate(layers.items()):
        shown = [v if v > 0 else math.nan for v in values]
        axis.plot(densities, shown, color=colours(0.9 * i / max(1, len(layers) - 1)), lw=1.3, label=named(layer))
    axis.plot(densities, densities, color=COLOURS["dense"], lw=1, ls=":", label="whole network")
    density_axis(axis, densities)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("weights left in the layer, %")
    # More layers than a legend can hold are known by their colour only, from the first to the last.
    names = axis.get_legend_handles_labels()
    chosen = range(len(names[0])) if len(names[0]) <= 12 else [0, len(names[0]) // 2, len(names[0]) - 2, -1]
    legend = axis.legend([names[0][i] for i in chosen], [names[1][i] for i in chosen], frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    return made


def _error(result: ImpResult) -> Figure:
    return error_against_density(result.table(), Metric.of(result.plan.recipe), method(result.plan.describe()))


def _curves(result: ImpResult) -> Figure:
    return training_curves(dict(enumerate(histories(result))), _densities(result), Metric.of(result.plan.recipe))


def _layers(result: ImpResult) -> Figure:
    return layer_densities(layers(result), _densities(result))


def _densities(result: ImpResult) -> list[float]:
    return list(result.table()["density"])


KINDS = {"error": _error, "curves": _curves, "layers": _layers}
"""The report's figures by name."""

DASHES = ("-", "--", ":", "-.")
"""One for each kind of network where colours tell something else."""
WIDE = 8.0
"""Errors that differ by more than this factor need a logarithmic axis."""


def ramp(number: int, count: int) -> Any:
    """The colour of one of several in an order, from dark to bright."""
    return mpl.colormaps["viridis"](0.9 * number / max(1, count - 1))


def error_axis(axis: Axes, values: pd.Series) -> None:
    """An axis of errors: logarithmic, with plain numbers, if they are above 0 and differ by more than `WIDE`."""
    if values.min() > 0 and values.max() > WIDE * values.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def step_axis(axis: Axes) -> None:
    """A rewind-step axis: logarithmic, with 0 on it."""
    axis.set_xscale("symlog", linthresh=50)
    axis.set_xlabel("rewind step k, iterations")


def line(axis: Axes, found: pd.DataFrame, x: str, colour: str, label: str, **style: Any) -> None:
    """Means with their spread against a column, as `experiments.experiment.summary` gives them."""
    axis.errorbar(
        found[x], found["mean"], yerr=found["std"].fillna(0), color=colour, label=label, marker="o", ms=4, lw=1.5,
        capsize=2, **style,
    )  # fmt: skip


def errors_by_kind(found: pd.DataFrame, dense: float, styles: Mapping[Any, tuple[str, str, str]]) -> Figure:
    """Error against density, of the last rewind step: a line for each kind, and the dense network's error.

    Args:
        found: means and spreads of errors.
        dense: the error of the dense network.
        styles: colour, dashes and label of each kind.
    """
    made, axis = figure()
    axis.axhline(dense, color=COLOURS["dense"], lw=1, label="dense")
    for kind, (colour, dashes, label) in styles.items():
        part = found[found["kind"] == kind]
        if len(part):
            line(axis, part, "density", colour, label, ls=dashes)
    density_axis(axis, list(found[found["level"] > 0]["density"].unique()))
    error_axis(axis, found["mean"])
    axis.set_ylabel("test error, points")
    axis.set_title(f"k = {found['rewind_step'].max()}", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    return made


def circle(axis: Axes, found: pd.DataFrame, colour: str, named: bool) -> None:
    """Circles around the means of levels that match."""
    axis.plot(found["density"], found["mean"], "o", ms=9, mfc="none", mec=colour, label="matching" if named else None)


def panels(count: int, height: float = 3.4) -> tuple[Drawing, list[Axes]]:
    """A figure of ``count`` panels, at most two side by side; ``height`` is that of one row, in inches."""
    rows, columns = -(-count // 2), min(count, 2)
    made, _ = figure(height=height * rows)
    made.clear()
    with mpl.rc_context(STYLE):
        found = list(made.subplots(rows, columns, squeeze=False).flat)
    for unused in found[count:]:
        unused.set_axis_off()
    return made, found[:count]
