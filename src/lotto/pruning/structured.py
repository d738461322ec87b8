"""Patterns of whole groups: blocks of a matrix, channels, n of every m weights in a row.

What is exact is exact for each group: a block or a channel goes as a whole or stays, and of every m weights as many
stay as the density says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core import registry
from lotto.core.check import Count, checked
from lotto.core.errors import UsageError, text
from lotto.pruning.dynamic import exchange, exchange_counts
from lotto.pruning.masks import Mask, MaskLike, layer_of
from lotto.pruning.patterns import Pattern, Unstructured

ENTRY_POINTS = "lotto.patterns"


class Groups:
    """Patterns whose groups go or stay as a whole, by the mean score of their weights."""

    def split(self, name: str, matrix: Tensor) -> Tensor:
        """The groups of a matrix [outputs, all else] as rows [groups, weights of each]."""
        raise NotImplementedError

    def join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `split`, of a tensor of a weight's shape."""
        raise NotImplementedError

    def keep(self, scores: Mapping[str, Tensor], counts: int | Mapping[str, int], within: MaskLike) -> Mask:
        """The groups of highest mean score, as many as the count has room for; of equal ones the first in position.

        Raises:
            UsageError: if a layer's shape cannot be divided, a part of a group has been pruned, or a layer would be
                left without any group.
        """
        if not isinstance(counts, int):
            found: dict[str, Tensor] = {}
            for name, whole in within.items():
                found |= self.keep({name: scores[name]}, int(counts[name]), {name: whole})
                if counts[name] and not bool(found[name].any()):
                    raise UsageError(
                        f"{counts[name]:,} weights of {layer_of(name)!r} are less than one group of {self!r}: exclude "
                        f"that layer from pruning, exclude=({layer_of(name)!r},), or leave more."
                    )
            return Mask(found)
        parts = {name: self._alive(name, whole) for name, whole in within.items()}
        means = [self.rows_of(name, scores[name]).double().mean(1)[alive] for name, alive in parts.items()]
        sizes = [np.full(int(alive.sum()), within[name].numel() // len(alive)) for name, alive in parts.items()]
        order = np.argsort(-torch.cat(means).numpy(), kind="stable")
        taken = np.zeros(len(order), dtype=bool)
        taken[order] = np.cumsum(np.concatenate(sizes)[order]) <= counts
        result, at = {}, 0
        for name, alive in parts.items():
            kept = torch.zeros_like(alive)
            kept[alive] = torch.from_numpy(taken[at : at + int(alive.sum())])
            at += int(alive.sum())
            result[name] = self._whole(kept, within[name].shape)
        return Mask(result)

    def exchange(
        self, weights: Mapping[str, Tensor], mask: MaskLike, fraction: float, growth: Mapping[str, Tensor]
    ) -> Mask:
        """Drop the groups of smallest mean magnitude of each layer; as many of the highest mean score grow.

        Args:
            weights: of the mask's shapes.
            mask: of whole groups.
            fraction: of a layer's groups that are exchanged, see `exchange_counts`.
            growth: a score for each weight.

        Raises:
            UsageError: as `keep`.
        """
        alive = {name: self._alive(name, keep) for name, keep in mask.items()}
        sizes, scores = (
            {name: self.rows_of(name, tensors[name].abs()).double().mean(1) for name in mask}
            for tensors in (weights, growth)
        )
        found = exchange(sizes, alive, exchange_counts(alive, fraction), scores)
        whole = {name: self._whole(found[name], keep.shape) for name, keep in mask.items()}
        return Mask(whole, getattr(mask, "shared", None))

    def check(self, mask: MaskLike) -> None:
        """Raise ``UsageError`` unless a mask is one of whole groups."""
        for name, keep in mask.items():
            self._alive(name, keep)

    def possible(self, density: float) -> float:
        """Every density is: as many groups are left as it has room for."""
        return density

    def _whole(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """A mask of a weight's shape, from which groups are kept."""
        return self.join(kept[:, None].expand(-1, shape.numel() // len(kept)), shape).contiguous()

    def rows_of(self, name: str, tensor: Tensor) -> Tensor:
        """The groups of a tensor of a weight's shape; raises ``UsageError`` if that cannot be divided."""
        return self.split(name, tensor.reshape(tensor.shape[0], -1))

    def _alive(self, name: str, whole: Tensor) -> Tensor:
        """Which groups are left."""
        rows = self.rows_of(name, whole)
        left = rows.any(1)
        if bool((left & ~rows.all(1)).any()):
            raise UsageError(f"Parts of groups of {layer_of(name)!r} have been pruned; {self!r} leaves whole ones.")
        return left


@checked
@dataclass(frozen=True)
class Block(Groups):
    """Blocks of a weight's matrix [outputs, inputs x kernel] go or stay as a whole, by the mean of their scores.

    Args:
        rows: outputs in a block.
        columns: inputs in a block.

    >>> weights = {"fc.weight": torch.tensor([[5.0, 1.0, 1.0, 3.0], [5.0, 2.0, 1.0, 3.0]])}
    >>> whole = {"fc.weight": torch.ones(2, 4, dtype=torch.bool)}
    >>> lotto.pruning.prune(weights, whole, density=0.5, pattern=Block(2, 1))["fc.weight"].int().tolist()
    [[1, 0, 0, 1], [1, 0, 0, 1]]
    """

    rows: Count = 4
    columns: Count = 1

    def split(self, name: str, matrix: Tensor) -> Tensor:
        """See `Groups.split`."""
        outputs, inputs = matrix.shape
        if outputs % self.rows or inputs % self.columns:
            raise UsageError(
                f"{layer_of(name)!r} is a matrix of {outputs} x {inputs} weights, which {self!r} does not divide; "
                f"exclude it from pruning, exclude=({layer_of(name)!r},), or take other blocks."
            )
        cut = matrix.reshape(outputs // self.rows, self.rows, inputs // self.columns, self.columns)
        return cut.transpose(1, 2).reshape(-1, self.rows * self.columns)

    def join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """See `Groups.join`."""
        down = shape[0] // self.rows
        return rows.reshape(down, -1, self.rows, self.columns).transpose(1, 2).reshape(shape)


@dataclass(frozen=True)
class Channel(Groups):
    """Whole outputs of a layer go: channels of a convolution, units of a linear layer, by the mean of their scores.

    `lotto.inference.compact` makes a smaller dense network of what is left. The last layer's outputs are the classes:
    exclude it.

    >>> weights = {"fc.weight": torch.tensor([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [0.0, 9.0]])}
    >>> whole = {"fc.weight": torch.ones(4, 2, dtype=torch.bool)}
    >>> lotto.pruning.prune(weights, whole, density=0.5, pattern=Channel())["fc.weight"].int().tolist()
    [[0, 0], [1, 1], [0, 0], [1, 1]]
    """

    def split(self, name: str, matrix: Tensor) -> Tensor:
        """See `Groups.split`."""
        return matrix

    def join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """See `Groups.join`."""
        return rows.reshape(shape)


@checked
@dataclass(frozen=True)
class NByM:
    """Of every m weights in a row along a layer's inputs at least n are left: 2:4 is what graphics cards know.

    A density is a part of m: with ``NByM(2, 4)``, 0.75 leaves 3 and 0.5 leaves 2 of every 4, those of the highest
    scores, of equal ones the first. Every layer has the same. In a convolution the m weights are those of m successive
    input channels at one place of the kernel.

    Args:
        n: how many are left in the end, from 1.
        m: of how many, more than n.

    >>> weights = {"fc.weight": torch.tensor([[5.0, 1.0, 2.0, 3.0, 1.0, 1.0, 0.0, 4.0]])}
    >>> whole = {"fc.weight": torch.ones(1, 8, dtype=torch.bool)}
    >>> lotto.pruning.prune(weights, whole, density=0.5, pattern=NByM(2, 4))["fc.weight"].int().tolist()
    [[1, 0, 0, 1, 1, 0, 0, 1]]
    """

    n: Count = 2
    m: Count = 4

    def __post_init__(self) -> None:
        if not self.n < self.m:
            raise UsageError(f"Of m weights n are left, 1 <= n < m, as in NByM(2, 4); got NByM({self.n}, {self.m}).")

    def keep(self, scores: Mapping[str, Tensor], counts: int | Mapping[str, int], within: MaskLike) -> Mask:
        """The highest-scored of every m.

        Raises:
            UsageError: if a layer's inputs are no multiple of m, the count is no part of m, or some m have fewer left.
        """
        total = sum(whole.numel() for whole in within.values())
        result = {}
        for name, whole in within.items():
            asked = counts / total if isinstance(counts, int) else counts[name] / whole.numel()
            groups, alive = self.rows_of(name, scores[name].double()), self.rows_of(name, whole)
            left = self._left(asked, name)
            if bool((alive.sum(1) < left).any()):
                raise UsageError(f"Some {self.m} weights of {layer_of(name)!r} have fewer than {left} left.")
            order = groups.masked_fill(~alive, -torch.inf).argsort(dim=1, descending=True, stable=True)
            places = (~alive).gather(1, order).argsort(dim=1, stable=True)  # of scores of -inf, those that are left
            kept = torch.zeros_like(alive).scatter(1, order.gather(1, places)[:, :left], True)
            result[name] = self._back(kept, whole.shape)
        return Mask(result)

    def exchange(
        self, weights: Mapping[str, Tensor], mask: MaskLike, fraction: float, growth: Mapping[str, Tensor]
    ) -> Mask:
        """Let a weight of a group grow in the place of its smallest one, in the groups where that is smallest.

        So every m keep as many as they had, and at most one of them is exchanged at a time. Of equal magnitudes and
        scores the first in position stay, and grow.

        Args:
            weights: of the mask's shapes.
            mask: what is kept now.
            fraction: of a layer's kept weights that are exchanged, or of its groups, if these are fewer.
            growth: a score for each weight.
        """
        found = {}
        for name, keep in mask.items():
            alive = self.rows_of(name, keep)
            open_ = alive.any(1) & ~alive.all(1)
            count = min(round(fraction * int(alive.sum())), int(open_.sum()))
            sizes = self.rows_of(name, weights[name].double().abs()).masked_fill(~alive, torch.inf)
            scores = self.rows_of(name, growth[name].double()).masked_fill(alive, -torch.inf)
            if bool(scores.isnan().any()):
                raise UsageError(f"Scores of {layer_of(name)!r} are NaN.")
            smallest, dropped = sizes.flip(1).sort(dim=1, stable=True)  # of equal ones the last in position goes
            chosen = smallest[:, 0].masked_fill(~open_, torch.inf).argsort(stable=True)[:count]
            grown = scores.sort(dim=1, descending=True, stable=True)[1]
            now = alive.clone()
            now[chosen, self.m - 1 - dropped[chosen, 0]] = False
            now[chosen, grown[chosen, 0]] = True
            found[name] = self._back(now, keep.shape)
        return Mask(found, getattr(mask, "shared", None))

    def check(self, mask: MaskLike) -> None:
        """Raise ``UsageError`` unless n weights or more of every m are left."""
        for name, keep in mask.items():
            if int(self.rows_of(name, keep).sum(1).min()) < self.n:
                raise UsageError(f"Some {self.m} weights of {layer_of(name)!r} have fewer than {self.n} left.")

    def possible(self, density: float) -> float:
        """The lowest density, of those that it has, that is no lower."""
        return max(self.n, min(self.m, math.ceil(density * self.m - 1e-6))) / self.m

    def _left(self, density: float, name: str) -> int:
        left = round(density * self.m)
        if abs(density * self.m - left) > 1e-6 * self.m or not self.n <= left <= self.m:
            possible = ", ".join(f"{j / self.m:g}" for j in range(self.m - 1, self.n - 1, -1))
            raise UsageError(
                f"{self!r} leaves {self.n} or more of every {self.m} weights, so densities={possible}; asked for is "
                f"{density:.4g} of {layer_of(name)!r}. Layers that are left whole are excluded: exclude=('fc',)."
            )
        return left

    def rows_of(self, name: str, tensor: Tensor) -> Tensor:
        """The weights in groups of m; raises ``UsageError`` if the inputs are no multiple of it."""
        inputs = tensor.shape[1]
        if inputs % self.m:
            raise UsageError(
                f"{layer_of(name)!r} has {inputs} inputs, no multiple of the {self.m} of {self!r}; exclude it from "
                f"pruning: exclude=({layer_of(name)!r},)."
            )
        return tensor.movedim(1, -1).reshape(-1, self.m)

    def _back(self, rows: Tensor, shape: torch.Size) -> Tensor:
        moved = (shape[0], *shape[2:], shape[1])
        return rows.reshape(moved).movedim(-1, 1).contiguous()


PATTERNS: dict[str, Any] = {"unstructured": Unstructured(), "2:4": NByM(2, 4), "channel": Channel(), "block": Block()}
"""By name; ``n:m`` and ``block:4x1`` with other numbers as well."""


def named_pattern(pattern: str | Pattern) -> Pattern:
    """A pattern by its name, such as ``1:4``, ``block:16x1``, ``channel``, or ``package.module:object``.

    Raises:
        UsageError: if there is none of that name, or it has no method ``keep(scores, counts, within)``.

    >>> named_pattern("1:4"), named_pattern("block:16x1")
    (NByM(n=1, m=4), Block(rows=16, columns=1))
    """
    if isinstance(pattern, str):
        if found := re.fullmatch(r"(\d+):(\d+)", pattern):
            return NByM(int(found[1]), int(found[2]))
        if found := re.fullmatch(r"block:(\d+)x(\d+)", pattern):
            return Block(int(found[1]), int(found[2]))
        pattern = registry.find("pattern", pattern, PATTERNS, ENTRY_POINTS)
    if not isinstance(pattern, Pattern):
        raise UsageError(f"A pattern has a method keep(scores, counts, within); got {text(pattern)}.")
    return pattern
