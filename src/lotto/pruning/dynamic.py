"""Masks that change along a training: some weights are dropped, as many grow elsewhere; or fewer and fewer are left.

Weights, masks and scores are dicts by name. Of equal magnitudes and equal scores the first in position stay, or grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from torch import Tensor

from lotto.core.check import Bounds, Whole, checked
from lotto.core.errors import UsageError, text
from lotto.core.rng import stream
from lotto.pruning import masks
from lotto.pruning.allocation import allocated, check_allocation, keep_top
from lotto.pruning.masks import Mask, MaskLike

Part = Annotated[float, Bounds(0, 1)]
"""Both ends among it."""


@checked
def exchange_counts(mask: MaskLike, fraction: Part) -> dict[str, int]:
    """How many weights of each layer are dropped, and grow: ``round(fraction * kept)``, at most as many as are pruned.

    >>> exchange_counts({"a": torch.tensor([True] * 6 + [False] * 4), "b": torch.ones(5, dtype=torch.bool)}, 0.5)
    {'a': 3, 'b': 0}
    """
    kept = {name: int(keep.sum()) for name, keep in mask.items()}
    return {name: min(round(fraction * kept[name]), keep.numel() - kept[name]) for name, keep in mask.items()}


@checked
def exchange(
    weights: Mapping[str, Tensor], mask: MaskLike, counts: Mapping[str, int], growth: Mapping[str, Tensor]
) -> Mask:
    """Drop the smallest weights of each layer, and let as many grow where the scores are greatest.

    What is dropped here does not grow here: only what was pruned before does. So every layer keeps exactly as many
    weights as it had (Mocanu et al., 1707.04780, algorithm 2; Evci et al., 1911.11134, section 3).

    Args:
        weights: of the mask's shapes; their magnitudes count.
        mask: what is kept now.
        counts: how many of each layer, see `exchange_counts`.
        growth: a score for each weight.

    Raises:
        UsageError: if a score is NaN, or a number is larger than can be exchanged.

    >>> weights, mask = {"fc": torch.tensor([3.0, 1.0, 0.0, 0.0])}, {"fc": torch.tensor([True, True, False, False])}
    >>> exchange(weights, mask, {"fc": 1}, {"fc": torch.tensor([9.0, 9.0, 1.0, 2.0])})["fc"].tolist()
    [True, False, False, True]
    """
    for tensors in (weights, growth):
        masks.check_fits(mask, tensors)
    found = {}
    for name, keep in mask.items():
        kept = int(keep.sum())
        most = min(kept, keep.numel() - kept)
        if not 0 <= counts.get(name, -1) <= most:
            raise UsageError(f"At most {most} weights of {text(name)} can be exchanged; got {text(counts.get(name))}.")
        stays = keep_top({name: weights[name].abs()}, kept - counts[name], {name: keep})[name]
        grows = keep_top({name: growth[name]}, counts[name], {name: ~keep})[name]
        found[name] = stays | grows
    return Mask(found, getattr(mask, "shared", None))


@checked
def random_growth(mask: MaskLike, seed: int, step: Whole) -> dict[str, Tensor]:
    """Scores by which weights grow at random: for each layer and step an order of its own (SET).

    >>> scores = random_growth({"fc": torch.ones(2, 3, dtype=torch.bool)}, seed=0, step=100)["fc"]
    >>> scores.shape, sorted(scores.flatten().tolist())
    (torch.Size([2, 3]), [0, 1, 2, 3, 4, 5])
    """
    return {
        name: torch.from_numpy(stream(seed, f"grow:{masks.layer_of(name)}", step).permutation(keep.numel()))
        .reshape(keep.shape)
        for name, keep in mask.items()
    }  # fmt: skip


@checked
def thinned(
    weights: Mapping[str, Tensor],
    mask: MaskLike,
    density: Part,
    allocation: str = "global",
    keep: Callable[..., Mask] = keep_top,
) -> Mask:
    """Prune the smallest weights until exactly ``round(density * size)`` are left, or as many as there are.

    Args:
        weights: of the mask's shapes; their magnitudes count.
        mask: what is kept now; the result is a subset.
        density: fraction of all prunable weights.
        allocation: how many each layer keeps, one of `ALLOCATIONS`.
        keep: chooses which, as `Pattern.keep` does; whole groups are as many as that number has room for.

    >>> mask = thinned({"fc": torch.tensor([3.0, 1.0, -2.0, 0.5])}, {"fc": torch.ones(4, dtype=torch.bool)}, 0.5)
    >>> mask["fc"].tolist()
    [True, False, True, False]
    """
    check_allocation(allocation)
    masks.check_fits(mask, weights)
    total = min(round(density * masks.size(mask)), masks.count(mask))
    counts = allocated(allocation, Mask(mask), total)
    return Mask(keep({n: weights[n].abs() for n in mask}, counts, mask), getattr(mask, "shared", None))
