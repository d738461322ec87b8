"""What the experiments on permuted masks measure."""

from __future__ import annotations

from lotto.experiments.measures import BN_EXAMPLES, ON_PATH, POINTS, SHARE, Kind, Measure
from lotto.papers.signs.measures import AGREEMENT as AGREEMENT

OWN, NAIVE = Kind("own initialisation"), Kind("another initialisation, as it is")
BY_ACTIVATIONS, BY_WEIGHTS = Kind("permuted by activations"), Kind("permuted by weights")
PERMUTED = {"activations": BY_ACTIVATIONS, "weights": BY_WEIGHTS}
OTHERS_OWN = Kind("the other's own mask")

DISTANCE = Measure("distance of the dense networks, matched over not", SHARE)
WIDTH_ERROR = Measure("error by width", POINTS)
"""``x`` is the factor of the recipe's width."""
BETWEEN = Measure("barrier between initialisations", POINTS, ON_PATH)
RECOMPUTED_BETWEEN = Measure("barrier between initialisations, recomputed", POINTS, (*ON_PATH, BN_EXAMPLES))
BARRIERS = {"interpolate": BETWEEN, "recompute": RECOMPUTED_BETWEEN}
