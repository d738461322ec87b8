"""How much can be pruned at once: where the remaining subspace stops meeting the sublevel set (UNM section 5).

The model is a quadratic well around the solution ``w`` with Hessian ``H`` over its D unpruned coordinates (Larsen et
al., 2107.05802). The loss may rise by ``epsilon``. Where the formula is our reading of the paper, it says so.
"""

from __future__ import annotations

import numpy as np

from lotto.core.check import Positive, checked
from lotto.core.errors import UsageError, unknown
from lotto.core.weights import Weights
from lotto.landscape.curvature.lanczos import Spectrum
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import in_nats

KINDS = ("random", "magnitude")
EPSILON = 0.1
"""Rise of the training loss, in nats, up to which a point belongs to the sublevel set."""
RELATIVE_EPSILON = 0.05
"""The same for a loss in any other unit: part of the solution's loss."""


def tolerated_rise(recipe: Recipe, loss: float, epsilon: float = EPSILON) -> float:
    """``epsilon`` of a loss in nats, `RELATIVE_EPSILON` of the value ``loss`` of any other."""
    return epsilon if in_nats(recipe.loss_function) else RELATIVE_EPSILON * abs(loss)


@checked
def largest_prunable(
    spectrum: Spectrum,
    weights: Weights,
    mask: MaskLike,
    epsilon: Positive,
    kind: str = "magnitude",
) -> float:
    """Predicted largest fraction p of the unpruned weights that can go while the rest still reaches ``loss + epsilon``.

    A random subspace of dimension ``(1 - p) D`` at distance ``R`` meets the well with high probability iff
    ``p <= mean of r_i^2 / (r_i^2 + R^2)`` over the eigenvalues, with radii ``r_i = sqrt(2 epsilon / lambda_i)``;
    ``R`` is the length of the pruning projection at that fraction (our reading; papers say which parts). Eigenvalues
    below 0 count as 0: along them the well has no wall, so they contribute 1.

    Args:
        spectrum: of the Hessian at ``weights`` within ``mask``.
        weights: the solution.
        mask: its unpruned coordinates.
        epsilon: rise of the loss that is tolerated, in the loss's unit.
        kind: ``random`` (``R^2 = p |w|^2``) or ``magnitude`` (the smallest pD squares).

    Returns:
        The fraction, between 0 and 1 where both sides cross.
    """
    lengths = squared_lengths(weights, mask, kind)
    if not epsilon > 0:
        raise UsageError(f"The tolerated rise of the loss is greater than 0; got {epsilon!r}.")

    def fraction(squared: float) -> float:
        return spectrum.mean(lambda values: 2 * epsilon / (2 * epsilon + np.maximum(values, 0.0) * squared))

    low, high, count = 0, len(lengths) - 1, len(lengths) - 1
    while low < high:  # the largest number whose fraction the well allows; the one side falls, the other rises
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle / count <= fraction(lengths[middle]) else (low, middle - 1)
    return low / count


@checked
def squared_lengths(weights: Weights, mask: MaskLike, kind: str) -> np.ndarray:
    """Squared length of the projection that prunes 0, 1, ..., D weights; for random pruning its expectation."""
    if kind not in KINDS:
        raise unknown("kind of pruning", kind, KINDS)
    masks.check_fits(mask, weights)
    parts = [weights[name][keep.to(weights[name].device)].double().cpu().numpy() for name, keep in mask.items()]
    squares = np.concatenate([*parts, np.zeros(0)]) ** 2
    if not len(squares):
        raise UsageError("The axial subspace is empty: the mask keeps no weight.")
    if kind == "random":
        return np.linspace(0.0, squares.sum(), len(squares) + 1)
    return np.concatenate([[0.0], np.cumsum(np.sort(squares))])
