"""What the experiments on the modes of solutions measure."""

from __future__ import annotations

from lotto.experiments.measures import BN_EXAMPLES, DENSE, IMP, ON_PATH, ONE_SHOT, POINTS, Kind, Measure

SNIP, SYNFLOW = Kind("snip at initialisation"), Kind("synflow at initialisation")
RANDOM = Kind("random at initialisation")
GRADUAL, SET = Kind("gradual, all from the start"), Kind("set, all from the start")
METHODS: dict[str, Kind] = {
    "imp": IMP, "one-shot": ONE_SHOT, "snip": SNIP, "synflow": SYNFLOW, "random": RANDOM, "gradual": GRADUAL,
    "set": SET,
}  # fmt: skip
"""By the names of the option ``methods``."""
AT_INIT = (SNIP, SYNFLOW, RANDOM)
"""Those whose masks are chosen before training."""
SOLUTIONS: tuple[Kind, ...] = (DENSE, *METHODS.values())
"""In the order of their numbers, which ``x`` of `BETWEEN` holds."""
TITLES = {
    IMP: "IMP", ONE_SHOT: "one cut", SNIP: "SNIP", SYNFLOW: "SynFlow", RANDOM: "random ERK", GRADUAL: "gradual",
    SET: "SET",
}  # fmt: skip

_SETTINGS = (*ON_PATH, BN_EXAMPLES)
BETWEEN = Measure("barrier between solutions, recomputed", POINTS, _SETTINGS)
"""``x`` is the number of the other in `SOLUTIONS`, the smaller one."""
COPIES = Measure("barrier between copies, recomputed", POINTS, _SETTINGS)
"""Between two data orders: of the same start and mask or, where masks change, of the same start."""
COPY_ERROR = Measure("error of the copy", POINTS)
MOVED_BETWEEN = Measure("barrier to the dense network from the other start, recomputed", POINTS, _SETTINGS)
MOVED_ERROR = Measure("error from the other start", POINTS)
"""The mask on the initial weights where its own start is the rewind point, and the other way about."""
