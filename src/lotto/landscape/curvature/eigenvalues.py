"""Curvature over the unpruned coordinates: top eigenvalues, spectral density, trace. `curvature` has the Hessian."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lotto.core.check import Count, Few, NotNegative, checked
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.lanczos import Spectrum, Top, check_k, spectrum_of, top_of
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe


@checked
def top(
    recipe: Recipe,
    weights: Weights,
    mask: MaskLike | None = None,
    k: int = 10,
    *,
    examples: Count | None = None,
    tolerance: NotNegative = 1e-6,
    iterations: Count | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
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
        engine, store, device, progress: as of `lotto.train`.

    Returns:
        What converged, with residuals; `Top.converged` is False when that is less than ``k``.

    >>> found = top(recipe, weights, k=2, examples=50)
    >>> found.converged, found.values[0] >= found.values[1]
    (True, True)
    """
    mask = masks.ones(recipe) if mask is None else mask
    task = TopTask(recipe, weights, mask, k, examples, tolerance, iterations, seed, "top eigenvalues")
    return top_from(outcome_of(task, engine, store, device, progress))


@checked
def spectrum(
    recipe: Recipe,
    weights: Weights,
    mask: MaskLike | None = None,
    *,
    steps: Few = 64,
    probes: Few = 4,
    examples: Count | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
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
        engine, store, device, progress: as of `lotto.train`.

    >>> found = spectrum(recipe, weights, mask, steps=8, probes=2, examples=50)
    >>> found.size, round(sum(found.masses), 6)
    (384, 1.0)
    """
    mask = masks.ones(recipe) if mask is None else mask
    task = SpectrumTask(recipe, weights, mask, 0, steps, probes, examples, seed, "spectrum")
    return spectrum_from(outcome_of(task, engine, store, device, progress))


@dataclass(frozen=True, eq=False)
class TopTask(Task):
    """The largest eigenvalues at one point, as a task for an engine.

    Attributes:
        recipe: model, data, loss.
        weights: where.
        mask: the unpruned coordinates.
        k: how many.
        examples: the first so many training examples; None = all.
        tolerance: relative accuracy at which an eigenvalue counts as converged.
        iterations: at most so many restarts; None = scipy's default.
        seed: of the start vector.
        label: what progress displays call it.

    >>> (outcome,) = lotto.engine.make(jobs=1).run([TopTask(recipe, weights, mask, k=1, examples=50)])
    >>> len(top_from(outcome).values)
    1
    """

    kind = "top"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: Mapping[str, Tensor]
    k: int = 10
    examples: Count | None = None
    tolerance: NotNegative = 1e-6
    iterations: Count | None = None
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        check_not_empty(self.mask)
        masks.check_fits(self.mask, self.weights)
        check_k(self.k, masks.count(self.mask))

    @property
    def size(self) -> int:
        """About one step for each product with the Hessian."""
        return 10 * self.k

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns ``values``, ``residuals``, ``converged``."""
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=self.examples)
        counted = counter(self.size, on_step)
        return asdict(top_of(hessian, self.k, self.tolerance, self.iterations, self.seed, counted))

    __repr__ = shown


def top_from(outcome: Mapping[str, Any]) -> Top:
    """The eigenvalues that a `TopTask` computed.

    >>> task = TopTask(recipe, weights, mask, k=1, examples=50)
    >>> top_from(task.execute()).converged
    True
    """
    return Top(tuple(outcome["values"]), tuple(outcome["residuals"]), outcome["converged"])


@checked
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

    >>> task = SpectrumTask(recipe, weights, mask, k=1, steps=8, probes=2, examples=50)
    >>> (outcome,) = lotto.engine.make(jobs=1).run([task])
    >>> spectrum_from(outcome).size, len(outcome["top"])
    (384, 1)
    """

    kind = "spectrum"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: MaskLike
    k: int = 1
    steps: Few = 64
    probes: Few = 4
    examples: Count | None = None
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
        count = counter(self.size, on_step)
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

    __repr__ = shown


def counter(size: int, on_step: OnStep | None) -> Callable[[], None]:
    """Counts products with the Hessian and reports them as steps."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(min(done, size), math.nan)

    return count


def spectrum_from(outcome: Mapping[str, Any]) -> Spectrum:
    """The spectrum that a `SpectrumTask` or a `LimitsTask` computed.

    >>> task = SpectrumTask(recipe, weights, mask, k=0, steps=8, probes=2, examples=50)
    >>> spectrum_from(task.execute()).size
    384
    """
    return Spectrum(
        tuple(outcome["nodes"]), tuple(outcome["masses"]), outcome["size"], tuple(outcome["traces"]),
        outcome.get("noise", 0.0),
    )  # fmt: skip


__all__ = ["Hessian", "Spectrum", "SpectrumTask", "Top", "TopTask", "spectrum", "spectrum_from", "top", "top_from"]
