"""The table of levels for a terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich import box
from rich.table import Table

from lotto.lottery.result import DENSE, ImpResult
from lotto.pruning import masks
from lotto.report.fitting import FittedTable, cell
from lotto.report.metric import Metric

CONTROL_TITLES = {"reinit": "new init", "random": "random mask"}
"""What the controls are called where people read."""


OF_ALL = "parameter_fraction"
"""Column of the fraction of all parameters left; results of the time before it have none."""


DIVERGED = "diverged"
"""Column of the number of replicates that have diverged; results of the time before it have none."""


VERDICT = "verdict"
"""Column of what the bounds of a level's gap say; results of the time before it have none."""


def percent(density: float) -> str:
    """A density as a percentage with three significant digits."""
    return f"{100 * density:.3g} %"


def spread(mean: float, std: float) -> str:
    """``2.31 ± 0.04``; without the spread if there is one value, a dash if there is none."""
    if math.isnan(mean):
        return "–"
    digits = ".2f" if mean >= 1 else ".3g"
    return f"{mean:{digits}}" if math.isnan(std) else f"{mean:{digits}} ± {std:{digits}}"


def measured(mean: float, std: float, diverged: float = 0) -> str:
    """`spread` of what came to its end, and how many of the trainings did not."""
    if math.isnan(mean):
        return "diverged" if diverged > 0 else spread(mean, std)
    return f"{spread(mean, std)}, {diverged:.0f} diverged" if diverged > 0 else spread(mean, std)


def columns(table: pd.DataFrame, metric: Metric) -> list[tuple[str, list[str]]]:
    """Titles and cells of the readable table, for the terminal and the report alike."""
    controls = [c for c in CONTROL_TITLES if c in table]
    n = int(table["n"].max())
    cells = [
        ("level", [str(v) for v in table["level"]]),
        ("left", [percent(v) for v in table["density"]]),
        *([("of all", [percent(v) for v in table[OF_ALL]])] if OF_ALL in table else []),
        (f"{metric.title} (n={n})", [spread(*v) for v in table[["error", "error_std"]].to_numpy(float)]),
        *_against_dense(table, metric),
    ]
    for control in controls:
        names = [control, f"{control}_std", f"{control}_diverged"]
        values = table[[name for name in names if name in table]].to_numpy(float)
        cells.append((CONTROL_TITLES[control], [measured(*v) for v in values]))
    if DIVERGED in table and any(table[DIVERGED]):
        cells.append(("diverged", [str(int(v)) if v else "" for v in table[DIVERGED]]))
    if any(table["empty_layers"].fillna("") != ""):
        cells.append(("pruned to nothing", list(table["empty_layers"].fillna(""))))
    return cells


def _against_dense(table: pd.DataFrame, metric: Metric) -> list[tuple[str, list[str]]]:
    """The gap with its bound and the verdict; results of the time before these have a difference of means."""
    if VERDICT not in table:
        differences = (table["error"] - table["dense_error"]).to_numpy(float)
        return [
            ("vs dense", ["–" if math.isnan(v) else metric.difference(v) for v in differences]),
            ("match", ["yes" if v else "no" for v in table["matching"]]),
        ]
    gaps = zip(table["gap"], table["gap_high"] - table["gap"], table[VERDICT] == DENSE, strict=True)
    return [
        ("gap", ["–" if dense else metric.gap(mean, width) for mean, width, dense in gaps]),
        (VERDICT, ["–" if verdict == DENSE else str(verdict) for verdict in table[VERDICT]]),
    ]


def adaptive_summary(result: ImpResult) -> str:
    """What adaptive pruning cost, against fixed shares to the same density.

    >>> result = lotto.imp(recipe, levels=1, adaptive=True, replicates=1, controls=(), jobs=1)
    >>> adaptive_summary(result).startswith("Adaptive: ")
    True
    """
    failed = sum(not trial.kept for trial in result.trials)
    density, rate = masks.density(max(result.replicates, key=len)[-1].mask), result.plan.pruning.rate
    fixed = 1 + math.ceil(math.log(density) / math.log(1 - rate) - 1e-9)
    return (
        f"Adaptive: {result.trainings} trainings per replicate, {failed} of them not kept; {rate:.0%} per level takes "
        f"{fixed} to {percent(density)}. Cuts were chosen on the {result.trials[0].split} examples."
    )


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """A frame as a table for the terminal.

    >>> table = frame_table(pd.DataFrame({"level": [0, 1], "error": [2.0, 2.1]}), "Errors")
    >>> table.title.plain, table.row_count
    ('Errors', 2)
    """
    table = Table(title=cell(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in frame.columns:
        table.add_column(cell(column), justify="left" if column in ("measure", "unit") else "right", overflow="fold")
    for line in frame.astype(str).to_numpy().tolist():
        table.add_row(*map(cell, line))
    return table


def rule(table: pd.DataFrame, metric: Metric) -> str:
    """What decides whether a level matches."""
    if VERDICT not in table:
        return f"Matching: mean {metric.name} at most {metric.margin} above the dense mean."
    margin = f"{metric.margin} of the dense {metric.name}" if metric.margin.relative else str(metric.margin)
    return (
        f"Gap: mean difference to the dense network of the same replicate ± its one-sided 95 % bound. "
        f"Matching (yes): the gap with its bound is below {margin}; failing (no): less its bound it is above; "
        "borderline (open): neither."
    )


def console_table(table: pd.DataFrame, metric: Metric) -> FittedTable:
    """The readable table; matching levels are green.

    >>> result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1)
    >>> table = console_table(result.table(), Metric.of(recipe))  # rich.print(table)
    >>> "Gap: mean difference to the dense network of the same replicate" in table.caption
    True
    """
    dense = spread(*table[["dense_error", "dense_std"]].iloc[0].to_numpy(float))
    caption = (
        f"Dense: test {metric.name} {dense}{metric.unit} (n={int(table['n'].iloc[0])}). {rule(table, metric)} "
        "Spread: sample standard deviation. Left: of the prunable weights; of all: of all parameters."
    )
    return FittedTable(columns(table, metric), caption, ["green" if v else None for v in table["matching"]])
