"""Loss and error on the plane through three networks."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import Count, Points, checked
from lotto.core.errors import UsageError
from lotto.core.fingerprint import affects
from lotto.core.shown import shown
from lotto.core.weights import Weights, digest
from lotto.data import Split
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.combinations import evaluate_combinations, first_layer_dominates
from lotto.landscape.path import check_ends
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import Metrics, adds_up, evaluate_network
from lotto.training.network import Network
from lotto.training.own_batches import check_evaluates

COLLINEAR = 1e-6
"""Three points are on a line when the third is nearer to it than this fraction of their distances."""


@dataclass(frozen=True)
class Plane:
    """Values on a grid, in the units of distance between weights.

    Attributes:
        x, y: grid coordinates; the first network is at (0, 0), the second at (its distance, 0).
        corners: coordinates of the three networks.
        error: error at [row of y, column of x].
        loss: likewise.

    >>> plane = lotto.landscape.evaluate_plane(recipe, weights, other, recipe.initial(0), points=4)
    >>> plane.error.shape, plane.corners[0]
    ((4, 4), (0.0, 0.0))
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    corners: tuple[tuple[float, float], ...]
    error: np.ndarray
    loss: np.ndarray

    __repr__ = shown


@checked
@dataclass(frozen=True, eq=False)
class PlaneTask(Task):
    """The plane through three networks as a task for an engine.

    BatchNorm statistics are combined linearly like everything else.

    Attributes:
        recipe: model, data, loss, error, precision.
        a, b, c: whole state dicts.
        points: positions along each axis.
        margin: how far the grid goes beyond the networks, as a fraction of their extent.
        split: which examples.
        examples: at most so many; None = all.
        label: what progress displays call it.

    >>> (outcome,) = lotto.engine.make(jobs=1).run([PlaneTask(recipe, weights, other, recipe.initial(0), points=3)])
    >>> plane_of(outcome).loss.shape
    (3, 3)
    """

    kind = "plane"

    recipe: Recipe
    a: Weights = field(
        metadata=affects("outcome", entry="corners", of=lambda t: [digest(t.a), digest(t.b), digest(t.c)])
    )
    b: Weights = field(metadata=affects("outcome", entry=None))
    c: Weights = field(metadata=affects("outcome", entry=None))
    points: Points = 15
    margin: float = 0.25
    split: Split = "test"
    examples: Count | None = None
    label: str = ""

    def __post_init__(self) -> None:
        check_evaluates(self.recipe, (self.split,), self.examples)
        self._constants  # noqa: B018 (checks them)
        if self.points < 2:
            raise UsageError(f"A plane has at least 2 points along each axis; got {self.points}.")
        self.frame()

    @cached_property
    def _constants(self) -> set[str]:
        return check_ends(self.recipe, self.a, self.b, self.c)

    def frame(self) -> tuple[float, float, float]:
        """Distance of b from a, and the coordinates of c: along the line from a to b, and across it.

        Raises:
            UsageError: if the three networks lie on a line.
        """
        again = {n for _, *others in masks.shared_names(self.recipe.meta_model()) for n in others}  # tied: counts once
        ab, ac = (_difference(self.a, other, self._constants | again) for other in (self.b, self.c))
        length = math.sqrt(_dot(ab, ab))
        reach = math.sqrt(_dot(ac, ac))
        if length == 0 or reach == 0:
            raise UsageError("Two of the three networks are the same, so there is no plane through them.")
        along = _dot(ab, ac) / length
        across = math.sqrt(max(0.0, reach**2 - along**2))
        if across <= COLLINEAR * max(length, reach):
            raise UsageError("The three networks lie on a line, so there is no one plane through them.")
        return length, along, across

    @property
    def size(self) -> int:
        """One step for each grid point."""
        return self.points**2

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Evaluate the grid; returns ``x``, ``y``, ``corners``, ``error``, ``loss``."""
        length, along, across = self.frame()
        corners = [(0.0, 0.0), (length, 0.0), (along, across)]
        x, y = (self._axis([corner[i] for corner in corners]) for i in (0, 1))
        # Barycentric: a + s (b - a) + t (c - a).
        places = [((u - v / across * along) / length, v / across) for v in y for u in x]
        found = self._evaluate(places, on_step)
        rows = [found[i : i + self.points] for i in range(0, len(found), self.points)]
        error, loss = [[m.error for m in row] for row in rows], [[m.loss for m in row] for row in rows]
        return {"x": x, "y": y, "corners": [list(c) for c in corners], "error": error, "loss": loss}

    def _evaluate(self, places: Sequence[tuple[float, float]], on_step: OnStep | None) -> list[Metrics]:
        network = Network(self.recipe, self.a)
        if adds_up(self.recipe) and first_layer_dominates(self.recipe, network):

            def advanced(fraction: float) -> None:
                if on_step is not None:
                    on_step(max(1, int(self.size * fraction)), math.nan)

            return evaluate_combinations(
                self.recipe, network, (self.a, self.b, self.c), [(1 - s - t, s, t) for s, t in places],
                lambda i, names: self._point(*places[i], names), self.split, self.examples, advanced,
            )  # fmt: skip
        found = []
        for done, (s, t) in enumerate(places, start=1):
            network.load(self._point(s, t, self.a))
            found.append(evaluate_network(self.recipe, network, self.split, self.examples))
            if on_step is not None:
                on_step(done, found[-1].loss)
        return found

    def _axis(self, values: list[float]) -> list[float]:
        low, high = min(values), max(values)
        extra = self.margin * (high - low)
        return np.linspace(low - extra, high + extra, self.points).tolist()

    def _point(self, s: float, t: float, names: Iterable[str]) -> dict[str, Tensor]:
        made = {}
        for name in names:
            start = self.a[name]
            if start.is_floating_point() and name not in self._constants:
                a, b, c = start.double(), self.b[name].double(), self.c[name].double()
                start = (a + s * (b - a) + t * (c - a)).to(start.dtype)
                if name.endswith("running_var"):
                    start = start.clamp(min=0.0)  # beyond the corners a variance could fall below 0
            made[name] = start
        return made

    __repr__ = shown


def plane_of(outcome: Mapping[str, Any]) -> Plane:
    """The plane that a `PlaneTask` computed."""
    corners = tuple((float(u), float(v)) for u, v in outcome["corners"])
    return Plane(
        tuple(outcome["x"]), tuple(outcome["y"]), corners, np.array(outcome["error"]), np.array(outcome["loss"])
    )


@checked
def evaluate_plane(
    recipe: Recipe,
    a: Weights,
    b: Weights,
    c: Weights,
    points: Points = 15,
    margin: float = 0.25,
    split: Split = "test",
    examples: Count | None = None,
    on_step: OnStep | None = None,
    *,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Plane:
    """Evaluate the plane through three networks, or remember that it has been evaluated.

    Args:
        recipe: see `PlaneTask`, as for all but the last.
        a, b, c: the networks.
        points: positions along each axis.
        margin: how far the grid goes beyond the networks, as a fraction of their extent.
        split: which examples.
        examples: at most so many.
        on_step: called with (positions done, loss).
        engine, store, device, progress: as of `lotto.train`.

    >>> plane = evaluate_plane(recipe, weights, other, recipe.initial(0), points=3, split="train")
    >>> len(plane.x), len(plane.y)
    (3, 3)
    """
    task = PlaneTask(recipe, a, b, c, points, margin, split, examples, "plane")
    return plane_of(outcome_of(task, engine, store, device, progress, on_step))


def _difference(a: Weights, b: Weights, constants: Collection[str]) -> list[Tensor]:
    """From a to b over the parameters; BatchNorm statistics have other units and no part in distances."""
    names = [n for n, t in a.items() if t.is_floating_point() and ".running_" not in f".{n}" and n not in constants]
    return [(b[n].double() - a[n].double()).flatten() for n in names]


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float(u.dot(v)) for u, v in zip(a, b, strict=True))
