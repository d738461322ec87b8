"""When a mask has settled: Early-Bird tickets (You et al., 1909.11957, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lotto.core.check import Count, NotNegative, checked
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike

LAST, THRESHOLD = 5, 0.1
"""The paper's: so many masks are compared, and they may differ by so much."""


@checked
def mask_distance(a: MaskLike, b: MaskLike) -> float:
    """Weights that one of two masks keeps and not the other, over what both of them keep: 0 if equal, 1 if disjoint.

    The Hamming distance, normalised by the weights that are kept: over all weights, as in the paper, whose masks keep
    30 to 70 % of the channels, it is at most twice the density, and no threshold of 0.1 tells sparse masks apart.

    Args:
        a, b: with the same names and shapes.

    Raises:
        UsageError: if names or shapes differ.

    >>> mask_distance({"fc": torch.tensor([True, True, False])}, {"fc": torch.tensor([True, False, True])})
    0.5
    """
    masks.check_fits(a, b)
    masks.check_fits(b, a)
    differing = sum(int(torch.logical_xor(keep.cpu(), b[name].cpu()).sum()) for name, keep in a.items())
    return differing / max(1, masks.count(a) + masks.count(b))


@checked
def settled(kept: Sequence[MaskLike], threshold: NotNegative = THRESHOLD, last: Count = LAST) -> int | None:
    """Where the mask has settled: the first check whose mask is near each of those before it.

    Args:
        kept: masks of equally distant checks, in order.
        threshold: the `mask_distance` below which two masks are near.
        last: how many masks are compared, that of the check among them.

    Returns:
        The number of the check, from 0 on; None if the mask does not settle.

    Raises:
        UsageError: if fewer than two masks are to be compared.

    >>> one, other = ({"fc": torch.tensor([True, kept])} for kept in (False, True))
    >>> settled([one, other, other, other], last=3), settled([one, other], last=3)
    (3, None)
    """
    if last < 2:
        raise UsageError(f"A mask has settled when it is near those before it, so last is 2 or more; got {last}.")
    for number in range(last - 1, len(kept)):
        before = kept[number - last + 1 : number]
        if all(mask_distance(kept[number], mask) < threshold for mask in before):
            return number
    return None
