"""Allocation: how many weights each layer keeps, and which ones by their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.masks import Mask, MaskLike
from lotto.pruning.scores import Scores


def keep_count(remaining: int, rate: float) -> int:
    """How many weights are left after a cut: exactly ``round(rate * remaining)`` are removed."""
    return remaining - round(rate * remaining)


@checked
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


@checked
def erk_counts(mask: MaskLike, total: int) -> dict[str, int]:
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
