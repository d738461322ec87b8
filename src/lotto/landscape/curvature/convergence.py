"""The largest prunable fraction from a spectrum that has as many Lanczos steps as it takes, and refused without them.

The fraction weighs the eigenvalues near 0, where most of them are and which Lanczos finds last: with too few steps a
single node on this or that side of 0 decides. So the steps are doubled until the fractions stay where they are, all
from one process per probe. It also needs examples: n of them cap the rank of the Gauss-Newton part of the Hessian at
n (C - 1) for C classes, and what is left of D eigenvalues is 0 whatever the network.

With BatchNorm the loss is that of the evaluation mode, as everywhere in `curvature`: statistics are constants.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from lotto.core.check import Count, Few, Positive, checked
from lotto.core.errors import UsageError, unknown
from lotto.core.fingerprint import affects
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.eigenvalues import counter, spectrum_from
from lotto.landscape.curvature.lanczos import ONE_THREAD, Krylov, Spectrum, joined, signs
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.curvature.pruning_limit import (
    CORRECTED,
    EPSILON,
    KINDS,
    READINGS,
    allowed,
    crossing,
    squared_distances,
    squared_lengths,
)
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import in_nats
from lotto.training.own_batches import count_examples

FIRST_STEPS, MOST_STEPS = 32, 1024
ACCURACY = 0.01
"""A fraction has converged when it moves by less than this in the second half of its Lanczos steps."""
EXACT = 1_000
"""Up to so many coordinates the whole matrix takes no more products than the probes: its eigenvalues are exact."""
PROBED = 4_000
"""Coordinates that all probes have together: their standard error is then below 0.01; at least two probes."""
BASIS_BYTES = 2 << 30
"""Memory of the bases of all probes, which bounds the steps of large networks."""
LEAST_EXAMPLES, RANK_MARGIN = 2_000, 1.5
"""Enough examples are at least so many, and leave the Gauss-Newton part a rank of so many times D; or all there are."""
NOISE_EXAMPLES = 1_000
NOISE = 1e-10
"""Nodes below this part of the largest are 0 in any precision: Lanczos itself rounds."""

Combination = tuple[str, str]
COMBINATIONS: tuple[Combination, ...] = tuple(product(KINDS, READINGS))


@dataclass(frozen=True)
class Limits:
    """How much the theory lets go at once, and how sure that is.

    Attributes:
        fractions: by kind of pruning and reading, see `largest_prunable`.
        errors: standard error of each over the probes; NaN for one probe.
        moved: how far each was from its last value during the second half of the Lanczos steps, at most.
        steps: Lanczos steps of each probe; of up to `EXACT` weights, whose eigenvalues are exact, their number.
        examples: training examples that the loss was averaged over.
        spectrum: what they are computed from.

    >>> found = limits(recipe, weights, mask)
    >>> found.steps, found.examples, found.converged  # few weights: all eigenvalues, exactly
    (384, 240, True)
    """

    fractions: Mapping[Combination, float]
    errors: Mapping[Combination, float]
    moved: Mapping[Combination, float]
    steps: int
    examples: int
    spectrum: Spectrum

    @property
    def converged(self) -> bool:
        """Whether all fractions moved by less than `ACCURACY`."""
        return max(self.moved.values()) < ACCURACY

    def reason(self, kind: str = "magnitude", reading: str = CORRECTED) -> str:
        """Why there is no such fraction, in a sentence; empty if there is one."""
        if (moved := self.moved[kind, reading]) < ACCURACY:
            return ""
        return (
            f"not converged: in the second half of {self.steps} Lanczos steps the largest prunable fraction moved by "
            f"{moved:.2g}, where less than {ACCURACY:g} is needed. Give it more, steps={2 * self.steps}"
        )

    @checked
    def fraction(self, kind: str = "magnitude", reading: str = CORRECTED) -> float:
        """The largest fraction that can go at once.

        Raises:
            UsageError: if it is not converged.
        """
        for word, what, known in ((kind, "kind of pruning", KINDS), (reading, "reading of the distance", READINGS)):
            if word not in known:
                raise unknown(what, word, known)
        if reason := self.reason(kind, reading):
            raise UsageError(f"There is no fraction to give, {reason}.")
        return self.fractions[kind, reading]

    __repr__ = shown


@checked
def limits(
    recipe: Recipe,
    weights: Weights,
    mask: MaskLike | None = None,
    epsilon: Positive = EPSILON,
    *,
    steps: Few = MOST_STEPS,
    probes: Few | None = None,
    examples: Count | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Limits:
    """The largest fraction that can go at once, by both readings of the theory and both kinds of pruning (UNM 3.3).

    Args:
        recipe: model, data, loss.
        weights: the solution.
        mask: its unpruned coordinates.
        epsilon: rise of the loss that is tolerated, in the loss's unit.
        steps: Lanczos steps of each probe at most; they begin with `FIRST_STEPS` and are doubled until the fractions
            stay where they are.
        probes: random start vectors; None = enough for a standard error below 0.01.
        examples: the first so many training examples; None = `enough_examples`.
        seed: of the probes.
        engine, store, device, progress: as of `lotto.train`.

    Returns:
        The fractions with their errors; `Limits.fraction` raises an error where they are not converged.

    Raises:
        UsageError: for so few examples that they decide the fraction.

    >>> found = limits(recipe, weights, mask)
    >>> 0 < found.fraction("random") < found.fraction("magnitude") < 1
    True
    """
    mask = masks.ones(recipe) if mask is None else mask
    task = LimitsTask(recipe, weights, mask, epsilon, steps, probes, examples, seed, "largest prunable fraction")
    return limits_from(outcome_of(task, engine, store, device, progress))


def enough_examples(recipe: Recipe, size: int) -> int:
    """So many training examples that the rank of the Gauss-Newton part is not what decides over ``size`` weights."""
    needed = math.ceil(RANK_MARGIN * size / _rank_per_example(recipe))
    return min(max(LEAST_EXAMPLES, needed), recipe.arrays.size() if recipe.loop is None else count_examples(recipe))


def _rank_per_example(recipe: Recipe) -> int:
    """Of the Gauss-Newton part; softmax does not see what all outputs have in common. A loop's loss has 1 at least."""
    if recipe.loop is not None:
        return 1
    outputs = int(recipe.arrays.classes)
    return max(1, outputs - 1 if in_nats(recipe.loss_function) else outputs)


