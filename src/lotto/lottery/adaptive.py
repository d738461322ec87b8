"""Adaptive IMP: the fraction pruned at each level is as large as the landscape allows, instead of a fixed 20 %.

By trial with back-off, a rule of ours: cut by `FIRST_FRACTION`, rewind, train. Keep the level if it matches and no
barrier lies between the last solution and this one; otherwise throw it away and try `BACK_OFF` times the fraction; one
that worked is used once more. Where the projection alone says that more is free (the training loss, without any
training, rises by at most `tolerated_rise`), that much is tried first. It ends at the target density, at the last
level, or when the fraction falls below `LEAST_FRACTION`. All replicates cut by the same fraction, and their means
decide. The claims behind it are UNM's: a level whose solution is cut off from the last one does not match (figure 2),
and what can be pruned is what leaves the remaining subspace inside the sublevel set (section 5), of which the
projection is one point.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lotto.data import Split
from lotto.execution.engine import Progress
from lotto.execution.procedures import Procedure, gather
from lotto.landscape.curvature.pruning_limit import EPSILON, tolerated_rise
from lotto.landscape.path import PathTask, path_of
from lotto.lottery.gaps import gap_of
from lotto.lottery.plan import SettledPlan
from lotto.lottery.procedure import LevelFinished
from lotto.lottery.replicate import Level, Replicate, trained_replicate
from lotto.pruning import masks
from lotto.pruning.density import LARGEST_CUT, scaled
from lotto.training.job import Run

log = logging.getLogger(__name__)

FIRST_FRACTION, LEAST_FRACTION = 0.5, 0.1
"""Share of the remaining weights in the first cut; below the least one the search ends."""
BACK_OFF = 0.5
"""Factor on the fraction after a cut that was not kept. Tried on LeNet/MNIST: 0.7 loses more trials just above the
tolerance, as do a first fraction of 0.4 and fractions that grow again after a success (10 trainings to 4 % instead of
9); allowing for the standard error of the mean fails nowhere, but its levels no longer match."""
LARGEST_BARRIER = 0.5
"""Barrier above the line between both ends, in percentage points, up to which two levels count as connected; the
recipe's tolerance if that is larger, as it is for a small test set; twice the tolerance of errors in other units."""
POINTS = 11
"""Positions on the path between two levels."""
FREE_FRACTIONS = (0.6, 0.7, 0.75, 0.8, 0.85, LARGEST_CUT)
"""Cuts larger than `FIRST_FRACTION` that are evaluated before a level is trained."""
EXAMPLES = 10_000
"""A projection is free if the loss rises by at most `tolerated_rise` on at most so many training examples."""


@dataclass(frozen=True)
class Trial:
    """One cut that was trained.

    Attributes:
        level: the level it was to become.
        share: fraction of the remaining weights pruned.
        density: fraction of the prunable weights left.
        error, barrier: means over the replicates, in the error's unit.
        kept: whether it became the level: mean gap within the tolerance and barrier small. A choice, which takes the
            mean as it is; what is reported of the levels are the verdicts of `ImpResult.table`.
        split: what chose: the validation examples, which `make_plan` holds out. In results of the time before it may
            be the test set, whose verdicts are then those of a choice, too.
        gap_high: upper one-sided bound of the mean paired gap on that split; NaN for one replicate.
        verdict: of that gap, see `lotto.core.statistics.Match`; empty where a training diverged.

    >>> trial = Trial(level=1, share=0.5, density=0.5, error=2.1, barrier=0.05, kept=True, split="validation")
    >>> trial.kept, trial.verdict
    (True, '')
    """

    level: int
    share: float
    density: float
    error: float
    barrier: float
    kept: bool
    split: str = "test"
    gap_high: float = math.nan
    verdict: str = ""


