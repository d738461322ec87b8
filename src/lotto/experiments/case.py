"""One replicate at one rewind step: what an experiment's generator is called with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lotto.core.errors import DivergedError
from lotto.core.rng import derived_seed
from lotto.execution.procedures import Procedure
from lotto.experiments.measures import (
    BN_EXAMPLES,
    DENSE,
    DIVERGED,
    ERROR,
    LAST_QUARTER,
    LOSS,
    NATS,
    POINTS,
    Kind,
    Measure,
)
from lotto.experiments.options import Options
from lotto.lottery.plan import SettledPlan, make_plan
from lotto.lottery.procedure import level_procedure
from lotto.lottery.replicate import Level
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import in_nats
from lotto.training.job import Run
from lotto.training.records import curve_stride, late_step, late_stride

Row = dict[str, Any]


class At(NamedTuple):
    """A level by its number and density, where a row stands."""

    level: int
    density: float

    @classmethod
    def of(cls, level: Level) -> At:
        """Count the weights once, for many rows."""
        return cls(level.level, masks.density(level.mask))


@dataclass(frozen=True)
class Case:
    """What a generator measures, and the rows that come out.

    Attributes:
        options: those of the whole experiment.
        k: the rewind step, in iterations.
        replicate: its index.
        own: the experiment's own options by name, on which some measures depend.
    """

    options: Options
    k: int
    replicate: int
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return self.options.recipe

    @property
    def seed(self) -> int:
        """The seed of the replicate's initialisation and of its own data order."""
        return self.options.seed + self.replicate

    @property
    def label(self) -> str:
        """What progress displays call it."""
        return f"replicate {self.replicate + 1} · k={self.k}"

    def order_seeds(self, orders: int) -> tuple[int, ...]:
        """Data orders: that of the replicate's own training first, so that its runs are shared."""
        return (self.seed, *(derived_seed(self.seed, "another-order", i) for i in range(1, orders)))

    def with_recipe(self, recipe: Recipe) -> Case:
        """The same replicate and rewind step of another recipe."""
        asked = self.options
        options = Options(
            recipe, asked.replicates, asked.rewind_steps, asked.levels, densities=asked.densities, seed=asked.seed
        )
        return replace(self, options=options)

    def plan_of(self, *, rewind_to: int | None = None, also_keep: tuple[int, ...] = (), **changes: Any) -> SettledPlan:
        """The plan of IMP rewound to ``k``, or to another step, without controls unless `make_plan` is given some.

        Args:
            rewind_to: another step.
            also_keep: steps that the dense training stores; default all rewind steps.
            changes: options of `make_plan`; densities among them are in the place of the experiment's.
        """
        asked, densities = self.options, self.options.densities
        given: dict[str, Any] = {"replicates": asked.replicates, "controls": (), "seed": asked.seed}
        if not densities:
            given["levels"] = asked.levels
        elif changes.get("one_shot"):
            given["density"] = densities[-1]
        else:
            given["densities"] = densities
        if "densities" in changes:
            given.pop("levels", None)
        given |= changes
        # All rewind steps share one dense training.
        step = self.k if rewind_to is None else rewind_to
        return replace(make_plan(self.recipe, rewind_to=step, **given), also_keep=also_keep or asked.rewind_steps)

    def levels(self, *, partial: bool = False, **changes: Any) -> Procedure[list[Level]]:
        """Train the levels of this replicate.

        Args:
            partial: whether levels that end with one that diverged are of use.
            changes: those of `plan_of`.

        Raises:
            DivergedError: if a level diverged, so that those after it are missing.
        """
        levels = yield from level_procedure(self.plan_of(**changes), self.replicate, lambda event: None)
        if levels[-1].diverged and not partial:
            raise DivergedError(levels[-1].diverged)
        return levels

    def diverged_row(self, error: DivergedError) -> Row:
        """The row of a case that has no others, because a training of it diverged."""
        return {**self.row(At(0, 1.0), DENSE, DIVERGED, math.nan), "note": str(error)}

    def row(
        self, at: Level | At, kind: Kind, measure: Measure, value: float, *, sample: int = 0, **axes: float | None
    ) -> Row:
        """A tidy row: what was measured of which kind of network.

        ``axes`` are ``x`` and ``y`` of an experiment, and settings of the measure that are not those of the options.
        """
        place = At.of(at) if isinstance(at, Level) else at
        found = {
            "replicate": self.replicate,
            "seed": self.seed,
            "rewind_step": self.k,
            "level": place.level,
            "density": place.density,
            "parameter_fraction": 1 - (1 - place.density) * self.options.prunable_fraction,
            **{name: self._setting(name) for name in measure.settings},
            **axes,
            "kind": kind,
            "measure": measure.name,
            "unit": self._unit(measure),
            "sample": sample,
            "value": value,
        }
        return {**found, "note": "diverged"} if math.isnan(value) else found

    def _setting(self, name: str) -> Any:
        return self.recipe.bn_examples if name == BN_EXAMPLES else self.own.get(name)

    def _unit(self, measure: Measure) -> str:
        """Points are of misclassification and nats of cross-entropy; other errors and losses have other units."""
        if measure.unit == POINTS and not self.recipe.in_points:
            return self.recipe.error_title
        return LOSS if measure.unit == NATS and not in_nats(self.recipe.loss_function) else measure.unit

    def rows(
        self, at: Level | At, kind: Kind, measure: Measure, values: Sequence[float], *, first: int = 0
    ) -> list[Row]:
        """A row for each sample, numbered from ``first`` on."""
        place = At.of(at) if isinstance(at, Level) else at
        return [self.row(place, kind, measure, value, sample=i) for i, value in enumerate(values, start=first)]

    def dense_rows(self, run: Run) -> list[Row]:
        """The rows of a dense training: its error, and how much error it lost in its last quarter."""
        return [self.row(At(0, 1.0), DENSE, ERROR, run.test_error), *self.convergence_rows(run)]

    def convergence_rows(self, run: Run) -> list[Row]:
        """The row that says whether a dense training has converged; none if its history has no fitting record."""
        found = lost_in_last_quarter(self.recipe, run)
        if found is None:
            return []
        fraction, lost, examples = found
        return [self.row(At(0, 1.0), DENSE, LAST_QUARTER, lost, x=fraction, examples=examples)]


def lost_in_last_quarter(recipe: Recipe, run: Run) -> tuple[float, float, int] | None:
    """Test error at three quarters of a training minus that at its end, on the same test examples.

    Returns:
        The fraction of the training at which the first was taken, the nearest record to three quarters, the
        difference, and on how many examples; None if that is an eighth or more away, or if the two cannot be compared.
    """
    if run.diverged or len(run.history) < 2:
        return None
    earlier = {int(record["step"]): record for record in run.history[:-1]}
    at = earlier[late_step(recipe, earlier)]
    fraction = at["step"] / recipe.total
    if abs(fraction - 0.75) >= 0.125:
        return None
    if "test_examples" not in at:
        return fraction, at["test_error"] - run.test_error, recipe.arrays.size("test")
    if run.mistakes is None:
        return None
    for stride_of in (late_stride, curve_stride):  # a run that an earlier version stored has the curve's
        same = run.mistakes.wrong[:: stride_of(recipe, run.mistakes.examples)]  # the record's examples
        if len(same) == at["test_examples"]:
            return fraction, at["test_error"] - 100.0 * float(same.mean()), len(same)
    return None