@checked
@dataclass(frozen=True, eq=False)
class LimitsTask(Task):
    """The largest prunable fractions at one point, as a task for an engine.

    Attributes:
        recipe: model, data, loss.
        weights: the solution.
        mask: its unpruned coordinates.
        epsilon: rise of the loss that is tolerated, in the loss's unit.
        steps: Lanczos steps of each probe, at most.
        probes: random start vectors; None = enough.
        examples: the first so many training examples; None = enough.
        seed: of the probes.
        label: what progress displays call it.

    >>> task = LimitsTask(recipe, weights, mask)
    >>> 0 < limits_from(task.execute()).fraction("magnitude") < 1
    True
    """

    kind = "limits"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: MaskLike
    epsilon: Positive = EPSILON
    steps: Few = MOST_STEPS
    probes: Few | None = field(default=None, metadata=affects("outcome", of=lambda t: t.all_probes))
    examples: Count | None = field(default=None, metadata=affects("outcome", of=lambda t: t.examples or t.enough))
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        check_not_empty(self.mask)
        masks.check_fits(self.mask, self.weights)
        if not self.epsilon > 0:
            raise UsageError(f"The tolerated rise of the loss is greater than 0; got {self.epsilon!r}.")
        if self.examples is not None and self.examples < (enough := self.enough):
            count = masks.count(self.mask)
            left = max(0.0, 1 - self.examples * _rank_per_example(self.recipe) / count)
            raise UsageError(
                f"{self.examples} examples are too few for {count} weights: they alone leave {left:.0%} of the "
                f"eigenvalues of the loss near 0, and the fraction is not that of the network. Take examples={enough} "
                "or more."
            )

    @property
    def enough(self) -> int:
        """Training examples where none are given."""
        return enough_examples(self.recipe, masks.count(self.mask))

    @property
    def all_probes(self) -> int:
        """Random start vectors."""
        return self.probes or max(2, math.ceil(PROBED / masks.count(self.mask)))

    @property
    def size(self) -> int:
        """One step for each product with the Hessian, if it takes all of them."""
        count = masks.count(self.mask)
        return count if count <= EXACT else self.all_probes * min(self.steps, count)

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Compute; returns the parts of `Limits`, its mappings as lists in the order of `COMBINATIONS`."""
        examples = self.examples or self.enough
        hessian = Hessian(self.recipe, self.weights, self.mask, examples=examples)
        noise = noise_of(self.recipe, self.weights, self.mask, min(examples, NOISE_EXAMPLES), self.seed)
        squared = {c: squared_distances(squared_lengths(self.weights, hessian.mask, c[0]), c[1]) for c in COMBINATIONS}

        def fractions(spectrum: Spectrum) -> np.ndarray:
            return np.array([_crossing(spectrum, self.epsilon, squared[c], c[1]) for c in COMBINATIONS])

        count = counter(self.size, on_step)
        if hessian.size <= EXACT:
            spectrum, steps = exact_spectrum(hessian, noise, count), hessian.size
            errors = moved = np.zeros(len(COMBINATIONS))
        else:
            grown, moved = settle(hessian, fractions, self.all_probes, self.steps, noise, self.seed, count)
            spectrum, steps = spectrum_with_noise(grown, grown[0].steps, noise), grown[0].steps
            each = [fractions(spectrum_with_noise([krylov], krylov.steps, noise)) for krylov in grown]
            errors = np.full(len(COMBINATIONS), -1.0)  # of a single probe it is not known
            if len(each) > 1:
                errors = np.std(each, axis=0, ddof=1) / math.sqrt(len(each))
        return {
            "fractions": fractions(spectrum).tolist(),
            "errors": errors.tolist(),
            "moved": moved.tolist(),
            "steps": steps,
            "examples": examples,
            "nodes": list(spectrum.nodes),
            "masses": list(spectrum.masses),
            "size": spectrum.size,
            "traces": list(spectrum.traces),
            "noise": spectrum.noise,
        }

    __repr__ = shown


def _crossing(spectrum: Spectrum, epsilon: float, squared: np.ndarray, reading: str) -> float:
    return crossing(squared, lambda distance: allowed(spectrum, epsilon, distance, reading))


def limits_from(outcome: Mapping[str, Any]) -> Limits:
    """What a `LimitsTask` computed."""

    def named(values: Sequence[float]) -> dict[Combination, float]:
        return {c: math.nan if v < 0 else v for c, v in zip(COMBINATIONS, values, strict=True)}

    return Limits(
        named(outcome["fractions"]), named(outcome["errors"]), named(outcome["moved"]), outcome["steps"],
        outcome["examples"], spectrum_from(outcome),
    )  # fmt: skip


@threadpool_limits.wrap(**ONE_THREAD)
def settle(
    hessian: Hessian,
    function: Callable[[Spectrum], np.ndarray],
    probes: int,
    most: int,
    noise: float = 0.0,
    seed: int = 0,
    on_product: Callable[[], None] = lambda: None,
) -> tuple[list[Krylov], np.ndarray]:
    """Double the Lanczos steps of all probes until a function of their spectrum moves by less than `ACCURACY`.

    It is evaluated at the end of the steps and at four places of their second half, so that no two values that happen
    to be near each other pass for convergence.

    Returns:
        The probes, and how far each value of the function was from the last one at these places, at most; 0 where the
        Krylov spaces are exhausted, which makes the spectrum exact.
    """
    most = min(most, hessian.size, max(1, BASIS_BYTES // (8 * hessian.size * probes)))
    grown = [Krylov(hessian, signs(seed, probe, hessian.size)) for probe in range(probes)]
    steps = min(FIRST_STEPS, most)
    while True:
        for krylov in grown:
            krylov.grow(steps, on_product)
        values = [function(spectrum_with_noise(grown, at, noise)) for at in _checkpoints(steps)]
        moved = np.abs(np.array(values) - values[-1]).max(axis=0)
        if all(krylov.ended for krylov in grown):
            return grown, np.zeros_like(moved)
        if steps == most or (moved.max() < ACCURACY and steps > FIRST_STEPS):
            return grown, moved
        steps = min(2 * steps, most)


def exact_spectrum(hessian: Hessian, noise: float, on_product: Callable[[], None] = lambda: None) -> Spectrum:
    """All eigenvalues of a small matrix, each of the same mass."""
    columns = []
    for column in np.eye(hessian.size):
        columns.append(hessian @ column)
        on_product()
    matrix = np.stack(columns)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    size, trace = len(values), float(np.trace(matrix))
    floor = max(noise, NOISE * float(np.abs(values).max()))
    # Two equal traces: the error of their mean is 0.
    return Spectrum(tuple(values.tolist()), (1 / size,) * size, size, (trace, trace), floor)


def _checkpoints(steps: int) -> list[int]:
    return sorted({max(1, steps * part // 8) for part in (4, 5, 6, 7, 8)})


def spectrum_with_noise(grown: Sequence[Krylov], steps: int, noise: float) -> Spectrum:
    """The spectrum of the first so many steps, whose noise is at least that of Lanczos itself."""
    spectrum = joined(grown, steps)
    return replace(spectrum, noise=max(noise, NOISE * max(map(abs, spectrum.nodes))))


def noise_of(recipe: Recipe, weights: Weights, mask: MaskLike, examples: int, seed: int = 0) -> float:
    """Length of a product's rounding error for a random unit vector: its difference from the product in float64."""
    if recipe.precision == "float64":
        return 0.0
    low, high = (Hessian(r, weights, mask, examples=examples) for r in (recipe, recipe.replace(precision="float64")))
    probe = signs(seed, 0, low.size) / math.sqrt(low.size)
    return float(np.linalg.norm(low @ probe - high @ probe))
