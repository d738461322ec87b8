"""Error and loss on the straight line between two networks, and the barrier on it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lotto.core.check import Count, Points, checked
from lotto.core.errors import UsageError, unknown
from lotto.core.fingerprint import affects
from lotto.core.shown import number, shown, table
from lotto.core.weights import Weights, check_alike, first_non_finite, lerp
from lotto.data import Split
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.batchnorm import has_batchnorm, recompute_statistics
from lotto.landscape.combinations import evaluate_combinations, first_layer_dominates
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import Metrics, adds_up, evaluate_network
from lotto.training.network import Network, constant_buffers
from lotto.training.own_batches import check_evaluates

BASELINES = ("mean", "line")
BATCHNORM = ("interpolate", "recompute")


@dataclass(frozen=True)
class Path:
    """Loss and error along a line.

    Attributes:
        alphas: positions, 0 at the first network and 1 at the second.
        loss: split -> the recipe's loss at each position.
        error: split -> error (percent by default) at each position.

    >>> line = Path((0.0, 0.5, 1.0), loss={"test": (0.1, 0.5, 0.1)}, error={"test": (2.0, 9.0, 4.0)})
    >>> line.barrier(), line.barrier("line", what="loss")
    (6.0, 0.4)
    """

    alphas: tuple[float, ...]
    loss: Mapping[str, tuple[float, ...]]
    error: Mapping[str, tuple[float, ...]]

    @checked
    def barrier(self, baseline: str = "mean", split: Split = "test", what: str = "error") -> float:
        """The barrier on the line.

        Args:
            baseline: ``mean`` subtracts the mean of the two ends (LMC section 2: instability);
                ``line`` subtracts the line between the end values, and is at least 0 (UNM 3.1, our reading).
            split: ``train`` or ``test``.
            what: ``error`` or ``loss``.

        Raises:
            UsageError: for an unknown baseline, quantity or split.
        """
        if baseline not in BASELINES:
            raise unknown("baseline", baseline, BASELINES)
        if what not in ("error", "loss"):
            raise unknown("quantity", what, ("error", "loss"))
        curves = self.error if what == "error" else self.loss
        if split not in curves:
            raise unknown("split of this path", split, curves)
        values, alphas = np.array(curves[split]), np.array(self.alphas)
        if np.isnan(values).any():  # max(0, NaN) would be 0
            return math.nan
        if baseline == "mean":
            return float(values.max() - (values[0] + values[-1]) / 2)
        return max(0.0, float((values - (1 - alphas) * values[0] - alphas * values[-1]).max()))

    __repr__ = shown

    def _repr_html_(self) -> str:
        """A table of both ends, the highest point and the barriers."""
        rows = [
            (
                split, number(values[0]), number(max(values)), number(values[-1]),
                *(number(self.barrier(baseline, split)) for baseline in BASELINES),  # type: ignore[arg-type]
            )
            for split, values in self.error.items()
        ]  # fmt: skip
        titles = ("split", "at 0", "highest", "at 1", "above the mean of the ends", "above the line between them")
        return table(titles, rows, f"Error at {len(self.alphas)} positions between two networks")


@checked
@dataclass(frozen=True, eq=False)
class PathTask(Task):
    """The line between two networks as a task for an engine.

    Attributes:
        recipe: model, data, loss, error, precision.
        a: weights at position 0.
        b: weights at position 1.
        points: number of evenly spaced positions, both ends among them.
        splits: which splits are evaluated.
        batchnorm: ``interpolate`` takes the statistics in between; ``recompute`` re-estimates them at each
            position from training examples. Without BatchNorm the two are the same.
        examples: at most so many examples of each split; None = all.
        label: what progress displays call it.

    >>> (outcome,) = lotto.engine.make(jobs=1).run([PathTask(recipe, weights, other, points=3)])
    >>> path_of(outcome).alphas
    (0.0, 0.5, 1.0)
    """

    kind = "path"

    recipe: Recipe
    a: Weights
    b: Weights
    points: Points = 30
    splits: tuple[Split, ...] = field(default=("test",), metadata=affects("outcome", of=lambda t: sorted(t.splits)))
    batchnorm: str = field(
        default="interpolate",
        metadata=affects("outcome", of=lambda t: t.batchnorm if has_batchnorm(t.recipe) else None),
    )
    examples: Count | None = None
    label: str = ""

    def __post_init__(self) -> None:
        recompute = self.batchnorm == "recompute" and has_batchnorm(self.recipe)
        check_evaluates(self.recipe, self.splits, self.examples, recompute)
        constants = check_ends(self.recipe, self.a, self.b)
        if self.points < 2:
            raise UsageError(f"A path has at least 2 points, its ends; got {self.points}.")
        if not self.splits:
            raise UsageError("A path is evaluated on at least one split, such as splits=('test',).")
        if self.batchnorm not in BATCHNORM:
            raise unknown("BatchNorm policy", self.batchnorm, BATCHNORM)
        for name, weights in (("first", self.a), ("second", self.b)):
            if (bad := first_non_finite(weights, constants)) is not None:
                raise UsageError(f"The {name} network holds NaN or infinity in {bad!r}.")
        if self.batchnorm == "recompute" and not self.recipe.arrays.size("train"):
            raise UsageError("BatchNorm statistics cannot be re-estimated: the data set has no training examples.")

    def _entry(self, value: Any) -> Any:
        recomputed = self.batchnorm == "recompute" and has_batchnorm(self.recipe)
        return value.fingerprint("statistics") if value is self.recipe and recomputed else super()._entry(value)

    @property
    def size(self) -> int:
        """One step for each position."""
        return self.points

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Evaluate every position; returns ``alphas``, ``loss``, ``error``."""
        alphas = np.linspace(0.0, 1.0, self.points).tolist()
        network = Network(self.recipe, self.a)
        if adds_up(self.recipe) and first_layer_dominates(self.recipe, network):
            return {"alphas": alphas, **self._combined(network, alphas, on_step)}
        loss: dict[str, list[float]] = {s: [] for s in self.splits}
        error: dict[str, list[float]] = {s: [] for s in self.splits}
        for i, alpha in enumerate(alphas, start=1):
            network.load(lerp(self.a, self.b, alpha))
            if self.batchnorm == "recompute":
                recompute_statistics(self.recipe, network)
            for split in self.splits:
                metrics = evaluate_network(self.recipe, network, split, self.examples)
                loss[split].append(metrics.loss)
                error[split].append(metrics.error)
            if on_step is not None:
                on_step(i, loss[self.splits[0]][-1])
        return {"alphas": alphas, "loss": loss, "error": error}

    def _combined(self, network: Network, alphas: Sequence[float], on_step: OnStep | None) -> dict[str, Any]:
        found: dict[str, list[Metrics]] = {}
        for done, split in enumerate(self.splits):

            def advanced(fraction: float, done: int = done) -> None:
                if on_step is not None:
                    on_step(max(1, int(self.points * (done + fraction) / len(self.splits))), math.nan)

            found[split] = evaluate_combinations(
                self.recipe, network, (self.a, self.b), [(1 - t, t) for t in alphas],
                lambda i, names: lerp({n: self.a[n] for n in names}, {n: self.b[n] for n in names}, alphas[i]),
                split, self.examples, advanced,
            )  # fmt: skip
        return {
            "loss": {s: [m.loss for m in metrics] for s, metrics in found.items()},
            "error": {s: [m.error for m in metrics] for s, metrics in found.items()},
        }

    __repr__ = shown


