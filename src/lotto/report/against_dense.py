"""Errors against density in a table and in sentences: which levels match, and what a later rewind step brings."""

from __future__ import annotations

from itertools import takewhile

import pandas as pd

from lotto.core.statistics import Match, bound
from lotto.experiments.measures import DENSE, ERROR, IMP
from lotto.report.metric import Metric
from lotto.report.table import percent, spread

TITLES = {"reinit": "new init", "random": "random mask"}


def readable_gaps(gaps: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """A line per level of `gap_table`, as people read it: what is left, error, gap with its bound, verdict."""
    several = gaps["kind"].nunique() > 1
    lines = []
    for row in gaps.to_dict("records"):
        is_dense = row["verdict"] == DENSE
        if is_dense and row["kind"] != gaps["kind"].iloc[0]:
            continue  # the same network again
        line = {"rewound to": str(row["rewind_step"]), "left": percent(row["density"])}
        if several:
            line["kind"] = DENSE if is_dense else TITLES.get(row["kind"], row["kind"])
        line[f"{metric.title} (n={int(gaps['n'].max())})"] = spread(row["error"], row["error_std"])
        line["gap"] = "–" if is_dense else metric.gap(row["gap"], row["gap_high"] - row["gap"])
        line["verdict"] = "–" if is_dense else row["verdict"]
        lines.append(line)
    return pd.DataFrame(lines)


def sentences(frame: pd.DataFrame, gaps: pd.DataFrame, metric: Metric) -> list[str]:
    """What one sees of IMP: down to where it matches at each rewind step, and what the last one brings over the first.

    Args:
        frame: rows of an experiment.
        gaps: their `gap_table`.
        metric: of the errors.
    """
    ours = gaps[gaps["kind"] == IMP]
    said = [_of_step(int(k), rows, metric) for k, rows in ours.groupby("rewind_step", sort=True)]
    steps = sorted(ours["rewind_step"].unique())
    if len(steps) > 1:
        said.append(_between(frame, int(steps[0]), int(steps[-1]), ours, metric))
    return [sentence for sentence in said if sentence]


def _of_step(k: int, rows: pd.DataFrame, metric: Metric) -> str:
    lines = rows[rows["level"] > 0].sort_values("level").to_dict("records")
    matching = [*takewhile(lambda line: line["verdict"] == Match.MATCHING.value, lines)]
    text = f"Rewound to {k}, no level is shown to match the dense network"
    if matching:
        left = percent(matching[-1]["density"])
        text = f"Rewound to {k}, subnetworks match the dense network down to {left} of the weights"
    after = lines[len(matching) :]
    failing = [line for line in after if line["verdict"] == Match.FAILING.value]
    if shown := (failing or after)[:1]:
        (line,) = shown
        gap = metric.gap(line["gap"], line["gap_high"] - line["gap"])
        text += f"; {percent(line['density'])} is {line['verdict']} (gap {gap})"
    return f"{text}."


def _between(frame: pd.DataFrame, first: int, last: int, ours: pd.DataFrame, metric: Metric) -> str:
    """The paired difference of two rewind steps at the sparsest level."""
    level = int(ours["level"].max())
    errors = ERROR.of(frame)
    errors = errors[(errors["kind"] == IMP) & (errors["level"] == level)]
    by_step = {k: errors[errors["rewind_step"] == k].groupby("seed")["value"].mean() for k in (first, last)}
    found = (by_step[first] - by_step[last]).dropna()
    if len(found) < 2:
        return ""
    mean, low = float(found.mean()), bound([*found], "lower")
    left = percent(float(ours[ours["level"] == level]["density"].mean()))
    if mean <= 0:
        return f"At {left} left, rewinding to {last} is no better than to {first}."
    shown = f"at least {low:.2f}" if low > 0 else "not shown to be above 0"
    return f"At {left} left, rewinding to {last} instead of {first} takes {mean:.2f} points off the error ({shown})."
