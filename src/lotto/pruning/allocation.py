"""Allocation: how many weights each layer keeps, and which ones by their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError, text, unknown
from lotto.core.rng import stream
from lotto.pruning import masks
from lotto.pruning.masks import Mask, MaskLike

ALLOCATIONS = ("global", "layer", "erk", "balanced")
Allocation = Callable[[Mask, int], Mapping[str, int]]
"""How many weights each layer keeps: (what is kept now, how many are to be kept of all) to counts that add up, by
name."""


def keep_count(remaining: int, rate: float) -> int:
    """How many weights are left after a cut: exactly ``round(rate * remaining)`` are removed."""
    return remaining - round(rate * remaining)


@checked
def keep_top(scores: Mapping[str, Tensor], counts: int | Mapping[str, int], within: Mapping[str, Tensor]) -> Mask:
    """Keep the highest-scored weights of a mask.

    Args:
        scores: a score for each weight, by name.
        counts: how many to keep: one number over all layers together, or one for each layer.
        within: only weights that this mask keeps are candidates.

    Returns:
        A mask with exactly the asked number of weights; of equal scores the first in position is kept.

    >>> scores, whole = {"fc.weight": torch.tensor([[3.0, 1.0], [2.0, 2.0]])}, torch.ones(2, 2, dtype=torch.bool)
    >>> keep_top(scores, 2, {"fc.weight": whole})["fc.weight"].tolist()
    [[True, False], [True, False]]
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

    >>> erk_counts({"a": torch.ones(10, 10, dtype=torch.bool), "b": torch.ones(40, 40, dtype=torch.bool)}, 200)
    {'a': 40, 'b': 160}
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
    return _rounded({n: float(remaining[n]) if n in full else scale * raw[n] for n in raw}, total)


@checked
def layer_counts(mask: MaskLike, total: int) -> dict[str, int]:
    """How many weights each layer keeps so that all keep the same fraction; the counts add up to ``total``.

    >>> layer_counts({"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(30, dtype=torch.bool)}, 10)
    {'a': 3, 'b': 7}
    """
    if not 0 <= total <= masks.count(mask):
        raise UsageError(f"Cannot keep {total} of {masks.count(mask)} weights.")
    every = max(masks.count(mask), 1)
    return _rounded({n: total * int(m.sum()) / every for n, m in mask.items()}, total)


@checked
def balanced_counts(mask: MaskLike, total: int) -> dict[str, int]:
    """How many weights each layer keeps so that all keep the same number; the counts add up to ``total``.

    A layer that has not so many keeps all that it has, and the others share the rest.

    Args:
        mask: what each layer has, by name.
        total: how many weights are kept of all.

    >>> balanced_counts({"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(300, dtype=torch.bool)}, 100)
    {'a': 10, 'b': 90}
    """
    has = {n: int(m.sum()) for n, m in mask.items()}
    if not 0 <= total <= sum(has.values()):
        raise UsageError(f"Cannot keep {total} of {sum(has.values())} weights.")
    counts, left = {}, total
    for done, name in enumerate(sorted(has, key=lambda n: has[n])):  # the smallest first: what they lack goes on
        counts[name] = min(has[name], left // (len(has) - done))
        left -= counts[name]
    return {n: counts[n] for n in has}


def _rounded(wanted: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to ``total``: the largest fractional parts are rounded up."""
    counts = {n: math.floor(w) for n, w in wanted.items()}
    # Layers that are full have no fractional part to give.
    for name in sorted(wanted, key=lambda n: counts[n] - wanted[n])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def check_allocation(allocation: str | Allocation) -> None:
    """Raise ``UsageError`` for what is neither one of `ALLOCATIONS` nor a function."""
    if isinstance(allocation, str):
        if allocation not in ALLOCATIONS:
            raise unknown("allocation", allocation, ALLOCATIONS)
    elif not callable(allocation):
        raise UsageError(
            f"An allocation is one of {', '.join(ALLOCATIONS)} or a function of (mask, total); got {text(allocation)}."
        )


def allocated(allocation: str | Allocation, mask: Mask, total: int) -> int | dict[str, int]:
    """How many of ``total`` weights each layer keeps; one number where scores decide over all layers together.

    Raises:
        UsageError: if counts of a function do not add up to ``total``, or a layer has not so many weights.
    """
    if allocation == "global":
        return total
    if allocation == "layer":
        return layer_counts(mask, total)
    if allocation == "erk":
        return erk_counts(mask, total)
    if allocation == "balanced":
        return balanced_counts(mask, total)
    assert not isinstance(allocation, str)
    return _checked_counts(allocation, mask, total)


def _checked_counts(allocation: Allocation, mask: Mask, total: int) -> dict[str, int]:
    name = getattr(allocation, "__qualname__", repr(allocation))
    try:
        found = dict(allocation(Mask(dict(mask)), total))
        counts = {n: int(found[n]) for n in mask}
    except Exception as error:  # whatever a user's function may raise
        raise UsageError(
            f"The allocation {name!r} does not say how many weights each layer keeps: {type(error).__name__}, "
            f"{text(str(error))}. It is a function of (mask, total) to a dict of whole numbers by name."
        ) from error
    for layer, count in counts.items():
        left = int(mask[layer].sum())
        if count != found[layer] or not 0 <= count <= left:
            raise UsageError(f"The allocation {name!r} keeps {text(found[layer])} of the {left} weights of {layer!r}.")
    if set(found) != set(mask) or sum(counts.values()) != total:
        raise UsageError(
            f"The allocation {name!r} keeps {sum(counts.values())} weights of {', '.join(found)}; asked for are "
            f"{total} of {', '.join(mask)}."
        )
    return counts


def random_erk(ones: MaskLike, total: int, seed: int) -> Mask:
    """A random mask of so many weights whose layers have the densities of Erdos-Renyi-Kernel.

    Args:
        ones: what may be kept.
        total: how many weights are kept.
        seed: of the draw.

    >>> ones = {"a": torch.ones(4, 4, dtype=torch.bool), "b": torch.ones(8, 8, dtype=torch.bool)}
    >>> random_erk(ones, 40, seed=0)
    Mask(50 % of 80 weights in 2 layers)
    """
    scores = {
        name: torch.from_numpy(stream(seed, f"static:{name}").permutation(keep.numel())).reshape(keep.shape)
        for name, keep in ones.items()
    }
    return keep_top(scores, erk_counts(ones, total), ones)
