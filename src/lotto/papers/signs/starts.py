"""Where a ticket's training starts when its signs or its magnitudes are not its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from lotto.core.rng import stream
from lotto.core.weights import Weights
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike


class Signs(str, Enum):
    """Of the kept weights: as they are, or each + or − with probability a half."""

    KEPT = "kept"
    DRAWN = "drawn"


class Magnitudes(str, Enum):
    """Of the kept weights: as they are, exchanged within each layer, or their mean in each layer."""

    KEPT = "kept"
    SHUFFLED = "shuffled"
    CONSTANT = "constant"


def changed_start(weights: Weights, mask: MaskLike, signs: Signs, magnitudes: Magnitudes, seed: int) -> Weights:
    """The weights with the kept ones' signs and magnitudes changed independently of each other.

    Zhou et al. (1905.01067) take the standard deviation of the initialisation as the constant; here it is
    the mean magnitude of the layer's kept weights, which is also there when the rewind point is not the start.

    Args:
        weights: a whole state dict; what the mask does not name stays.
        mask: what is kept; the other weights become 0.
        signs, magnitudes: what is changed.
        seed: of the draws; equal ones shuffle magnitudes alike whatever the signs, and draw the same signs.

    >>> mask = {"fc.weight": torch.tensor([True, True, False, True])}
    >>> start = {"fc.weight": torch.tensor([-1.0, 2.0, 5.0, 6.0])}
    >>> changed_start(start, mask, Signs.KEPT, Magnitudes.CONSTANT, seed=0)["fc.weight"].tolist()
    [-3.0, 3.0, 0.0, 3.0]
    """

    def change(name: str, kept: Tensor) -> Tensor:
        sign, size = kept.sign(), kept.abs()
        if signs is Signs.DRAWN:
            sign = _like(stream(seed, f"signs:{name}").integers(2, size=len(kept)) * 2 - 1, kept)
        if magnitudes is Magnitudes.SHUFFLED:
            size = size[torch.from_numpy(stream(seed, f"magnitudes:{name}").permutation(len(kept)))]
        if magnitudes is Magnitudes.CONSTANT and len(kept):
            size = size.double().mean().to(kept.dtype).expand(len(kept))
        return sign * size

    return _changed(weights, mask, change)


def turned_signs(weights: Weights, mask: MaskLike, fraction: float, seed: int) -> Weights:
    """The weights with the signs of a fraction of each layer's kept ones turned over, ``round(fraction × kept)`` each.

    >>> mask = {"fc.weight": torch.tensor([True, True, False, True, True])}
    >>> turned = turned_signs({"fc.weight": torch.ones(5)}, mask, 0.5, seed=0)["fc.weight"]
    >>> turned[2].item(), turned.sum().item()
    (0.0, 0.0)
    """

    def change(name: str, kept: Tensor) -> Tensor:
        order = stream(seed, f"turned:{name}").permutation(len(kept))
        factor = np.ones(len(kept))
        factor[order[: round(fraction * len(kept))]] = -1
        return kept * _like(factor, kept)

    return _changed(weights, mask, change)


def _like(values: np.ndarray, kept: Tensor) -> Tensor:
    return torch.from_numpy(values).to(kept.dtype)


def _changed(weights: Weights, mask: MaskLike, change: Callable[[str, Tensor], Tensor]) -> Weights:
    """Replace each layer's kept weights; a tied weight is the same under all of its names."""
    masked = masks.apply(weights, mask)
    new: dict[str, Tensor] = {}
    for name, keep in mask.items():
        tensor = masked[name].cpu().clone()
        tensor[keep.cpu().bool()] = change(name, tensor[keep.cpu().bool()])
        new[name] = tensor
    shared: Mapping[str, str] = getattr(mask, "shared", {})
    return {**masked, **new, **{other: new[name] for other, name in shared.items()}}
