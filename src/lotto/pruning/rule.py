"""Pruning = score x scope x count: which weights matter, compared with which others, and how many go.

Exactly ``round(rate * remaining)`` weights are removed; of equal scores the one that comes first (in the
order of the model, then of its memory) is kept; the new mask is a subset of the old one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lotto.core.errors import UsageError, nearest, unknown
from lotto.core.rng import stream
from lotto.core.weights import Weights, first_non_finite
from lotto.pruning import masks
from lotto.pruning.masks import Mask, layer_of

Score = Callable[[Tensor, "Tensor | None", np.random.Generator], Tensor]
"""A score of one layer: (trained weight, its value at the rewind point or None, a generator of its own) to a
tensor of the same shape; the weights with the lowest scores are removed."""

Scores = Mapping[str, Tensor]


def magnitude(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w|: the papers' criterion."""
    return weight.abs()


def random(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """A random order."""
    return torch.from_numpy(generator.random(tuple(weight.shape), dtype=np.float64))


def magnitude_increase(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w| - |w at the rewind point|: keeps the weights that grew (Zhou et al., 1905.01067)."""
    if start is None:
        raise UsageError("The score 'magnitude-increase' needs the weights at the rewind point: start=...")
    return weight.abs() - start.abs()


SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "magnitude-increase": magnitude_increase,
}
MAX_LEVELS = 200
SCOPES = ("global", "layer", "erk")


@dataclass(frozen=True)
class Pruning:
    """How a recipe prunes.

    Attributes:
        rate: share of the remaining weights removed per level, between 0 and 1.
        score: ``magnitude``, ``random``, ``magnitude-increase`` or a function (see `Score`).
        scope: ``global`` compares raw scores across layers; ``layer`` removes the same share of each;
            ``erk`` leaves layer densities proportional to (fan-in + fan-out + kernel) / size.
        rates: layers with a rate of their own, which leave the common pool (0 keeps a layer as it is).
        exclude: layers that are never pruned and do not count in the density.
    """

    rate: float = 0.2
    score: str | Score = "magnitude"
    scope: str = "global"
    rates: Mapping[str, float] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if isinstance(self.exclude, str):
            object.__setattr__(self, "exclude", (self.exclude,))
        if not isinstance(self.rates, Mapping):
            raise UsageError(f"rates are given by layer, such as {{'fc3': 0.1}}; got {self.rates!r}.")
        if not isinstance(self.score, str) and not callable(self.score):
            raise UsageError(f"score is a name or a function; got {self.score!r}.")
        if isinstance(self.score, str) and self.score not in SCORES:
            raise unknown("score", self.score, SCORES)
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES)
        for name, rate in self.rates.items():
            if rate != 0:
                check_rate(rate, f"the rate of {name!r}")

    def __hash__(self) -> int:
        return hash((self.rate, self.score, self.scope, tuple(self.rates.items()), self.exclude))


def check_rate(rate: float, what: str = "the pruning rate") -> None:
    """Raise ``UsageError`` unless 0 < rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        raise UsageError(f"{what[0].upper()}{what[1:]} must be greater than 0 and less than 1; got {rate!r}.")


def prune(
    weights: Weights,
    mask: Mapping[str, Tensor],
    rate: float = 0.2,
    score: str | Score = "magnitude",
    scope: str = "global",
    rates: Mapping[str, float] | None = None,
    *,
    start: Weights | None = None,
    seed: int = 0,
) -> Mask:
    """Remove the lowest-scored share of what the mask still keeps.

    Args:
        weights: trained weights; must hold every name of the mask.
        mask: what is kept now.
        rate: share of the remaining weights to remove.
        score: a name in `SCORES` or a function (see `Score`).
        scope: ``global``, ``layer`` or ``erk`` (see `Pruning`).
        rates: rates of single layers, by layer or weight name.
        start: weights at the rewind point, for scores that use them.
        seed: for scores that draw random numbers.

    Returns:
        The new mask, a subset of ``mask`` with exactly ``round(rate * remaining)`` weights fewer (per layer
        where layers have their own rate).

    Raises:
        UsageError: if a rate is not between 0 and 1, a name is unknown, the mask does not fit, or a score
            is NaN.
    """
    rule = Pruning(rate, score, scope, rates or {})
    mask = Mask({n: m.detach().cpu() for n, m in mask.items()})
    masks.check_fits(mask, weights)
    weights = {n: weights[n].detach().cpu() for n in mask}
    start = None if start is None else {n: start[n].detach().cpu() for n in mask}
    if (bad := first_non_finite({n: weights[n] for n in mask})) is not None:
        raise UsageError(f"Cannot prune: the weights of {bad!r} hold NaN or infinity.")
    scores = {name: _score(rule.score, name, weights[name], start, seed) for name in mask}
    own = _own_rates(rule.rates, list(mask))
    pool = {n: m for n, m in mask.items() if n not in own}
    kept = {n: _keep_count(int(mask[n].sum()), r) for n, r in own.items()}
    result = dict(keep_top(scores, kept, within={n: mask[n] for n in own}))
    if pool:
        if rule.scope == "global":
            result |= keep_top(scores, _keep_count(masks.count(pool), rate), within=pool)
        elif rule.scope == "layer":
            counts = {n: _keep_count(int(m.sum()), rate) for n, m in pool.items()}
            result |= keep_top(scores, counts, within=pool)
        else:
            counts = erk_counts(pool, _keep_count(masks.count(pool), rate))
            result |= keep_top(scores, counts, within=pool)
    return Mask({n: result[n] for n in mask})


def keep_top(scores: Scores, counts: int | Mapping[str, int], within: Mapping[str, Tensor]) -> Mask:
    """Keep the highest-scored weights of a mask.

    Args:
        scores: a score for each weight, by name.
        counts: how many to keep: one number over all layers together, or one for each layer.
        within: only weights that this mask keeps are candidates.

    Returns:
        A mask with exactly the asked number of weights; of equal scores the first in position is kept.
    """
    if not isinstance(counts, int):
        return Mask({n: keep_top(scores, int(counts[n]), {n: m})[n] for n, m in within.items()})
    if not 0 <= counts <= masks.count(within):
        raise UsageError(f"Cannot keep {counts} of {masks.count(within)} weights.")
    candidates = torch.cat([scores[n][m].flatten().double() for n, m in within.items()])
    if bool(torch.isnan(candidates).any()):
        raise UsageError("Cannot prune: a score is NaN.")
    chosen = torch.from_numpy(_top(candidates.numpy(), counts))
    result, at = {}, 0
    for name, keep in within.items():
        size = int(keep.sum())
        part = torch.zeros_like(keep)
        part[keep] = chosen[at : at + size]
        result[name], at = part, at + size
    return Mask(result)


def _top(values: np.ndarray, count: int) -> np.ndarray:
    """Mark the ``count`` largest values; of those equal to the smallest of them, the first ones."""
    if count == 0:
        return np.zeros(values.shape, dtype=bool)
    # A partition, not a sort: linear time on networks of many millions of weights.
    threshold = np.partition(values, values.size - count)[values.size - count]
    chosen = values > threshold
    ties = np.flatnonzero(values == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def erk_counts(mask: Mapping[str, Tensor], total: int) -> dict[str, int]:
    """How many weights each layer keeps so that densities follow Erdos-Renyi-Kernel (Evci et al., 1911.11134).

    Densities are proportional to the sum of a weight's dimensions over their product, as far as a layer
    still has that many weights; the counts add up to ``total``.
    """
    remaining = {n: int(m.sum()) for n, m in mask.items()}
    if not 0 <= total <= sum(remaining.values()):
        raise UsageError(f"Cannot keep {total} of {sum(remaining.values())} weights.")
    raw = {n: sum(m.shape) / math.prod(m.shape) * m.numel() for n, m in mask.items()}
    full: set[str] = set()
    while True:
        left = total - sum(remaining[n] for n in full)
        scale = left / max(sum(raw[n] for n in raw if n not in full), 1e-300)
        over = {n for n in raw if n not in full and scale * raw[n] > remaining[n]}
        if not over:
            break
        full |= over
    wanted = {n: float(remaining[n]) if n in full else scale * raw[n] for n in raw}
    counts = {n: math.floor(w) for n, w in wanted.items()}
    # The largest fractional parts are rounded up; layers that are full have none to give.
    for name in sorted(wanted, key=lambda n: counts[n] - wanted[n])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def levels_for(mask: Mapping[str, Tensor], pruning: Pruning, density: float) -> int:
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


def _keep_count(remaining: int, rate: float) -> int:
    return remaining - round(rate * remaining)


def _score(score: str | Score, name: str, weight: Tensor, start: Weights | None, seed: int) -> Tensor:
    function = SCORES[score] if isinstance(score, str) else score
    result = function(weight, None if start is None else start[name], stream(seed, f"score:{name}"))
    if not isinstance(result, Tensor) or result.shape != weight.shape:
        raise UsageError(
            f"A score function returns a tensor of the weight's shape {tuple(weight.shape)}; "
            f"for {name!r} it returned {getattr(result, 'shape', type(result).__name__)}."
        )
    return result


def _own_rates(rates: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    by_layer = {layer_of(n): n for n in names}
    own = {}
    for name, rate in rates.items():
        if layer_of(name) not in by_layer:
            raise UsageError(f"A rate is given for {name!r}, which is no prunable layer. {nearest(name, by_layer)}")
        own[by_layer[layer_of(name)]] = rate
    return own
