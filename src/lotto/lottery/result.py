"""What IMP found: its levels over all replicates, their table, verdicts and tickets."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.shown import number, table
from lotto.core.statistics import Match, leading_matches
from lotto.lottery.adaptive import Trial
from lotto.lottery.comparison import Comparison, Which, compare
from lotto.lottery.gaps import Gap, gap_of
from lotto.lottery.options import Retraining
from lotto.lottery.plan import SettledPlan
from lotto.lottery.replicate import Level
from lotto.lottery.runs import RunKey, all_runs, overlap_table, sign_table
from lotto.pruning import masks
from lotto.pruning.ticket import Ticket
from lotto.training.job import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

DENSE, DIVERGED, EMPTY = "dense", "diverged", "no weights"
"""What is said of levels about which gaps say nothing: the first one; where a replicate diverged; where nothing is
left."""


@dataclass(frozen=True, eq=False)
class ImpResult:
    """The outcome of `imp`: ``replicates[replicate][level]``, and what adaptive pruning tried.

    A replicate of which a training diverged has no levels after it.

    >>> result = lotto.imp(recipe, levels=1, rate=0.5, rewind_to="5it", replicates=2, controls=(), jobs=1)
    >>> result.ticket(level=1).density, result.ticket(level=1).rewind_step, len(result.table())
    (0.5, 5, 2)
    """

    plan: SettledPlan
    replicates: Sequence[Sequence[Level]]
    trials: Sequence[Trial] = ()

    @property
    def chains(self) -> Sequence[Sequence[Level]]:
        """The name of ``replicates`` in the first edition."""
        warnings.warn("ImpResult.chains is ImpResult.replicates now.", DeprecationWarning, stacklevel=2)
        return self.replicates

    def table(self) -> pd.DataFrame:
        """One row per level.

        Columns: ``level``; ``density`` (fraction of the prunable weights left); ``parameter_fraction`` (of all
        parameters); ``error``, ``error_std`` and ``n`` (test error, in percent unless the recipe says otherwise, over
        the replicates); ``dense_error``, ``dense_std``; ``gap`` (mean over the replicates of a level's error minus
        that of the same replicate's dense network), ``gap_low`` and ``gap_high`` (its one-sided t-bounds of 95 %, or
        of what two looks need; none for one replicate); ``verdict`` (``matching``: the upper bound is below the
        recipe's tolerance; ``failing``: the lower one is above it; ``borderline``: neither; ``not decided (n = 1)``;
        ``dense``; ``diverged``; ``no weights``); ``matching`` (whether that is the verdict; level 0 matches); for each
        control ``NAME`` and ``NAME_std``; ``empty_layers``; ``diverged`` (replicates that have diverged, here or at an
        earlier level). Means are over what came to its end, ``n`` counts that. A level to which a replicate did not
        come does not match. Where controls diverged, ``NAME_diverged`` counts them.
        """
        rows = []
        dense = _errors([levels[0].run for levels in self.replicates])
        for level in range(max(map(len, self.replicates))):
            levels = [replicate[level] for replicate in self.replicates if level < len(replicate)]
            error, gap, verdict = _errors([at.run for at in levels]), self._gap(level), self._verdict(level)
            row: dict[str, Any] = {
                "level": level,
                "density": float(np.mean([masks.density(at.mask) for at in levels])),
                "parameter_fraction": float(np.mean([self._parameter_fraction(at) for at in levels])),
                "error": _mean(error),
                "error_std": _std(error),
                "n": len(error),
                "dense_error": _mean(dense),
                "dense_std": _std(dense),
                "gap": gap.mean,
                "gap_low": gap.low,
                "gap_high": gap.high,
                "verdict": verdict,
                "matching": verdict in (DENSE, Match.MATCHING.value),
            }
            for control in self.plan.options.controls:
                found = _errors([at.controls[control] for at in levels if control in at.controls])
                row[control] = _mean(found)
                row[f"{control}_std"] = _std(found)
                if lost := sum(bool(at.controls[control].diverged) for at in levels if control in at.controls):
                    row[f"{control}_diverged"] = lost
            row["empty_layers"] = ", ".join(sorted({x for at in levels for x in masks.empty_layers(at.mask)}))
            row["diverged"] = self._lost(level)
            rows.append(row)
        return pd.DataFrame(rows)

    def _gap(self, level: int) -> Gap:
        """The paired gap of a level, over the replicates that came to its end."""
        pairs = [
            (levels[0].run.test_error, levels[level].run.test_error)
            for levels in self.replicates
            if level < len(levels) and not levels[0].diverged and not levels[level].run.diverged
        ]
        return gap_of([d for d, _ in pairs], [s for _, s in pairs], self.plan.recipe.margin, self.plan.confidence)

    def _lost(self, level: int) -> int:
        """How many replicates have diverged at a level or before it."""
        return sum(any(at.diverged for at in replicate[: level + 1]) for replicate in self.replicates)

    def _verdict(self, level: int) -> str:
        """What is said of a level."""
        if level == 0:
            return DENSE
        if self._lost(level):
            return DIVERGED
        if not all(masks.count(levels[level].mask) for levels in self.replicates):
            return EMPTY
        return self._gap(level).verdict.value

    @property
    def open_level(self) -> int | None:
        """The first level that does not match, if that is borderline, so that more replicates could go on; else None.

        What lies behind a level that fails, or diverged, is not looked at, see `sparsest_matching`.
        """
        verdicts = self._verdicts
        level = _leading(verdicts) + 1
        return level if level < len(verdicts) and verdicts[level] == Match.BORDERLINE.value else None

    @property
    def _verdicts(self) -> list[str]:
        return [self._verdict(level) for level in range(max(map(len, self.replicates)))]

    @property
    def matching_level(self) -> int:
        """The sparsest level that matches, as all before it do: a fixed sequence from dense to sparse."""
        return _leading(self._verdicts)

    @property
    def likely_level(self) -> int:
        """The sparsest level up to which every mean gap is within the tolerance, whatever its bounds say.

        What there is to go on while nothing is decided, as with one replicate; never less than `matching_level`.
        """
        likely = [v not in (DIVERGED, EMPTY) and self._gap(level).within for level, v in enumerate(self._verdicts)]
        return max(len(list(takewhile(bool, likely[1:]))), self.matching_level)

    @property
    def chosen_level(self) -> int:
        """The level whose ticket is saved: the sparsest that matches, or the likely one where no pruned level does."""
        return self.matching_level or self.likely_level

    @property
    def diverged(self) -> list[str]:
        """A sentence for each training that diverged: which it was, and why it has no error."""
        return [
            f"Replicate {replicate + 1}, level {level}{'' if kind == 'imp' else f', {kind}'}: {run.diverged}"
            for (replicate, level, kind), run in self.runs.items()
            if run.diverged
        ]

    def _first_ended(self, level: int) -> int:
        """The first replicate whose training of a level came to its end."""
        ended = (i for i, r in enumerate(self.replicates) if level < len(r) and not r[level].diverged)
        return next(ended, 0)

    @checked
    def compare(self, a: Which, b: Which) -> Comparison:
        """How much larger the test error of ``b`` is than that of ``a``, paired by replicate.

        Args:
            a, b: a level, such as 0 for the dense network, or a level's control: ``(5, "random")``.

        Returns:
            The paired gaps with their interval, the part of their variance that the choice of test examples makes, and
            McNemar's exact test for each replicate.

        Raises:
            UsageError: if no replicate has both.
        """
        return compare(self.plan.recipe, self.replicates, a, b)

    @property
    def runs(self) -> dict[RunKey, Run]:
        """Every run by ``(replicate, level, kind)``: kind is ``imp``, a control's name, ``particle 1``, ... ."""
        return all_runs(self.replicates)

    def runs_table(self) -> pd.DataFrame:
        """One row per run: ``replicate``, ``level``, ``density``, ``parameter_fraction``, ``kind`` (imp, a control,
        or particle), ``test_error``, ``test_loss``, ``train_loss``, ``seconds``, ``diverged`` (why; else empty)."""
        rows = []
        for (replicate, level, kind), run in self.runs.items():
            at = self.replicates[replicate][level]
            rows.append(
                {
                    "replicate": replicate,
                    "level": level,
                    "density": masks.density(at.mask),
                    "parameter_fraction": self._parameter_fraction(at),
                    "kind": kind.partition(" ")[0],
                    "test_error": run.test_error,
                    "test_loss": run.test_loss,
                    "train_loss": run.history[-1]["train_loss"],
                    "seconds": run.seconds,
                    "diverged": run.diverged,
                }
            )
        return pd.DataFrame(rows)

    def overlap_table(self) -> pd.DataFrame:
        """How far masks agree: each level's over every two replicates, and a level's with the one before it.

        Columns: ``level``, ``replicate``, ``other_level``, ``other_replicate``; ``common`` (weights that both leave);
        ``jaccard`` (these among the weights that at least one leaves); ``expected`` (the mean of that over random
        masks with the same number of weights left in every layer, exact), see `lotto.pruning.overlap`.
        """
        return overlap_table(self.replicates)

    def sign_table(self) -> pd.DataFrame:
        """How many of the weights that a level keeps change their sign.

        One row per replicate and level. Columns: ``replicate``, ``level``, ``density``; ``kept`` (weights);
        ``in_training`` (the fraction whose sign at the end is not that at the rewind step, where the level began; NaN
        unless weights were rewound); ``since_last_level`` (whose sign at the end is not that at the end of the level
        before; NaN for level 0). Weights that are 0 at either point have no sign and are not counted in either number.

        Raises:
            UsageError: for a loaded result that was saved without its trained weights.
        """
        return sign_table(self.replicates, self.plan.rewind_step, self.plan.options.after is Retraining.WEIGHTS)

    def trials_table(self) -> pd.DataFrame:
        """One row per cut that adaptive pruning tried: the fields of `lotto.lottery.Trial`."""
        return pd.DataFrame([vars(trial) for trial in self.trials])

    @property
    def left_out(self) -> str:
        """The matrices that are not prunable, why, and their share of all parameters; empty if there are none."""
        return self.plan.recipe.left_out

    def _parameter_fraction(self, at: Level) -> float:
        return 1 - (masks.size(at.mask) - masks.count(at.mask)) / self.plan.recipe.parameter_count

    @property
    def trainings(self) -> int:
        """Trainings of each replicate, failed trials and particles among them, controls not."""
        return self.plan.options.particles * (1 + (len(self.trials) or max(map(len, self.replicates)) - 1))

    @checked
    def sparsest_matching(self, replicate: int | None = None) -> Ticket:
        """The ticket of the sparsest level that matches, as all levels before it do; level 0, which is dense, does.

        Levels are tested from dense to sparse, and the first that is not shown to match ends the search: in that order
        5 % of error for each level are 5 % for the outcome (design: fixed sequence). With one replicate nothing is
        decided, and this is the dense network's; see `sparsest_within_tolerance`.

        Args:
            replicate: whose; default the first that did not diverge there.
        """
        return self._ticket_of(self.matching_level, replicate)

    @checked
    def sparsest_within_tolerance(self, replicate: int | None = None) -> Ticket:
        """The ticket of the sparsest level up to which every mean gap is within the tolerance.

        Likely to match, but not shown to: for one replicate, or where levels are borderline.

        Args:
            replicate: whose; default the first that did not diverge there.
        """
        return self._ticket_of(self.likely_level, replicate)

    def chosen_ticket(self) -> Ticket:
        """The ticket that is saved, see `chosen_level`; its information says whether it is shown to match."""
        return self._ticket_of(self.chosen_level, None)

    def _ticket_of(self, level: int, replicate: int | None) -> Ticket:
        return self.ticket(level, self._first_ended(level) if replicate is None else replicate)

    @checked
    def ticket(self, level: int, replicate: int = 0) -> Ticket:
        """The ticket of a level: the rewound start and the mask.

        Raises:
            UsageError: if there is no such level or replicate, or its training did not start at the rewind step.
        """
        if not 0 <= replicate < len(self.replicates):
            raise UsageError(f"Replicates are 0 to {len(self.replicates) - 1}; got {replicate}.")
        if not 0 <= level < len(self.replicates[replicate]):
            raise UsageError(f"Levels are 0 to {len(self.replicates[replicate]) - 1}; got {level}.")
        if self.plan.options.after is not Retraining.WEIGHTS and level:
            after = Retraining(self.plan.options.after).value
            raise UsageError(f"{after=} does not rewind the weights, so it makes no tickets.")
        levels = self.replicates[replicate]
        start = levels[0].run.at(self.plan.rewind_step)
        info = {
            "recipe": self.plan.recipe.describe(),
            "plan": self.plan.describe(),
            "level": level,
            "replicate": replicate,
            "order_seed": self.plan.order_seed(replicate, level),
            "test_error": levels[level].run.test_error,
            "dense_error": levels[0].run.test_error,
            "verdict": self._verdict(level),
            "parameters": self.plan.recipe.parameter_count,
        }
        made = Ticket(masks.apply(start, levels[level].mask), levels[level].mask, self.plan.rewind_step, info)
        if made.warning:
            log.warning("The ticket of level %d: %s", level, made.warning)
        return made

    @checked
    def save(self, folder: str | Path, *, weights: bool = True) -> Path:
        """Write the result: tables, report.html, the ticket, and what `lotto.load` makes the result of again.

        If the folder holds another experiment, into ``folder-2``, ``folder-3``, ...; the same result goes to the same
        place.

        Args:
            folder: made if it is not there.
            weights: whether the trained weights of all runs are written as well, as `sign_table` needs them; masks and
                the weights at the rewind step, of which tickets consist, are in any case.

        Returns:
            The folder that was written.

        Raises:
            UsageError: for a result that was loaded: copy its folder.
            StorageError: if it cannot be written.
        """
        folder_of_it: Path = reporting("save").save_python(self, Path(folder), weights)
        return folder_of_it

    @checked
    def plot(self, kind: str = "error") -> Figure:
        """A figure of matplotlib, which notebooks show as it is: ``result.plot().savefig("error.pdf")``.

        Args:
            kind: ``error`` (of IMP and its controls against density, with the bounds), ``curves`` (test error along
                training), ``layers`` (density of each layer).
        """
        figure: Figure = reporting("plots").of_result(self, kind)
        return figure

    @checked
    def table_as(self, form: str) -> str:
        """The table of levels as a text.

        Args:
            form: ``markdown``, ``latex`` (for the package booktabs), both with the columns that people read, gaps with
                their one-sided bounds; or ``csv``, with all columns of `table`.
        """
        text: str = reporting("texts").of_result(self, form)
        return text

    def __repr__(self) -> str:
        found = self.table()
        dense, best = found.iloc[0], found.iloc[self.chosen_level]
        unit, levels = self.plan.recipe.error_unit, f"{len(found)} levels, {len(self.replicates)} replicates"
        shown = "sparsest matching" if self.matching_level == self.chosen_level else "not decided, within the tolerance"
        return (
            f"ImpResult({self.plan.recipe.name!r}: {levels}, dense error {number(dense['error'], unit)};\n"
            f"  {shown}: level {best['level']}, {100 * best['density']:.3g} % left, "
            f"error {number(best['error'], unit)})"
        )

    def _repr_html_(self) -> str:
        """The table of levels; its caption says what is compared."""
        found = self.table()
        left = [column for column in found if not str(column).startswith("dense_")]
        cells = [
            [number(v) if isinstance(v, float) else v for v in row] for row in found[left].astype(object).to_numpy()
        ]
        return table([str(c).replace("_", " ") for c in left], cells, repr(self))


def _leading(verdicts: Sequence[str]) -> int:
    """The last level before the first that does not match."""
    said = {match.value: match for match in Match}
    return leading_matches([said.get(verdict, Match.FAILING) for verdict in verdicts[1:]])


def _errors(runs: Sequence[Run]) -> np.ndarray:
    """Errors of the trainings that came to their end."""
    return np.array([run.test_error for run in runs if not run.diverged])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _std(values: np.ndarray) -> float:
    """Sample standard deviation; NaN for fewer than two values."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def reporting(module: str) -> ModuleType:
    """A module of the report, which stands above: what a result is written and drawn with is imported when it is."""
    return import_module(f"lotto.report.{module}")
