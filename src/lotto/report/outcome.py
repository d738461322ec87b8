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
