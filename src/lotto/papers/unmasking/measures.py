"""What the experiments of *Unmasking the Lottery Ticket Hypothesis* measure."""

from __future__ import annotations

from lotto.experiments.measures import (
    BN_EXAMPLES,
    COUNT,
    EXAMPLES,
    FRACTION,
    L2,
    NATS,
    ON_PATH,
    POINTS,
    RANDOM,
    SHARE,
    Kind,
    Measure,
)

MAGNITUDE = Kind("magnitude")
CUTS = (RANDOM, MAGNITUDE)
"""How weights are cut at once, in the order of `pruning_limit.KINDS`."""
ADAPTIVE, KEPT, NOT_KEPT = Kind("adaptive"), Kind("kept"), Kind("not kept")
PERTURBED, ANOTHER_ORDER = Kind("perturbed"), Kind("another order")
CORNERS = (Kind("solution"), Kind("projection"), Kind("next solution"))
BEFORE_PRUNING, AFTER_PRUNING, AFTER_RETRAINING = map(Kind, ("before pruning", "after pruning", "after retraining"))

RECOMPUTED_BARRIER = Measure("barrier, statistics recomputed", POINTS, (*ON_PATH, BN_EXAMPLES))
PROJECTION_BARRIER = Measure("barrier from the projection", POINTS, ON_PATH)
PROJECTION_ERROR = Measure("projection error", POINTS, (EXAMPLES,))
NEXT_INITIALISATION_ERROR = Measure("next initialisation error", POINTS, (EXAMPLES,))
PROJECTION_LENGTH = Measure("projection length", L2)

ERROR_AFTER_TRAINING = Measure("error after training", POINTS)
SUCCESSIVE_DISTANCE = Measure("distance of successive rewind points", L2)
REWIND_NORM = Measure("norm of the rewind point", L2)

PROJECTION, SUBSPACE, QUADRATIC, THEORY = "projection", "subspace", "quadratic", "theory"
"""How the loss in the remaining subspace is found, or how much can be pruned."""
RISE = {how: Measure(f"rise of the loss, {how}", NATS) for how in (PROJECTION, SUBSPACE, QUADRATIC)}
ERROR_IN = {how: Measure(f"error, {how}", POINTS) for how in (PROJECTION, SUBSPACE)}
LARGEST_FRACTION = {how: Measure(f"largest share, {how}", SHARE) for how in (PROJECTION, SUBSPACE, QUADRATIC, THEORY)}
FRACTION_TO_LAST = Measure("share to the last level", SHARE)
LARGEST_EIGENVALUE, TRACE = Measure("largest eigenvalue", NATS), Measure("trace", NATS)

FRACTION_TRIED = Measure("share tried", SHARE)
TRAININGS, STEPS = Measure("trainings", COUNT), Measure("steps", COUNT)
DENSITY_REACHED = Measure("density reached", FRACTION)
