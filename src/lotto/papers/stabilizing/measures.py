"""What the experiments of *Stabilizing the Lottery Ticket Hypothesis* and its successors measure."""

from __future__ import annotations

from lotto.experiments.measures import DEGREES, L2, ORDERS, POINTS, Kind, Measure

WEIGHT_REWINDING, LR_REWINDING = Kind("weight rewinding"), Kind("lr rewinding")
FINE_TUNING, ITERATIVE = Kind("fine-tuning"), Kind("iterative")

DATA_ORDER, DATA_ORDER_ANGLE = (Measure("data order", unit, (ORDERS,)) for unit in (L2, DEGREES))
PRUNING, PRUNING_ANGLE = Measure("pruning", L2), Measure("pruning", DEGREES)
ERROR_OF_COPIES = Measure("error of the copies", POINTS)
"""Copies restart the optimizer at k: they are not the dense training, whose error is the measure "error"."""
