"""What an experiment is: a generator that measures one case, and tidy rows that come out."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from lotto.core.check import checked
from lotto.core.errors import DivergedError, unknown
from lotto.execution.engine import Engine, Progress
from lotto.execution.procedures import Procedure
from lotto.execution.progress import showing
from lotto.experiments.case import Case, Row
from lotto.experiments.measures import DIVERGED, SETTINGS
from lotto.experiments.options import SHARED, Options
from lotto.experiments.rehearsal import trainings
from lotto.lottery.plan import with_validation
from lotto.recipe.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measured = Callable[..., Procedure[list[Row]]]
Plot = Callable[[pd.DataFrame, float], "Figure"]

MOST_REHEARSED = 3_000_000
"""Parameters of a network whose trainings are counted beforehand: of a larger one it takes a minute."""
COLUMNS = (
    "replicate", "seed", "rewind_step", "level", "density", "parameter_fraction", "x", *SETTINGS, "kind", "measure",
    "unit", "sample", "value", "y", "note",
)  # fmt: skip
"""All columns that rows may have, in the order of the files."""
KEYS = ("rewind_step", "level", "density", "kind", "measure", "unit", "x", "y")
"""The columns whose values a mean over replicates belongs to; not every experiment has the last two."""


@dataclass(frozen=True)
class Experiment:
    """A figure of a paper.

    Attributes:
        name: as on the command line.
        title: what it shows.
        source: which figure of which paper.
        procedure: from a case and the experiment's own options to the rows of the case.
        rewind_to: rewind steps if none are given; empty = the recipe's own.
        paper: the package of the paper.
        plot: from means and spreads of the rows and the recipe's tolerance to the figure; None = a table only.
        chooses: whether it chooses by errors, so that it holds examples out for that, see `with_validation`.
        compares: whether what it shows is errors against density: then levels have verdicts, see `gap_table`.
        searches: whether it trains again after it has measured, so that it does not know beforehand how often.

    >>> def measure(case):
    ...     run = yield lotto.Job(case.recipe, case.seed, case.seed)
    ...     return case.dense_rows(run)
    >>> dense = Experiment("dense", "Error of the dense network", "ours", measure)
    >>> frame = dense.run(dense.options(recipe, {"replicates": 2}), lotto.engine.make(jobs=1))
    >>> frame[frame["measure"] == "error"]["replicate"].tolist()
    [0, 1]
    """

    name: str
    title: str
    source: str
    procedure: Measured
    rewind_to: tuple[str, ...] = ()
    paper: str = ""
    plot: Plot | None = None
    chooses: bool = False
    compares: bool = False
    searches: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that it has beside the common ones: the generator's keyword arguments."""
        arguments = inspect.signature(self.procedure).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is inspect.Parameter.KEYWORD_ONLY}

    @checked
    def options(self, recipe: Recipe, given: Mapping[str, Any]) -> Options:
        """Options from values by name; without any rewind steps they are the experiment's."""
        made = Options(
            with_validation(recipe) if self.chooses else recipe,
            **{**given, "rewind_to": given.get("rewind_to") or self.rewind_to},
        )
        self.own(made)  # an unknown one is named now
        return made

    def own(self, options: Options) -> dict[str, Any]:
        """What it takes of the options beside the common ones.

        Raises:
            UsageError: for an option that neither it nor several others have.
        """
        defaults = self.defaults
        for name in options.own:
            if name not in (*defaults, *SHARED):
                raise unknown("option", name, (*options.describe(), *sorted({*defaults, *SHARED})))
        return {name: options.own.get(name, default) for name, default in defaults.items()}

    @checked
    def run(self, options: Options, engine: Engine, progress: Progress | bool | None = None) -> pd.DataFrame:
        """Measure; returns one row per sample of each measure.

        What diverged is NaN, with a word in the column ``note``; a case that cannot be measured for it is one row.

        Raises:
            DivergedError: if that is so for every case.
        """
        own = self.own(options)
        cases = [Case(options, k, r, own) for k in options.rewind_steps for r in range(options.replicates)]
        with showing(progress, trainings=partial(self.trainings, options)) as emit:
            found = engine.run_procedures([self._measured(case, own) for case in cases], emit)
        frame = pd.DataFrame([row for rows in found for row in rows])
        if frame["value"].isna().all():
            notes = [note for note in frame["note"] if note != DIVERGED.name]
            raise DivergedError(notes[0] if notes else "All trainings diverged. Try a lower learning rate.")
        settings = {name: "Int64" for name in SETTINGS if name in frame}  # whole numbers, some of them none
        return frame.astype(settings)[[column for column in COLUMNS if column in frame]]

    def trainings(self, options: Options) -> int | None:
        """How many different trainings it will ask for; None if it does not know beforehand.

        What rewind steps have in common counts once: the dense network, the first mask on a new initialisation.

        >>> from lotto import papers
        >>> sparsity = papers.get("stabilizing.sparsity")
        >>> sparsity.trainings(sparsity.options(recipe, {"replicates": 2, "levels": 3, "rewind_to": ("0it", "5it")}))
        36
        """
        if self.searches or options.recipe.parameter_count > MOST_REHEARSED:
            return None
        own = self.own(options)
        # Replicates are alike; the rewind steps of one have trainings in common.
        procedures = [self._measured(Case(options, k, 0, own), own) for k in options.rewind_steps]
        with contextlib.suppress(Exception):  # whatever it is, it is said when it is trained
            return options.replicates * trainings(procedures)
        return None

    def _measured(self, case: Case, own: Mapping[str, Any]) -> Procedure[list[Row]]:
        try:
            return (yield from self.procedure(case, **own))
        except DivergedError as error:
            return [case.diverged_row(error)]

    def describe(self, options: Options) -> dict[str, Any]:
        """The options in plain values, for files and reports."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in self.own(options).items()}
        return {**options.describe(), **own}


def experiment(
    name: str,
    *,
    title: str,
    source: str,
    plot: Plot | None = None,
    rewind_to: tuple[str, ...] = (),
    chooses: bool = False,
    compares: bool = False,
    searches: bool = False,
) -> Callable[[Measured], Experiment]:
    """Make an experiment of a generator that measures one case.

    The generator is called with a `Case` and its own keyword arguments, which are the experiment's options; it yields
    pytrees of jobs and tasks and returns rows. The paper is the package that it is defined in.

    >>> @experiment("dense", title="Error of the dense network", source="ours")
    ... def dense(case, *, copies=2):
    ...     runs = yield [lotto.Job(case.recipe, case.seed, seed) for seed in case.order_seeds(copies)]
    ...     return [row for run in runs for row in case.dense_rows(run)]
    >>> dense.defaults
    {'copies': 2}
    """

    def made(procedure: Measured) -> Experiment:
        paper = procedure.__module__.split(".")[-2:][0]
        return Experiment(name, title, source, procedure, rewind_to, paper, plot, chooses, compares, searches)

    return made


def summary(frame: pd.DataFrame, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """Mean and sample standard deviation over replicates, after the mean over each replicate's samples; what diverged
    is counted and has no part in them."""
    by = [column for column in by if column in frame]
    each = frame.groupby([*by, "replicate"], sort=False, dropna=False)["value"].mean()
    groups = each.groupby(by, sort=False, dropna=False)
    return pd.DataFrame(
        {
            "mean": groups.mean(),
            "std": groups.std(ddof=1),
            "n": groups.count(),
            "diverged": groups.size() - groups.count(),
        }
    ).reset_index()
