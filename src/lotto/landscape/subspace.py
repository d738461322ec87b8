"""The axial subspace of a mask: the span of its unpruned coordinates (UNM 3.1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.core.weights import Weights, norm
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike


@checked
def project(weights: Weights, mask: MaskLike) -> dict[str, Tensor]:
    """The nearest point of the subspace, ``m * w``: a level's projection is its solution under the next mask."""
    return masks.apply(weights, mask)


@checked
def distance_to(weights: Weights, mask: MaskLike) -> float:
    """L2 distance to the subspace: the length of what ``mask`` prunes."""
    return norm(weights, {name: ~keep.to(torch.bool) for name, keep in mask.items()})


@checked
def random_direction(mask: MaskLike, seed: int) -> dict[str, Tensor]:
    """A direction drawn evenly from the unit sphere of the subspace, over the names of the mask.

    Raises:
        UsageError: if nothing is left of the network.
    """
    check_not_empty(mask)
    drawn = {}
    for name, keep in mask.items():
        values = stream(seed, f"direction:{name}").standard_normal(tuple(keep.shape))
        drawn[name] = torch.from_numpy(np.where(keep.cpu().numpy(), values, 0.0))
    length = math.sqrt(sum(float(t.square().sum()) for t in drawn.values()))
    return {name: t / length for name, t in drawn.items()}


@checked
def perturb(weights: Weights, mask: MaskLike, length: float, seed: int) -> dict[str, Tensor]:
    """A point at distance ``length`` from ``m * w``, in a random direction inside the subspace.

    Raises:
        UsageError: if the length is negative or not finite, or nothing is left of the network.
    """
    if not 0 <= length < math.inf:
        raise UsageError(f"The length of a perturbation is 0 or more; got {length!r}.")
    moved = masks.apply(weights, mask)
    for name, direction in random_direction(mask, seed).items():
        moved[name] = (moved[name].double() + length * direction.to(moved[name].device)).to(moved[name].dtype)
    for other, name in getattr(mask, "shared", {}).items():  # a tied weight moves under all its names
        if other in moved:
            moved[other] = moved[name]
    return moved


def check_not_empty(mask: MaskLike) -> None:
    """Raise ``UsageError`` if a mask keeps nothing."""
    if not masks.count(mask):
        raise UsageError("The axial subspace is empty: the mask keeps no weight.")
