"""Curvature of what is pruned: along the displacement, and on average over the pruned coordinates (UNM 3.3).

UNM says that magnitude pruning does better than random pruning because it finds flatter directions. Pruning the set
``P`` of a solution ``w`` moves it by ``-w_P``. Its loss rises by half of ``w_P' H w_P``, to second order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import Count, Few, checked
from lotto.core.errors import UsageError
from lotto.core.fingerprint import affects
from lotto.core.rng import stream
from lotto.core.shown import shown
from lotto.core.weights import Weights, digest
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.eigenvalues import counter
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe

PROBES = 16
"""Random signs per block: the mean curvature of a block has a standard error of some percent."""


@dataclass(frozen=True)
class Block:
    """The curvature of a set of coordinates.

    Attributes:
        size: how many coordinates.
        length: L2 length of the weights there.
        rayleigh: ``w_P' H w_P / w_P' w_P``, the curvature along the displacement; NaN where all these weights are 0.
        means: an estimate of ``trace(H_PP) / |P|`` for each probe (Hutchinson).

    >>> block = Block(size=100, length=2.0, rayleigh=0.5, means=(0.1, 0.3))
    >>> block.mean, round(block.error, 6), block.trace
    (0.2, 0.1, 20.0)
    """

    size: int
    length: float
    rayleigh: float
    means: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean curvature of the block."""
        return float(np.mean(self.means))

    @property
    def error(self) -> float:
        """Standard error of the mean over the probes; NaN for one probe."""
        n = len(self.means)
        return float(np.std(self.means, ddof=1)) / math.sqrt(n) if n > 1 else math.nan

    @property
    def trace(self) -> float:
        """Estimate of the sum of the block's diagonal."""
        return self.size * self.mean

    __repr__ = shown


@checked
def pruned_block(
    recipe: Recipe,
    weights: Weights,
    mask: MaskLike,
    cut: MaskLike,
    *,
    probes: Few = PROBES,
    examples: Count | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Block:
    """The curvature of the coordinates that ``cut`` prunes of ``mask``.

    Args:
        recipe: model, data, loss.
        weights: the solution.
        mask: its unpruned coordinates.
        cut: a mask within ``mask``, which keeps less.
        probes: random sign vectors for the mean curvature.
        examples: the first so many training examples; None = all.
        seed: of the probes.
        engine, store, device, progress: as of `lotto.train`.

    >>> small = lotto.pruning.prune(weights, mask, rate=0.25)
    >>> pruned_block(recipe, weights, mask, small, probes=2).size  # of 384 weights
    96
    """
    task = BlocksTask(recipe, weights, mask, [cut], probes, examples, seed, "curvature of a block")
    return blocks_from(outcome_of(task, engine, store, device, progress))[0]


@checked
@dataclass(frozen=True, eq=False)
class BlocksTask(Task):
    """The curvature of several sets of coordinates of one solution, as a task for an engine.

    Attributes:
        recipe: model, data, loss.
        weights: the solution.
        mask: its unpruned coordinates.
        cuts: masks within ``mask``; a block is what one of them prunes. One that keeps nothing is the whole Hessian's.
        probes: random sign vectors for the mean curvature of each.
        examples: the first so many training examples; None = all.
        seed: of the probes.
        label: what progress displays call it.

    >>> whole = lotto.pruning.masks.ones(recipe)
    >>> (outcome,) = lotto.engine.make(jobs=1).run([BlocksTask(recipe, weights, whole, [mask], probes=2)])
    >>> [block.size for block in blocks_from(outcome)]
    [384]
    """

    kind = "blocks"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: MaskLike
    cuts: Sequence[Mapping[str, Tensor]] = field(
        metadata=affects("outcome", of=lambda t: [digest(cut) for cut in t.cuts])
    )
    probes: Few = PROBES
    examples: Count | None = None
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        check_not_empty(self.mask)
        if self.probes < 1:
            raise UsageError(f"A mean curvature needs at least one probe; got {self.probes}.")
        for mask in (self.mask, *self.cuts):
            masks.check_fits(mask, self.weights)
        for cut in self.cuts:
            if missing := sorted({*self.mask} - {*cut}):
                raise UsageError(
                    f"The cut says nothing of {', '.join(missing[:3])}, which the mask has; a cut has every layer of "
                    "it, as lotto.pruning.prune gives them."
                )

    @property
    def size(self) -> int:
        """One step for each product with the Hessian."""
        return len(self.cuts) * (1 + self.probes)

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns for each cut ``size``, ``length``, ``rayleigh`` (None without a displacement), ``means``."""
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=self.examples)
        point, count = hessian.point(), counter(self.size, on_step)
        found = []
        for number, cut in enumerate(self.cuts):
            kept = hessian.coordinates(cut)
            if kept.all():
                raise UsageError("The cut prunes nothing of the mask, so there is no block; prune at a higher rate.")
            moved = np.where(kept, 0.0, point)
            square, rayleigh = float(moved @ moved), None
            if square:
                rayleigh = float(moved @ (hessian @ moved)) / square
            count()
            means = []
            for probe in range(self.probes):
                signs = np.where(stream(self.seed, f"block {number}", probe).random(hessian.size) < 0.5, -1.0, 1.0)
                signs[kept] = 0.0
                means.append(float(signs @ (hessian @ signs)) / int((~kept).sum()))
                count()
            found.append(
                {"size": int((~kept).sum()), "length": math.sqrt(square), "rayleigh": rayleigh, "means": means}
            )
        return {"blocks": found}

    __repr__ = shown


def blocks_from(outcome: Mapping[str, Any]) -> list[Block]:
    """The blocks that a `BlocksTask` computed, in the order of its cuts."""
    return [
        Block(b["size"], b["length"], math.nan if b["rayleigh"] is None else b["rayleigh"], tuple(b["means"]))
        for b in outcome["blocks"]
    ]
