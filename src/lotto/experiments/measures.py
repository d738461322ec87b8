"""What rows of experiments say they measure, of what, in which unit: constants for experiments, claims and plots.

These are shared; a paper's own are in its folder. Their texts stand in stored results, so they never change.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from lotto.data import Split
from lotto.landscape.path import BATCHNORM

POINTS, NATS, L2, DEGREES = "points", "nats", "L2", "degrees"
SHARE, FRACTION, COUNT = "share", "fraction", "count"
LOSS = "loss"
"""The unit of a loss that is not in nats."""
UNITS = (POINTS, NATS, L2, DEGREES, SHARE, FRACTION, COUNT)
"""Those that plots and claims are made for: an error that is no percentage has a unit by its own name."""


ORDERS, POSITIONS, EXAMPLES, BN_EXAMPLES = SETTINGS = ("orders", "points", "examples", "bn_examples")
"""Options that a value may depend on, as columns: data orders, positions on a path, examples of a split (empty: all),
training examples from which BatchNorm's statistics are re-estimated."""
ON_PATH = (POSITIONS, EXAMPLES)
"""What a barrier depends on beside the networks at its ends."""


class Measure(NamedTuple):
    """A quantity and its unit, as the columns ``measure`` and ``unit`` hold them.

    Attributes:
        name: what is measured.
        unit: in which unit.
        settings: those of `SETTINGS` on which its values depend; its rows have these columns, so that values of
            different settings are never taken for one.

    >>> Measure("barrier", "points", ON_PATH).settings
    ('points', 'examples')
    """

    name: str
    unit: str
    settings: tuple[str, ...] = ()

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that hold this measure."""
        return rows[(rows["measure"] == self.name) & (rows["unit"] == self.unit)]


class Kind(str):
    """A kind of network, as the column ``kind`` holds it."""


DENSE, IMP, RANDOM, REINIT = Kind("dense"), Kind("imp"), Kind("random"), Kind("reinit")
ONE_SHOT, WITHOUT_RETRAINING = Kind("one-shot"), Kind("without retraining")

ERROR = Measure("error", POINTS)
BARRIER = Measure("barrier", POINTS, ON_PATH)
"""On the path between levels: ``x`` is the other one."""
ERROR_BETWEEN = Measure("error between", POINTS, ON_PATH)
SPLITS: tuple[Split, ...] = ("test", "train")
BARRIERS = {
    (policy, split, what): Measure(
        f"{split} barrier, statistics {policy}d",
        unit,
        (ORDERS, *ON_PATH, *([BN_EXAMPLES] if policy == "recompute" else [])),
    )
    for policy in BATCHNORM
    for split in SPLITS
    for what, unit in (("error", POINTS), ("loss", NATS))
}
"""Between copies on different data orders: by what is done about BatchNorm's statistics, split, and quantity."""
TEST_BARRIER = BARRIERS["interpolate", "test", "error"]
RECOMPUTED_TEST_BARRIER = BARRIERS["recompute", "test", "error"]
LAST_QUARTER = Measure("error lost in the last quarter", POINTS)
"""Of the dense network: test error at three quarters of training minus that at the end, both of its history; ``x`` is
the fraction of training at which the first was taken."""
PLANE, PLANE_CORNER = Measure("plane", POINTS, (EXAMPLES,)), Measure("plane corner", L2)
WEIGHTS_IN_BIN = Measure("weights in bin", SHARE)
DIVERGED = Measure("diverged", "–")
"""The row of a case without others, because a training of it diverged: NaN, and the column ``note`` says which."""

PRUNING_DISTANCE = {how: Measure(f"distance of pruning, {how}", L2) for how in ("published", "corrected")}
"""How far the weights move when the share ``x`` is pruned at once, or (of kind `LIMIT`) may move by theory."""
LIMIT = Kind("limit")

LAYER_AGREEMENT = Measure("agreement of a layer", SHARE)
"""How far a layer of two masks agrees above chance; ``x`` is its number in the mask, from 0 on."""

CLASS_ERROR = Measure("error of a class", POINTS)
"""``x`` is the class."""

NOT_CONVERGED = "not converged"
"""How the note of a row begins whose value, NaN, is refused."""
ONLY_DRAWN = (
    PLANE,
    PLANE_CORNER,
    WEIGHTS_IN_BIN,
    ERROR_BETWEEN,
    LAST_QUARTER,
    LAYER_AGREEMENT,
    CLASS_ERROR,
    *PRUNING_DISTANCE.values(),
)
"""Measures with too many rows for a table, or that only claims ask for."""
