"""What the experiments of *Stabilizing the Lottery Ticket Hypothesis* and its successors measure."""

from __future__ import annotations

from lotto.data import Split
from lotto.experiments.measures import BN_EXAMPLES, DEGREES, L2, NATS, ON_PATH, ORDERS, POINTS, Kind, Measure
from lotto.landscape.path import BATCHNORM

WEIGHT_REWINDING, LR_REWINDING = Kind("weight rewinding"), Kind("lr rewinding")
FINE_TUNING, ITERATIVE = Kind("fine-tuning"), Kind("iterative")

DATA_ORDER, DATA_ORDER_ANGLE = (Measure("data order", unit, (ORDERS,)) for unit in (L2, DEGREES))
PRUNING, PRUNING_ANGLE = Measure("pruning", L2), Measure("pruning", DEGREES)
ERROR_OF_COPIES = Measure("error of the copies", POINTS)
"""Copies restart the optimizer at k: they are not the dense training, whose error is the measure "error"."""
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
"""By what is done about BatchNorm's statistics, split, and quantity."""
TEST_BARRIER = BARRIERS["interpolate", "test", "error"]
