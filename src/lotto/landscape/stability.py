"""Stability to pruning and to data order (STAB section 4), and instability analysis (LMC).

All are arithmetic on trainings that start from one rewind point ``W_k`` and differ in one thing. Each measure is
a procedure, so that experiments advance many of them together, and a function that runs a single one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from lotto.core.check import Count, Points, checked
from lotto.core.errors import UsageError
from lotto.core.shown import shown
from lotto.core.weights import Weights, angle, distance
from lotto.data import Split
from lotto.execution.engine import Engine, Progress
from lotto.execution.procedures import Procedure
from lotto.execution.rule import result_of
from lotto.execution.store import Store
from lotto.landscape.batchnorm import has_batchnorm
from lotto.landscape.path import BATCHNORM, Path, PathTask, path_of, unmeasured_path
from lotto.pruning import masks
from lotto.pruning.masks import Mask, MaskLike
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run, State
from lotto.training.own_batches import check_evaluates

STABLE = 2.0
"""A network is stable when its error barrier is below this many percentage points (LMC section 3). An error in any
other unit has no such number: there the barrier is below twice the recipe's tolerance."""


@dataclass(frozen=True)
class Samples:
    """A measure over samples (data orders, or pairs of them); one of a training that diverged is NaN."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the samples that are numbers; NaN if there are none."""
        return float(np.mean(self.finite)) if self.finite else math.nan

    @property
    def min(self) -> float:
        """Smallest sample."""
        return min(self.finite, default=math.nan)

    @property
    def max(self) -> float:
        """Largest sample."""
        return max(self.finite, default=math.nan)

    @property
    def finite(self) -> tuple[float, ...]:
        """The samples that are numbers."""
        return tuple(v for v in self.values if not math.isnan(v))

    @property
    def diverged(self) -> int:
        """How many samples are of a training that diverged."""
        return len(self.values) - len(self.finite)

    __repr__ = shown


@dataclass(frozen=True)
class Distances:
    """How far networks end from each other, over the unpruned prunable weights.

    Attributes:
        l2: L2 distance of each sample.
        angle: angle of each sample, in degrees.
        errors: test errors of the trained subnetworks, in the order of the data orders.

    >>> far = Distances.between([(weights, other)], mask, errors=[2.0, 2.5])
    >>> far.l2.mean > 0, 0 < far.angle.mean < 90
    (True, True)
    """

    l2: Samples
    angle: Samples
    errors: tuple[float, ...]

    @classmethod
    def between(
        cls, pairs: Sequence[tuple[Weights | None, Weights | None]], mask: MaskLike, errors: Sequence[float]
    ) -> Distances:
        """Measure pairs of networks within a mask; those with a network that diverged (None) are NaN."""
        return cls(
            Samples(tuple(math.nan if a is None or b is None else distance(a, b, mask) for a, b in pairs)),
            Samples(tuple(math.nan if a is None or b is None else angle(a, b, mask) for a, b in pairs)),
            tuple(errors),
        )

    __repr__ = shown


@dataclass(frozen=True)
class Instability:
    """The lines between copies of one network trained under different SGD noise.

    Attributes:
        paths: BatchNorm policy -> the path of each pair. A model without BatchNorm has ``interpolate`` only.
        errors: test errors of the copies.
        threshold: the barrier below which the network is stable, in the error's unit; see `STABLE`.

    >>> line = lotto.landscape.Path((0.0, 0.5, 1.0), {"test": (0.1, 0.5, 0.1)}, {"test": (2.0, 9.0, 4.0)})
    >>> found = Instability({"interpolate": (line,)}, errors=(2.0, 4.0))
    >>> found.barrier().mean, found.stable
    (6.0, False)
    """

    paths: Mapping[str, tuple[Path, ...]]
    errors: tuple[float, ...]
    threshold: float = STABLE

    def barrier(
        self, split: Split = "test", what: str = "error", batchnorm: str = "interpolate", baseline: str = "mean"
    ) -> Samples:
        """The barrier of each pair; see `Path.barrier`. Without BatchNorm both policies are the same."""
        paths = self.paths.get(batchnorm, self.paths["interpolate"])
        return Samples(tuple(path.barrier(baseline, split, what) for path in paths))

    @property
    def stable(self) -> bool:
        """Whether the mean barrier of the test error is below the threshold: 2 percentage points (LMC section 3).

        A network of which a copy diverged is not stable.
        """
        found = self.barrier()
        return found.diverged == 0 and found.mean < self.threshold

    __repr__ = shown


