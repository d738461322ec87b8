"""How many replicates a verdict takes, for a terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich.table import Table

from lotto.core.statistics import POWER
from lotto.lottery.power import CAREFUL, GapSpread
from lotto.report.metric import Metric
from lotto.report.table import frame_table


def power_table(found: GapSpread, metric: Metric) -> Table:
    """Replicates by true gap."""
    table = found.table()
    shown = pd.DataFrame(
        {
            "true gap": [metric.difference(gap) for gap in table["gap"]],
            "to be shown": table["shown"],
            "replicates": [_count(n) for n in table["replicates"]],
            "at most": [_count(n) for n in table["replicates_high"]],
        }
    )
    return frame_table(shown, f"Replicates that decide in {POWER:.0%} of all cases")


def spread_sentences(found: GapSpread, metric: Metric) -> list[str]:
    """What the counts rest on."""
    n, tolerance = len(found.gaps), f"{found.tolerance:.3g}"
    std, high = f"{found.std:.3g}", f"{found.std_high:.3g}"
    said = [
        f"A paired gap of test {metric.name} spreads by {std} (standard deviation, from {n} dense networks and their "
        f"copies on another data order; at most {high} with {CAREFUL:.0%} confidence); the tolerance is {tolerance}."
    ]
    if not math.isnan(found.test_std):
        said.append(f"Of that the test set makes {found.test_std:.3g}: the examples on which the copies disagree.")
    return said


def _count(replicates: float) -> str:
    return f"{replicates:,.0f}" if math.isfinite(replicates) else "–"
