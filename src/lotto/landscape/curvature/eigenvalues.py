"""Curvature over the unpruned coordinates: top eigenvalues, spectral density, trace. `curvature` has the Hessian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lotto.core.weights import Weights
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.lanczos import Spectrum, Top, spectrum_of, top_of
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe


def top(
    recipe: Recipe,
    weights: Weights,
    mask: Mapping[str, Tensor] | None = None,
    k: int = 10,
    *,
    examples: int | None = None,
    tolerance: float = 1e-6,
    iterations: int | None = None,
    seed: int = 0,
) -> Top:
    """The ``k`` largest (algebraic) eigenvalues by the implicitly restarted Lanczos method (``scipy``'s ``eigsh``).

    Args:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        k: how many, at least 1 and at most D.
        examples: the first so many training examples; None = all.
        tolerance: relative accuracy at which an eigenvalue counts as converged.
        iterations: at most so many restarts; None = scipy's default.
        seed: of the start vector.

    Returns:
        What converged, with residuals; `Top.converged` is False when that is less than ``k``.
    """
    return top_of(Hessian(recipe, weights, mask, examples=examples), k, tolerance, iterations, seed)


def spectrum(
    recipe: Recipe,
    weights: Weights,
    mask: Mapping[str, Tensor] | None = None,
    *,
    steps: int = 64,
    probes: int = 4,
    examples: int | None = None,
    seed: int = 0,
) -> Spectrum:
    """The spectral density by stochastic Lanczos quadrature (Golub and Welsch; Ghorbani et al., 1901.10159).

    Args:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        steps: Lanczos steps of each probe, with full reorthogonalisation: products with the Hessian, nodes.
        probes: random start vectors.
        examples: the first so many training examples; None = all.
        seed: of the probes.
    """
    return spectrum_of(Hessian(recipe, weights, mask, examples=examples), steps, probes, seed)


@dataclass(frozen=True, eq=False)
class SpectrumTask(Task):
    """Top eigenvalues and spectral density at one point, as a task for an engine.

    Attributes:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        k: top eigenvalues; 0 for none.
        steps, probes: of the spectral density.
        examples: the first so many training examples; None = all.
        seed: of all that is random.
        label: what progress displays call it.
    """

    kind = "spectrum"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: Mapping[str, Tensor]
    k: int = 1
    steps: int = 64
    probes: int = 4
    examples: int | None = None
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        check_not_empty(self.mask)
        masks.check_fits(self.mask, self.weights)

    @property
    def size(self) -> int:
        """About one step for each product with the Hessian."""
        return self.steps * self.probes + 10 * self.k

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns ``top``, ``residuals``, ``nodes``, ``masses``, ``size``, ``traces``."""
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=self.examples)
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if on_step is not None:
                on_step(min(done, self.size), math.nan)

        found = spectrum_of(hessian, self.steps, self.probes, self.seed, count)
        largest = (
            top_of(hessian, min(self.k, hessian.size), seed=self.seed, on_product=count)
            if self.k
            else Top((), (), True)
        )
        return {
            "top": list(largest.values),
            "residuals": list(largest.residuals),
            "nodes": list(found.nodes),
            "masses": list(found.masses),
            "size": found.size,
            "traces": list(found.traces),
        }


def spectrum_from(outcome: Mapping[str, Any]) -> Spectrum:
    """The spectrum that a `SpectrumTask` computed."""
    return Spectrum(tuple(outcome["nodes"]), tuple(outcome["masses"]), outcome["size"], tuple(outcome["traces"]))


__all__ = ["Hessian", "Spectrum", "SpectrumTask", "Top", "spectrum", "spectrum_from", "top"]
