"""Densities: how many levels of pruning lead to one."""

from __future__ import annotations

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.pruning.rule import Pruning, prune

MAX_LEVELS = 200
"""No more levels than this are tried."""


@checked
def levels_for(mask: MaskLike, pruning: Pruning, density: float) -> int:
    """Levels after which the density is at most ``density``, by pruning a mask at random.

    Raises:
        UsageError: if no number of levels up to 200 gets there (a layer's rate is 0, or the network is small).
    """
    if not 0 < density < 1:
        raise UsageError(f"A target density is greater than 0 and less than 1; got {density!r}.")
    weights = {n: m.float() for n, m in mask.items()}
    for level in range(1, MAX_LEVELS + 1):
        before = masks.count(mask)
        mask = prune(weights, mask, pruning.rate, "random", pruning.scope, pruning.rates)
        if masks.density(mask) <= density * (1 + 1e-6):
            return level
        if masks.count(mask) == before:
            break
    raise UsageError(
        f"The density {density:g} cannot be reached: pruning stops at {masks.density(mask):.3g} "
        "(layers with rate 0 stay, and a rate removes less than half a weight at last)."
    )
