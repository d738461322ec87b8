"""What came out of IMP in one sentence: the level that matches, or what there is while nothing is decided."""

from __future__ import annotations

import math

import pandas as pd

from lotto.lottery.result import DENSE
from lotto.report.metric import Metric
from lotto.report.table import OF_ALL, VERDICT, percent, spread


def headline(table: pd.DataFrame, matching: int, chosen: int, metric: Metric) -> str:
    """The sentence for a table of levels.

    Args:
        table: see `ImpResult.table`; of the time before verdicts, too.
        matching, chosen: see `ImpResult.matching_level` and `ImpResult.chosen_level`.
        metric: of the errors.
    """
    row, n = table.iloc[chosen], int(table["n"].iloc[0])
    of_all = f", {percent(row[OF_ALL])} of all parameters" if OF_ALL in table else ""
    errors = (
        f"{metric.name} {spread(row['error'], math.nan)}{metric.unit}, "
        f"dense {spread(row['dense_error'], math.nan)}{metric.unit}"
    )
    where = f"level {chosen}, {percent(row['density'])} of the weights{of_all} ({errors})"
    if matching:
        return f"Sparsest matching ticket: {where}."
    one = "Not decided with one replicate" if n == 1 and VERDICT in table else ""
    if chosen:
        shown = one or f"No pruned level is shown to match by {n} replicates"
        return f"{shown}; the mean {metric.name} is within the tolerance down to {where}."
    if one:
        return f"{one}; no pruned level is within the tolerance."
    return "No pruned level matches the dense network."


def because(table: pd.DataFrame, matching: int, chosen: int, metric: Metric) -> str:
    """The gap that decides, with its bound, in a sentence; of the first pruned level where none matches.

    Args:
        table, matching, chosen, metric: as of `headline`.
    """
    level = matching or chosen or 1
    if VERDICT not in table or level >= len(table):
        return ""
    row = table.iloc[level]
    if math.isnan(row["gap"]):
        return ""
    unit = " points" if metric.unit else ""
    whose = "Its gap" if level == (matching or chosen) else f"The gap of level {level}, {percent(row['density'])} left,"
    gap = f"{whose} to the dense network of the same replicate is {metric.difference(row['gap'])}{unit}"
    if math.isnan(row["gap_high"]):
        return f"{gap}; one replicate gives it no bound."
    low, high = (metric.difference(row[end]) for end in ("gap_low", "gap_high"))
    limit = f"{metric.margin} of the dense {metric.name}" if metric.margin.relative else str(metric.margin)
    if matching:
        return f"{gap}, and with 95 % confidence at most {high}; what stays below {limit} matches."
    verdict = "" if advice(table, matching) else f": {row[VERDICT]}"
    return f"{gap}, with one-sided 95 % bounds of {low} and {high} and a tolerance of {limit}{verdict}."


def advice(table: pd.DataFrame, matching: int, again: str = "") -> str:
    """What would decide more: a sentence if the level after those that match is borderline, else nothing.

    Args:
        table: see `ImpResult.table`.
        matching: see `ImpResult.matching_level`.
        again: how more replicates are asked for.
    """
    if VERDICT not in table or matching + 1 >= len(table):
        return ""
    verdict = table[VERDICT].iloc[matching + 1]
    if verdict in (DENSE, "matching", "failing", "diverged", "no weights"):
        return ""
    how = f" ({again})" if again else ""
    return f"Level {matching + 1} is {verdict}: more replicates would decide{how}."
