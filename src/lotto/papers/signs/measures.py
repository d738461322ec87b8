"""What the experiments on signs and on the agreement of masks measure."""

from __future__ import annotations

from lotto.experiments.measures import LAYER_AGREEMENT as LAYER_AGREEMENT
from lotto.experiments.measures import POINTS, SHARE, Kind, Measure
from lotto.papers.stabilizing.measures import LR_REWINDING as LR_REWINDING
from lotto.papers.stabilizing.measures import WEIGHT_REWINDING as WEIGHT_REWINDING

TICKET = Kind("ticket")
"""IMP's subnetwork as it is, beside those of which something is changed."""
KEPT_SHUFFLED, KEPT_CONSTANT = Kind("signs kept, magnitudes shuffled"), Kind("signs kept, magnitudes constant")
DRAWN_KEPT, DRAWN_SHUFFLED, DRAWN_CONSTANT = (
    Kind(f"signs drawn, magnitudes {magnitudes}") for magnitudes in ("kept", "shuffled", "constant")
)
REWINDINGS = (WEIGHT_REWINDING, LR_REWINDING)

FROM_REWIND_POINT = Measure("signs that differ from the rewind point", SHARE)
IN_LEVEL, SINCE_LEVEL = Measure("signs changed in the level", SHARE), Measure("signs changed since the last", SHARE)
"""Of a level's kept weights at the end of its training: against its start, and against the end of the level before."""
PERTURBED_ERROR = Measure("error after perturbed signs", POINTS)
"""``x`` is the fraction of signs that are turned over at the start of level ``y``; 0 = none."""

OTHER_INITIALISATION, OTHER_ORDER = Kind("another initialisation"), Kind("another order")
OTHER_REWINDING, ONE_CUT, LEVEL_BEFORE = Kind("learning-rate rewinding"), Kind("one cut"), Kind("level before")
OVERLAP, EXPECTED = Measure("overlap of masks", SHARE), Measure("overlap of random masks", SHARE)
AGREEMENT = Measure("agreement above chance", SHARE)
"""``(overlap - expected) / (1 - expected)``: 0 of independent random masks with the same layer densities, 1 of equal
ones; `LAYER_AGREEMENT` is the same of one layer."""
