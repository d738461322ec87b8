"""What an experiment is: chains that measure, and tidy rows that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.engine import Chain, Engine, Progress
from lotto.lottery.plan import After, Plan, make_plan
from lotto.lottery.procedure import Level
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What every experiment can be told; each uses what it needs.

    Attributes:
        recipe: what is trained.
        replicates: initialisations.
        rewind_to: rewind steps, as text; empty = the recipe's own.
        levels: pruning levels to the density that is looked at.
        orders: data orders of each measure; their pairs are its samples.
        points: positions on a path.
        examples: at most so many examples of each split on a path.
        seed: replicate r uses the seeds ``seed + r``.
        look_at: levels that `subnetworks` looks at; empty = half of them and all.
    """

    recipe: Recipe
    replicates: int = 3
    rewind_to: tuple[str | int, ...] = ()
    levels: int = 10
    orders: int = 2
    points: int = 30
    examples: int | None = None
    seed: int = 0
    look_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.replicates < 1:
            raise UsageError(f"replicates is 1 or more; got {self.replicates}.")
        if self.levels < 1:
            raise UsageError(
                f"Experiments compare levels, so they need at least two: the dense network and levels=1; "
                f"got levels={self.levels}."
            )
        if self.orders < 2:
            raise UsageError(f"A distance needs at least 2 data orders; got {self.orders}.")
        for level in self.look_at:
            if not 1 <= level <= self.levels:
                raise UsageError(f"There are the levels 1 to {self.levels} to look at; got {level}.")
        for step in self.rewind_steps:
            if step >= self.recipe.total:
                raise UsageError(
                    f"The rewind step {step} is not before the end of training at {self.recipe.total} iterations."
                )

    @property
    def rewind_steps(self) -> tuple[int, ...]:
        """The rewind steps in iterations, in increasing order."""
        return tuple(sorted({self.recipe.step(k) for k in self.rewind_to or (self.recipe.rewind_to,)}))

    def order_seeds(self, replicate: int) -> tuple[int, ...]:
        """Data orders of a replicate: that of its own training first, so that its runs are shared."""
        base = self.seed + replicate
        return (base, *(derived_seed(base, "another-order", i) for i in range(1, self.orders)))

    def training(self) -> dict[str, Any]:
        """What claims ask about a training: its length, peak rate and warm-up, in numbers."""
        recipe = self.recipe
        return {
            "iterations": recipe.total,
            "per_epoch": recipe.per_epoch,
            "learning_rate": recipe.optimizer.lr,
            "warmup": recipe.step(recipe.schedule.warmup),
        }

    def describe(self) -> dict[str, Any]:
        """The options in plain values, for files and reports."""
        values = {k: v for k, v in vars(self).items() if k != "recipe"}
        return {**values, "rewind_to": list(self.rewind_steps), "look_at": list(self.look_at)}


@dataclass(frozen=True)
class Experiment:
    """A figure of a paper.

    Attributes:
        name: as on the command line.
        title: what it shows.
        source: which figure of which paper.
        chains: from options to chains of rows, all independent of each other.
        rewind_to: rewind steps if none are given; empty = the recipe's own.
        paper: the package of the paper.
        plot: from means and spreads of the rows and the recipe's tolerance to the figure; None = a table only.
    """

    name: str
    title: str
    source: str
    chains: Callable[[Options], Sequence[Chain[list[Row]]]]
    rewind_to: tuple[str, ...] = ()
    paper: str = "stabilizing"
    plot: Callable[[pd.DataFrame, float], Figure] | None = None

    def run(self, options: Options, engine: Engine, progress: Progress | None = None) -> pd.DataFrame:
        """Measure; returns one row per sample of each measure."""
        rows = engine.drive(self.chains(options), progress)
        return pd.DataFrame([row for chain in rows for row in chain])


def summary(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and sample standard deviation over replicates, after the mean over each replicate's samples."""
    each = frame.groupby([*by, "replicate"], sort=False, dropna=False)["value"].mean()
    groups = each.groupby(list(by), sort=False, dropna=False)
    return pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=1), "n": groups.size()}).reset_index()


def plan_of(
    options: Options, k: int, after: After = After.WEIGHTS, controls: Sequence[str] = (), one_shot: bool = False
) -> Plan:
    """The plan of IMP rewound to step ``k`` that an experiment looks at."""
    return make_plan(
        options.recipe, options.levels, rewind_to=k, replicates=options.replicates, controls=controls, after=after,
        one_shot=one_shot, seed=options.seed,
    )  # fmt: skip


def about(replicate: int, k: int, at: Level) -> Row:
    """The columns that place a row: replicate, rewind step, level, density."""
    return {"replicate": replicate, "rewind_step": k, "level": at.level, "density": masks.density(at.mask)}


def row(at: Row, kind: str, measure: str, unit: str, sample: int, value: float, **more: float) -> Row:
    """A tidy row: what was measured of which kind of network, in what unit; ``more`` are columns of an experiment."""
    return {**at, **more, "kind": kind, "measure": measure, "unit": unit, "sample": sample, "value": value}
