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
RECOMPUTED_PROJECTION_BARRIER, RECOMPUTED_PROJECTION_ERROR, RECOMPUTED_NEXT_INITIALISATION_ERROR = (
    Measure(f"{measure.name}, statistics recomputed", measure.unit, (*measure.settings, BN_EXAMPLES))
    for measure in (PROJECTION_BARRIER, PROJECTION_ERROR, NEXT_INITIALISATION_ERROR)
)
"""The same with BatchNorm's statistics re-estimated, of a model that has any."""
PROJECTED = {
    "interpolate": (PROJECTION_BARRIER, PROJECTION_ERROR, NEXT_INITIALISATION_ERROR),
    "recompute": (
        RECOMPUTED_PROJECTION_BARRIER,
        RECOMPUTED_PROJECTION_ERROR,
        RECOMPUTED_NEXT_INITIALISATION_ERROR,
    ),
}
"""By what is done about BatchNorm's statistics: barrier to the next solution, errors of projection and next start."""
CHAIN_ERROR = Measure("error of nested random masks", POINTS)
"""Of a chain of random masks each within the one before, with the layer densities of IMP's levels."""
PROJECTION_LENGTH = Measure("projection length", L2)

ERROR_AFTER_TRAINING = Measure("error after training", POINTS)
SUCCESSIVE_DISTANCE = Measure("distance of successive rewind points", L2)
REWIND_NORM = Measure("norm of the rewind point", L2)

PROJECTION, SUBSPACE, QUADRATIC, THEORY = "projection", "subspace", "quadratic", "theory"
"""How the loss in the remaining subspace is found, or how much can be pruned. `THEORY` is of the first results, with
32 Lanczos steps, which are too few: `THEORIES` are the readings of the formula from spectra that have converged."""
RECOMPUTED_PROJECTION = "projection, statistics recomputed"
THEORIES = {reading: f"theory, {reading}" for reading in ("published", "corrected")}
_SETTINGS = {
    PROJECTION: (EXAMPLES,), SUBSPACE: (EXAMPLES,), RECOMPUTED_PROJECTION: (EXAMPLES, BN_EXAMPLES),
}  # fmt: skip
RISE = {
    how: Measure(f"rise of the loss, {how}", NATS, _SETTINGS.get(how, ()))
    for how in (PROJECTION, RECOMPUTED_PROJECTION, SUBSPACE, QUADRATIC)
}
ERROR_IN = {how: Measure(f"error, {how}", POINTS, (EXAMPLES,)) for how in (PROJECTION, SUBSPACE)}
LARGEST_FRACTION = {
    how: Measure(f"largest share, {how}", SHARE, _SETTINGS.get(how, ()))
    for how in (PROJECTION, RECOMPUTED_PROJECTION, SUBSPACE, QUADRATIC, THEORY, *THEORIES.values())
}
PROBE_ERROR = {r: Measure(f"standard error of the largest share, {how}", SHARE) for r, how in THEORIES.items()}
LANCZOS_STEPS, SPECTRUM_EXAMPLES = Measure("Lanczos steps", COUNT), Measure("examples of the spectrum", COUNT)
FRACTION_TO_LAST = Measure("share to the last level", SHARE)
LARGEST_EIGENVALUE, TRACE = Measure("largest eigenvalue", NATS), Measure("trace", NATS)

TRACE_ERROR = Measure("standard error of the trace", NATS)
WEIGHTS, NORM = Measure("unpruned weights", COUNT), Measure("norm of the solution", L2)
SHARPNESS = Measure("trace times squared norm per weight", NATS)
"""``trace(H) |w|^2 / D``: what the theory knows of a well's mean curvature, whatever its number of weights."""
HALVED_FRACTION = Measure("largest share, subspace, by halving", SHARE, (EXAMPLES,))
ALONG, BLOCK = (
    Measure("curvature along the pruned weights", NATS),
    Measure("mean curvature of the pruned weights", NATS),
)
BLOCK_ERROR = Measure("standard error of the mean curvature", NATS)
ALL = Kind("all weights")

RISE_TO_SUBSPACE = Measure("rise of the loss on the way to the subspace", NATS, ON_PATH)
ERROR_RISE_TO_SUBSPACE = Measure("rise of the error on the way to the subspace", POINTS, ON_PATH)
RECOMPUTED_RISE_TO_SUBSPACE = Measure(f"{RISE_TO_SUBSPACE.name}, recomputed", NATS, (*ON_PATH, BN_EXAMPLES))
RECOMPUTED_ERROR_RISE_TO_SUBSPACE = Measure(
    f"{ERROR_RISE_TO_SUBSPACE.name}, recomputed", POINTS, (*ON_PATH, BN_EXAMPLES)
)
DISTANCE_TO_BEST = Measure("distance to the best point of the subspace", L2)

FRACTION_TRIED = Measure("share tried", SHARE)
TRAININGS, STEPS = Measure("trainings", COUNT), Measure("steps", COUNT)
DENSITY_REACHED = Measure("density reached", FRACTION)
