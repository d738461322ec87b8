"""What the experiments on what matching hides measure."""

from __future__ import annotations

from lotto.experiments.measures import CLASS_ERROR as CLASS_ERROR
from lotto.experiments.measures import COUNT, FRACTION, NATS, POINTS, SHARE, Kind, Measure
from lotto.papers.signs.measures import OTHER_ORDER as OTHER_ORDER

ORDER_ERROR = Measure("error of another order", POINTS)
"""Of the dense network that parts from the other at the rewind point: the yardstick of what two trainings differ in."""
WORST_CLASS, CLASS_SPREAD = Measure("error of the worst class", POINTS), Measure("spread of class errors", POINTS)
"""The spread is the standard deviation over classes."""
CLASS_RISE = Measure("largest rise of a class error", POINTS)
"""Over the dense network's error of the same class, of the class that rises most."""
CALIBRATION = Measure("expected calibration error", SHARE)
LOG_LOSS = Measure("negative log-likelihood", NATS)
BRIER = Measure("Brier score", SHARE)
CHANGED, FLIPPED = Measure("predictions changed", SHARE), Measure("right and wrong exchanged", SHARE)
"""Shares of the test examples whose predicted class is not the dense network's; that one of both gets right."""

NARROW = Kind("narrower dense network")
PARAMETERS = Measure("parameters", COUNT)
"""Of a ticket the weights that are left and all that are never pruned."""
TUNED_ERROR, RATE_ERROR = Measure("error at the best rate", POINTS), Measure("error by rate", POINTS)
"""The best rate by held-out examples; ``x`` of the other is the factor of the recipe's rate."""
BEST_FACTOR = Measure("best rate, times the recipe's", FRACTION)

OWN, MOVED, MASK = Kind("ticket found there"), Kind("moved ticket"), Kind("moved mask")
"""The moved ticket has its own rewound weights, the moved mask those of the dense network there."""
MOVED_ERRORS = {
    "optimizer": Measure("error by another optimizer", POINTS), "data": Measure("error on other data", POINTS)
}  # fmt: skip
LATE = {
    "optimizer": Measure("error lost in the last quarter by another optimizer", POINTS),
    "data": Measure("error lost in the last quarter on other data", POINTS),
}
"""As `LAST_QUARTER`, of the dense network where tickets are moved to."""