def check_ends(recipe: Recipe, a: Weights, *others: Weights) -> set[str]:
    """Raise ``UsageError`` unless all are the recipe's networks with equal constant buffers; returns their names."""
    module = recipe.meta_model()
    check_alike(module.state_dict(), a)
    constants = constant_buffers(module)
    for other in others:
        check_alike(a, other)
        for name in sorted(constants):
            if not torch.equal(a[name], other[name]):
                raise UsageError(
                    f"The networks differ in the buffer {name!r}, which is neither a weight nor a running statistic: "
                    "there is no network between them."
                )
    return constants


def unmeasured_path(points: int, splits: Sequence[Split]) -> Path:
    """The path of a network that diverged: NaN everywhere."""
    nowhere = {str(split): (math.nan,) * points for split in splits}
    return Path(tuple(np.linspace(0.0, 1.0, points).tolist()), nowhere, nowhere)


def path_of(outcome: Mapping[str, Any]) -> Path:
    """The path that a `PathTask` computed."""
    return Path(
        tuple(outcome["alphas"]),
        {s: tuple(v) for s, v in outcome["loss"].items()},
        {s: tuple(v) for s, v in outcome["error"].items()},
    )


@checked
def evaluate_path(
    recipe: Recipe,
    a: Weights,
    b: Weights,
    points: Points = 30,
    splits: Sequence[Split] = ("test",),
    batchnorm: str = "interpolate",
    examples: Count | None = None,
    on_step: OnStep | None = None,
    *,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Path:
    """Evaluate the straight line between two networks, or remember that it has been evaluated.

    Args:
        recipe: see `PathTask`, as for all but the last.
        a: weights at position 0.
        b: weights at position 1.
        points: evenly spaced positions, both ends among them.
        splits: which splits are evaluated.
        batchnorm: ``interpolate`` or ``recompute``.
        examples: at most so many of each split.
        on_step: called with (positions done, loss).
        engine, store, device, progress: as of `lotto.train`.

    >>> line = evaluate_path(recipe, weights, other, points=5, splits=("train", "test"))
    >>> line.alphas, sorted(line.error)
    ((0.0, 0.25, 0.5, 0.75, 1.0), ['test', 'train'])
    """
    task = PathTask(recipe, a, b, points, tuple(splits), batchnorm, examples, "path")
    return path_of(outcome_of(task, engine, store, device, progress, on_step))


@checked
def barrier(
    recipe: Recipe,
    a: Weights,
    b: Weights,
    points: Points = 30,
    split: Split = "test",
    baseline: str = "mean",
    batchnorm: str = "interpolate",
    *,
    examples: Count | None = None,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> float:
    """The error barrier between two networks, in the recipe's error unit (percentage points of percentages).

    Args:
        recipe: model, data, error.
        a: weights at position 0.
        b: weights at position 1.
        points: evenly spaced positions.
        split: ``test`` or ``train``.
        baseline: ``mean`` (LMC: instability) or ``line`` (UNM: between levels); see `Path.barrier`.
        batchnorm: ``interpolate`` or ``recompute``.
        examples: at most so many of the split.
        engine, store, device, progress: as of `lotto.train`.

    >>> barrier(recipe, weights, weights, points=5)
    0.0
    """
    if baseline not in BASELINES:
        raise unknown("baseline", baseline, BASELINES)
    rule: Any = {"engine": engine, "store": store, "device": device, "progress": progress}
    return evaluate_path(recipe, a, b, points, (split,), batchnorm, examples, **rule).barrier(baseline, split)
