"""The quadratic model at a solution, solved exactly: what pruning costs once the remaining weights have moved.

For small networks, where the whole Hessian is there. It is the theory of `pruning_limit` without its approximations,
that the remaining subspace is a random one and that a well has only radii.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from torch import Tensor

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError
from lotto.core.fingerprint import affects
from lotto.core.shown import shown
from lotto.core.weights import Weights, digest
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.lanczos import ONE_THREAD
from lotto.landscape.curvature.operator import Hessian
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe

LARGEST = 2_000
"""So many unpruned weights at most: the matrix is stored and inverted."""


@checked
@dataclass(frozen=True, eq=False)
class QuadraticTask(Task):
    """The least rise of the quadratic model for several cuts of one solution.

    Attributes:
        recipe: model, data, loss.
        weights: the solution.
        mask: its unpruned coordinates, at most `LARGEST`.
        cuts: masks within ``mask``.
        examples: the first so many training examples; None = all.
        label: what progress displays call it.
    """

    kind = "quadratic"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: MaskLike
    cuts: Sequence[Mapping[str, Tensor]] = field(
        metadata=affects("outcome", of=lambda t: [digest(cut) for cut in t.cuts])
    )
    examples: Count | None = None
    label: str = ""

    def __post_init__(self) -> None:
        for mask in (self.mask, *self.cuts):
            masks.check_fits(mask, self.weights)
        if masks.count(self.mask) > LARGEST:
            raise UsageError(
                f"The exact quadratic model is for at most {LARGEST} unpruned weights; there are "
                f"{masks.count(self.mask)}."
            )

    @property
    def size(self) -> int:
        """One step for each cut."""
        return len(self.cuts)

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns ``costs``, one for each cut."""
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=self.examples)
        matrix, point, costs = hessian.dense(), hessian.point(), []
        with threadpool_limits(**ONE_THREAD):
            inverse = inverse_of(matrix)
            for done, cut in enumerate(self.cuts, start=1):
                costs.append(quadratic_cost(inverse, point, ~hessian.coordinates(cut)))
                if on_step is not None:
                    on_step(done, math.nan)
        return {"costs": costs}

    __repr__ = shown


def quadratic_cost(inverse: np.ndarray, point: np.ndarray, pruned: np.ndarray) -> float:
    """Least rise of the quadratic model when the coordinates ``pruned`` are 0 and the others are free.

    ``1/2 w_P' ((H^-1)_PP)^-1 w_P``: the minimum over the remaining axial subspace.

    Args:
        inverse: ``H^-1``, shape (D, D), of a positive definite ``H``; see `inverse_of`.
        point: ``w``, shape (D,).
        pruned: which coordinates are 0, boolean, shape (D,).
    """
    chosen = np.flatnonzero(pruned)
    if not len(chosen):
        return 0.0
    block = inverse[np.ix_(chosen, chosen)]
    return float(0.5 * point[chosen] @ np.linalg.solve(block, point[chosen]))


def inverse_of(hessian: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """The inverse of a Hessian whose eigenvalues below ``least`` times the largest are raised to that."""
    values, vectors = np.linalg.eigh(hessian)
    return (vectors / np.maximum(values, least * values[-1])) @ vectors.T
