"""Patterns: which sets of weights may be left in a layer, once it is known how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from lotto.pruning.allocation import keep_top
from lotto.pruning.dynamic import exchange, exchange_counts
from lotto.pruning.masks import Mask, MaskLike


@runtime_checkable
class Pattern(Protocol):
    """What may be left of a layer: any weights, whole channels, two of four in a row.

    >>> class WholeInputs:  # those with the largest scores
    ...     def keep(self, scores, counts, within):
    ...         columns = {n: s.sum(0).argsort(descending=True)[: counts[n] // len(s)] for n, s in scores.items()}
    ...         return {n: torch.zeros_like(w).index_fill(1, columns[n], True) for n, w in within.items()}
    >>> isinstance(WholeInputs(), Pattern)
    True
    >>> whole = lotto.pruning.masks.ones(recipe)
    >>> lotto.pruning.prune(weights, whole, 0.5, allocation="layer", pattern=WholeInputs())
    Mask(50 % of 768 weights in 3 layers)
    """

    def keep(self, scores: Mapping[str, Tensor], counts: int | Mapping[str, int], within: MaskLike) -> MaskLike:
        """The weights that are kept.

        Args:
            scores: a score for each weight, by name; the higher ones are kept.
            counts: how many are kept, over all layers together or in each.
            within: what may be kept; the answer is a part of it.
        """


@dataclass(frozen=True)
class Unstructured:
    """Any weight may go by itself: exactly the asked number is kept, of equal scores the first in position.

    >>> w = {"fc.weight": torch.tensor([[3.0, 1.0], [2.0, 2.0]])}
    >>> Unstructured().keep(w, 2, {"fc.weight": torch.ones(2, 2, dtype=torch.bool)})["fc.weight"].tolist()
    [[True, False], [True, False]]
    """

    def keep(self, scores: Mapping[str, Tensor], counts: int | Mapping[str, int], within: MaskLike) -> Mask:
        """See `Pattern.keep` and `lotto.pruning.keep_top`."""
        return keep_top(scores, counts, within)

    def exchange(
        self, weights: Mapping[str, Tensor], mask: MaskLike, fraction: float, growth: Mapping[str, Tensor]
    ) -> Mask:
        """See `lotto.pruning.dynamic.exchange`."""
        return exchange(weights, mask, exchange_counts(mask, fraction), growth)

    def check(self, mask: MaskLike) -> None:
        """Any mask is one of single weights."""

    def possible(self, density: float) -> float:
        """Every density is."""
        return density
