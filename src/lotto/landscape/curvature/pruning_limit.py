"""How much can be pruned at once: where the remaining subspace stops meeting the sublevel set (UNM 3.3).

The model is a quadratic well around the solution ``w`` with Hessian ``H`` over its D unpruned coordinates (Larsen et
al., 2107.05802). The loss may rise by ``epsilon``. Where the formula is our reading of the paper, it says so.
"""

from __future__ import annotations

from collections.abc import Callable

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
PUBLISHED, CORRECTED = "published", "corrected"
READINGS = (PUBLISHED, CORRECTED)
"""Of the formula's distance and of negative eigenvalues, see `largest_prunable`."""
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
    reading: str = CORRECTED,
) -> float:
    """Predicted largest fraction p of the unpruned weights that can go while the rest still reaches ``loss + epsilon``.

    A random subspace of dimension ``(1 - p) D`` at distance ``R`` meets the well with high probability iff
    ``p <= mean of r_i^2 / (r_i^2 + R^2)`` over the eigenvalues, with radii ``r_i = sqrt(2 epsilon / |lambda_i|)``. The
    readings differ in the distance: pruning moves the weights by ``w_P``, at right angles to what remains.

    - ``published``: ``R = |w_P|``, and negative eigenvalues count by their absolute value, as in the code of UNM's
      successor (Global-One-shot-Pruning, ``cal_rate.py``, 2024).
    - ``corrected`` (ours): the formula is for a subspace *through* a point at distance ``R``, whose nearest point is
      only ``R sqrt(p)`` away, so ``R^2 = |w_P|^2 / p``; along negative eigenvalues the well has no wall, and they count
      as 0.

    In both, what is below the spectrum's noise counts as 0 whatever its sign. Whether a spectrum has enough steps and
    examples for this is another question: see `lotto.landscape.curvature.limits`.

    Args:
        spectrum: of the Hessian at ``weights`` within ``mask``.
        weights: the solution.
        mask: its unpruned coordinates.
        epsilon: rise of the loss that is tolerated, in the loss's unit.
        kind: ``random`` (``|w_P|^2 = p |w|^2``) or ``magnitude`` (the smallest pD squares).
        reading: of the distance.

    Returns:
        The fraction, between 0 and 1 where both sides cross.

    >>> weights, mask = {"w": torch.ones(1, 100)}, {"w": torch.ones(1, 100, dtype=torch.bool)}
    >>> well = lotto.landscape.curvature.Spectrum(nodes=(1.0,), masses=(1.0,), size=100, traces=(100.0,))
    >>> largest_prunable(well, weights, mask, epsilon=12.5, kind="random")  # 25 / (25 + 100)
    0.2
    """
    squared = squared_distances(squared_lengths(weights, mask, kind), reading)
    if not epsilon > 0:
        raise UsageError(f"The tolerated rise of the loss is greater than 0; got {epsilon!r}.")
    return crossing(squared, lambda distance: allowed(spectrum, epsilon, distance, reading))


def allowed(spectrum: Spectrum, epsilon: float, squared: float, reading: str) -> float:
    """The fraction that can be pruned at a squared distance: the mean of ``r_i^2 / (r_i^2 + R^2)``."""

    def part(values: np.ndarray) -> np.ndarray:
        curvature = np.abs(values) if reading == PUBLISHED else np.maximum(values, 0.0)
        curvature = np.where(np.abs(values) <= spectrum.noise, 0.0, curvature)
        return 2 * epsilon / (2 * epsilon + curvature * squared)

    return spectrum.mean(part)


def crossing(squared: np.ndarray, fraction: Callable[[float], float]) -> float:
    """The largest fraction k / D that is allowed at its own squared distance, entry k of 0, 1, ..., D.

    Distances rise with k, and what is allowed falls.
    """
    low, high, count = 0, len(squared) - 1, len(squared) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle / count <= fraction(squared[middle]) else (low, middle - 1)
    return low / count


def squared_distances(lengths: np.ndarray, reading: str) -> np.ndarray:
    """``R^2`` of pruning 0, 1, ..., D weights from the squared lengths of these projections."""
    if reading not in READINGS:
        raise unknown("reading of the distance", reading, READINGS)
    if reading == PUBLISHED:
        return lengths
    fractions = np.arange(1, len(lengths)) / (len(lengths) - 1)
    return np.concatenate([[0.0], lengths[1:] / fractions])


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