def adaptive_procedure(plan: SettledPlan, emit: Progress) -> Procedure[tuple[list[list[Level]], list[Trial]]]:
    """All levels of all replicates together, then their controls; and what was tried."""
    recipe = plan.recipe
    split: Split = "validation" if recipe.validation else "test"
    replicates = yield from gather([trained_replicate(plan, index) for index in range(plan.replicates)])
    every = [[replicate.dense] for replicate in replicates]
    _emit(emit, every)
    # The cuts are chosen with the replicates whose dense network was trained to the end.
    ended = [index for index, (at,) in enumerate(every) if not at.diverged]
    if not ended:
        return every, []
    replicates, levels = [replicates[i] for i in ended], [every[i] for i in ended]
    starts = _errors([at.run for (at,) in levels], split)
    dense = float(starts.mean())
    allowed = recipe.margin.above(dense)
    limit, largest = dense + allowed, max(LARGEST_BARRIER, allowed) if recipe.in_points else 2 * allowed
    trials: list[Trial] = []
    fraction = FIRST_FRACTION
    while fraction >= LEAST_FRACTION:
        last = [done[-1] for done in levels]
        if (most := plan.next_cut(last[0].mask, last[0].level)) is None:
            break
        retrying = bool(trials) and not trials[-1].kept  # what was free has been tried
        free = 0.0 if retrying else (yield from free_fraction(replicates, last))
        tried = min(max(fraction, free), most.rate)
        rule = scaled(plan.pruning, tried)
        chosen = yield from gather([r.cut(at, rule) for r, at in zip(replicates, last, strict=True)])
        number, left = len(levels[0]), masks.density(chosen[0])
        found = yield from gather(
            [r.next_level(at, mask) for r, at, mask in zip(replicates, last, chosen, strict=True)]
        )
        diverged = any(at.diverged for at in found)
        outcomes = yield [] if diverged else [
            PathTask(
                recipe, before.solution.weights, after.run.weights, POINTS, (split,),
                label=replicate.label(f"level {number}", f"{left:.1%}", "path"),
            )
            for replicate, before, after in zip(replicates, last, found, strict=True)
        ]  # fmt: skip
        barriers = [path_of(outcome).barrier("line", split) for outcome in outcomes]
        barrier = float(np.mean(barriers)) if barriers else math.nan
        errors = _errors([at.run for at in found], split)
        empty = not all(masks.count(mask) for mask in chosen)
        gap = None if diverged else gap_of(list(starts), list(errors), recipe.margin, plan.confidence)
        kept = gap is not None and gap.within and barrier <= largest and not empty
        said = (math.nan, "") if gap is None else (gap.high, gap.verdict.value)
        trials.append(Trial(number, tried, left, float(errors.mean()), barrier, bool(kept), split, *said))
        if kept:
            for done, level in zip(levels, found, strict=True):
                done.append(level)
            _emit(emit, levels)
        else:
            fraction = fraction if tried > fraction else BACK_OFF * fraction
            log.info(
                "Level %d at %.3g %% is not kept: error %.3g (limit %.3g), barrier %.3g. The next cut is %.3g %%.",
                number, 100 * left, errors.mean(), limit, barrier, 100 * fraction,
            )  # fmt: skip
    # Level 0 has no controls: there is nothing to control when no cut was kept.
    controlled = plan.control_levels or range(max(1, len(levels[0]) - 1), len(levels[0]))
    yield from gather([r.train_controls(done, controlled) for r, done in zip(replicates, levels, strict=True)])
    return every, trials


def free_fraction(replicates: Sequence[Replicate], last: Sequence[Level]) -> Procedure[float]:
    """The largest of `FREE_FRACTIONS` whose projections cost at most `tolerated_rise` on average; 0 for none."""
    plan = replicates[0].plan
    tried = [(f, r, at) for f in FREE_FRACTIONS for r, at in zip(replicates, last, strict=True)]
    cuts = yield from gather([r.cut(at, scaled(plan.pruning, fraction)) for fraction, r, at in tried])
    tasks = [
        PathTask(
            plan.recipe, at.solution.weights, masks.apply(at.solution.weights, cut), 2, ("train",),
            examples=min(EXAMPLES, plan.recipe.arrays.size()), label=replicate.label(f"projection of {fraction:.0%}"),
        )
        for (fraction, replicate, at), cut in zip(tried, cuts, strict=True)
    ]  # fmt: skip
    outcomes = yield tasks
    ends = [path_of(outcome).loss["train"] for outcome in outcomes]
    rises = np.array([end - start for start, end in ends]).reshape(len(FREE_FRACTIONS), len(last)).mean(1)
    largest = tolerated_rise(plan.recipe, float(np.mean([start for start, _ in ends])), EPSILON)
    return max((f for f, rise in zip(FREE_FRACTIONS, rises, strict=True) if rise <= largest), default=0.0)


def _errors(runs: Sequence[Run], split: str) -> np.ndarray:
    return np.array([run.history[-1][f"{split}_error"] for run in runs])


def _emit(emit: Progress, levels: Sequence[Sequence[Level]]) -> None:
    for index, done in enumerate(levels):
        emit(LevelFinished.of(index, done[-1]))
