"""Rows of errors against density: the paired gap of each level, its bounds, and which levels match."""

from __future__ import annotations

import pandas as pd

from lotto.core.statistics import CONFIDENCE
from lotto.experiments.measures import DENSE, ERROR
from lotto.lottery.gaps import gap_of
from lotto.recipe.tolerance import Tolerance


def gap_table(frame: pd.DataFrame, tolerance: Tolerance) -> pd.DataFrame:
    """One line per kind of network, rewind step and level: its error and its gap to the dense network of the same seed.

    Args:
        frame: rows of an experiment that has errors of level 0 and of others; of all others nothing comes out.
        tolerance: how far above the dense error a level matches.

    Returns:
        The columns ``kind``, ``rewind_step``, ``level``, ``density``, ``error``, ``error_std``, ``n``, ``gap``,
        ``gap_low`` and ``gap_high`` (one-sided 95 % bounds, NaN for one replicate), ``verdict`` (see `Match`; of level
        0 ``dense``). A level at which a replicate diverged has the verdict ``diverged``.

    >>> about = {"rewind_step": 0, "kind": "imp", "measure": "error", "unit": "points"}
    >>> rows = [{**about, "seed": seed, "level": level, "density": 0.5**level, "value": value}
    ...         for seed, errors in enumerate([(2.0, 2.1), (2.2, 2.2)]) for level, value in enumerate(errors)]
    >>> gap_table(pd.DataFrame(rows), Tolerance(0.5))[["level", "gap", "verdict"]].round(2).values.tolist()
    [[0, 0.0, 'dense'], [1, 0.05, 'matching']]
    """
    errors = ERROR.of(frame)
    lines = []
    for (kind, k), rows in errors.groupby(["kind", "rewind_step"], sort=False):
        by_level = {
            int(level): at.groupby("seed", sort=True)["value"].mean() for level, at in rows.groupby("level", sort=True)
        }
        at_0 = errors[(errors["rewind_step"] == k) & (errors["level"] == 0)]
        dense = by_level.get(0, at_0.groupby("seed")["value"].first())  # of controls IMP's
        if dense.empty or not set(by_level) - {0}:
            continue
        densities = rows.groupby("level")["density"].mean()
        for level, values in by_level.items():
            pairs = pd.DataFrame({"dense": dense, "sparse": values}).dropna()
            found = gap_of(list(pairs["dense"]), list(pairs["sparse"]), tolerance, CONFIDENCE)
            expected = len(dense) if 0 in by_level else len(values)  # levels after one that diverged are not there
            verdict = found.verdict.value if len(pairs) == expected else "diverged"
            lines.append(
                {
                    "kind": kind, "rewind_step": int(k), "level": level, "density": float(densities[level]),
                    "error": float(values.mean()), "error_std": float(values.std(ddof=1)), "n": len(pairs),
                    "gap": found.mean, "gap_low": found.low, "gap_high": found.high,
                    "verdict": verdict if level else DENSE,
                }
            )  # fmt: skip
    return pd.DataFrame(lines)