def data_order_procedure(
    recipe: Recipe,
    start: State,
    mask: MaskLike,
    from_step: int,
    order_seeds: Sequence[int],
    label: str = "",
) -> Procedure[Distances]:
    """Stability to data order of (``W_k``, m): distances between trainings of ``m * W_k`` on pairs of orders."""
    check_orders(order_seeds, 2, "Stability to data order compares trainings on different data orders")
    runs: list[Run] = yield [_fork(recipe, start, mask, from_step, u, f"{label} · order {u}") for u in order_seeds]
    pairs = [(_end(a), _end(b)) for a, b in combinations(runs, 2)]
    return Distances.between(pairs, mask, [run.test_error for run in runs])


def pruning_procedure(
    recipe: Recipe,
    start: State,
    mask: MaskLike,
    from_step: int,
    order_seeds: Sequence[int],
    label: str = "",
) -> Procedure[Distances]:
    """Stability to pruning of (``W_k``, m): distances between ``W_k`` and ``m * W_k`` trained on the same order."""
    check_orders(order_seeds, 1, "Stability to pruning needs a data order")
    runs: dict[str, list[Run]] = yield {
        "dense": [_fork(recipe, start, None, from_step, u, f"{label} · dense, order {u}") for u in order_seeds],
        "sparse": [_fork(recipe, start, mask, from_step, u, f"{label} · order {u}") for u in order_seeds],
    }
    pairs = [(_end(a), _end(b)) for a, b in zip(runs["dense"], runs["sparse"], strict=True)]
    return Distances.between(pairs, mask, [run.test_error for run in runs["sparse"]])


def instability_procedure(
    recipe: Recipe,
    start: State,
    mask: MaskLike | None,
    from_step: int,
    order_seeds: Sequence[int],
    points: Points = 30,
    splits: Sequence[Split] = ("test", "train"),
    examples: Count | None = None,
    label: str = "",
) -> Procedure[Instability]:
    """Instability of ``W_k`` (or ``m * W_k``): barriers between copies trained on pairs of orders (LMC section 3)."""
    check_orders(order_seeds, 2, "Instability compares copies trained on different data orders")
    check_evaluates(recipe, splits, examples, recompute=has_batchnorm(recipe))
    runs: list[Run] = yield [_fork(recipe, start, mask, from_step, u, f"{label} · order {u}") for u in order_seeds]
    policies = BATCHNORM if has_batchnorm(recipe) else BATCHNORM[:1]
    pairs = list(combinations(zip(order_seeds, runs, strict=True), 2))
    outcomes = yield {
        policy: [
            PathTask(
                recipe, a.weights, b.weights, points, tuple(splits), policy, examples,
                f"{label} · path {u}–{v}, {policy}",
            )
            for (u, a), (v, b) in pairs
            if not a.diverged and not b.diverged
        ]
        for policy in policies
    }  # fmt: skip
    paths = {}
    for policy, found in outcomes.items():
        measured = iter(found)
        paths[policy] = tuple(
            unmeasured_path(points, splits) if a.diverged or b.diverged else path_of(next(measured))
            for (_, a), (_, b) in pairs
        )
    errors = tuple(run.test_error for run in runs)
    return Instability(paths, errors, STABLE if recipe.in_points else 2 * recipe.margin.above(Samples(errors).mean))


def rewind_point_procedure(
    recipe: Recipe, step: int, init_seed: int, order_seed: int, label: str = ""
) -> Procedure[State]:
    """The state ``W_k`` of a dense training, for a new optimizer.

    It is kept by the full dense training, which level 0 of IMP and other measures share.
    """
    (run,) = yield [Job(recipe, init_seed, order_seed, keep=(step,), label=f"{label} · dense")]
    return run.state(step).without_optimizer


@checked
def stability_to_data_order(
    recipe: Recipe,
    mask: MaskLike | None = None,
    from_step: str | int = "0it",
    order_seeds: Sequence[int] = (0, 1, 2),
    *,
    start: State | Weights | None = None,
    init_seed: int = 0,
    engine: Engine | None = None,
    jobs: int | str = "auto",
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Distances:
    """Distance between trainings of ``m * W_k`` that differ in the data order only (STAB section 4).

    Args:
        recipe: what is trained.
        mask: the subnetwork; None = the dense network.
        from_step: the rewind step k.
        order_seeds: at least two data orders; every pair is a sample.
        start: ``W_k``; default: step k of the dense training of ``init_seed`` on the first data order.
        init_seed: see ``start``.
        engine, jobs, store, device, progress: as of `lotto.imp`.

    >>> stability_to_data_order(recipe, mask, "5it", order_seeds=(0, 1), jobs=1).l2.mean > 0
    True
    """

    def procedure(recipe: Recipe) -> Procedure[Distances]:
        check_orders(order_seeds, 2, "Stability to data order compares trainings on different data orders")
        k, kept, point = yield from _point(recipe, mask, from_step, order_seeds, start, init_seed)
        return (yield from data_order_procedure(recipe, point, kept, k, order_seeds, "data order"))

    return result_of(procedure, recipe, engine, store, device, progress, jobs)


@checked
def stability_to_pruning(
    recipe: Recipe,
    mask: MaskLike,
    from_step: str | int = "0it",
    order_seeds: Sequence[int] = (0, 1, 2),
    *,
    start: State | Weights | None = None,
    init_seed: int = 0,
    engine: Engine | None = None,
    jobs: int | str = "auto",
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Distances:
    """Distance between the dense network and the subnetwork, trained on the same data order (STAB section 4).

    Both are trained from the rewind point with a new optimizer; every data order is a sample. For the arguments see
    `stability_to_data_order`.

    >>> len(stability_to_pruning(recipe, mask, "5it", order_seeds=(0, 1), jobs=1).errors)
    2
    """

    def procedure(recipe: Recipe) -> Procedure[Distances]:
        check_orders(order_seeds, 1, "Stability to pruning needs a data order")
        k, kept, point = yield from _point(recipe, mask, from_step, order_seeds, start, init_seed)
        return (yield from pruning_procedure(recipe, point, kept, k, order_seeds, "pruning"))

    return result_of(procedure, recipe, engine, store, device, progress, jobs)


@checked
def instability(
    recipe: Recipe,
    from_step: str | int = "0it",
    mask: MaskLike | None = None,
    order_seeds: Sequence[int] = (1, 2),
    *,
    start: State | Weights | None = None,
    init_seed: int = 0,
    points: Points = 30,
    splits: Sequence[Split] = ("test", "train"),
    examples: Count | None = None,
    engine: Engine | None = None,
    jobs: int | str = "auto",
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Instability:
    """Barrier between copies of a network trained from step k under different SGD noise (LMC section 3).

    Args:
        recipe: what is trained.
        from_step: the step k at which the copies part.
        mask: a subnetwork; None = the dense network.
        order_seeds: data order and augmentation of the copies; every pair is a sample.
        start: ``W_k``; default: step k of the dense training of ``init_seed``.
        init_seed: see ``start``; its data order has the same seed.
        points: evenly spaced positions on each line.
        splits: where error and loss are evaluated.
        examples: at most so many examples of each split.
        engine, jobs, store, device, progress: as of `lotto.imp`.

    Returns:
        The paths of all pairs, with BatchNorm statistics interpolated and, where there are any, re-estimated.

    >>> found = instability(recipe, "5it", points=3, jobs=1)
    >>> len(found.errors), found.barrier("train", "loss").max < 10
    (2, True)
    """

    def procedure(recipe: Recipe) -> Procedure[Instability]:
        check_orders(order_seeds, 2, "Instability compares copies trained on different data orders")
        check_evaluates(recipe, splits, examples, recompute=has_batchnorm(recipe))  # before the rewind point is trained
        k, _, point = yield from _point(recipe, mask, from_step, (init_seed,), start, init_seed)
        return (
            yield from instability_procedure(
                recipe, point, mask, k, order_seeds, points, splits, examples, "instability"
            )
        )

    return result_of(procedure, recipe, engine, store, device, progress, jobs)


def _end(run: Run) -> Weights | None:
    """Where a training ended; None if it diverged."""
    return None if run.diverged else run.weights


def check_orders(order_seeds: Sequence[int], least: int, why: str) -> None:
    """Raise ``UsageError`` unless there are enough data orders, all different."""
    if len(set(order_seeds)) != len(order_seeds) or len(order_seeds) < least:
        raise UsageError(f"{why}: give at least {least}, all different; got {list(order_seeds)}.")


def _point(
    recipe: Recipe,
    mask: MaskLike | None,
    from_step: str | int,
    order_seeds: Sequence[int],
    start: State | Weights | None,
    init_seed: int,
) -> Procedure[tuple[int, Mask, State]]:
    k = recipe.step(from_step)
    if k >= recipe.total:
        raise UsageError(f"The step {k} is not before the end of training at {recipe.total} iterations.")
    kept = masks.ones(recipe) if mask is None else Mask(mask)
    if isinstance(start, State):
        return k, kept, start
    if start is not None:
        return k, kept, State(dict(start))
    point = yield from rewind_point_procedure(recipe, k, init_seed, order_seeds[0], "rewind point")
    return k, kept, point


def _fork(recipe: Recipe, start: State, mask: MaskLike | None, from_step: int, order_seed: int, label: str) -> Job:
    # A mask that removes nothing is the dense network, whose trainings others share.
    chosen = None if mask is None or all(bool(m.all()) for m in mask.values()) else Mask(mask)
    return Job(recipe, order_seed=order_seed, start=start, mask=chosen, from_step=from_step, label=label)
