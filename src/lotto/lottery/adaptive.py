"""Adaptive IMP: the share pruned at each level is as large as the landscape allows, instead of a fixed 20 %.

By trial with back-off, a rule of ours: cut by `FIRST_SHARE`, rewind, train. Keep the level if it matches and no barrier
lies between the last solution and this one; otherwise throw it away and try `BACK_OFF` times the share; a share that
worked is used again. Where the projection alone says that more is free (the training loss, without any training, rises
by at most `EPSILON`), that much is tried first. It ends at the target density, at the last level, or when the share
falls below `LEAST_SHARE`. All replicates cut by the same share, and their means decide. The claims behind it are UNM's:
a level whose solution is cut off from the last one does not match (figure 2), and what can be pruned is what leaves the
remaining subspace inside the sublevel set (section 5), of which the projection is one point.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lotto.data import Split
from lotto.execution.engine import Progress
from lotto.execution.procedures import Procedure, gather
from lotto.landscape.curvature.pruning_limit import EPSILON
from lotto.landscape.path import PathTask, path_of
from lotto.lottery.plan import Plan
from lotto.lottery.procedure import Level, LevelFinished, cut, dense_level, next_level, rewind_point, train_controls
from lotto.pruning import masks
from lotto.pruning.rule import Pruning
from lotto.training.job import Run, State

log = logging.getLogger(__name__)

FIRST_SHARE, LEAST_SHARE = 0.5, 0.1
"""Share of the remaining weights in the first cut; below the least one the search ends."""
BACK_OFF = 0.5
"""Factor on the share after a cut that was not kept. Tried on LeNet/MNIST: 0.7 loses more trials just above the
tolerance, as do a first share of 0.4 and shares that grow again after a success (10 trainings to 4 % instead of 9);
allowing for the standard error of the mean fails nowhere, but its levels no longer match."""
LARGEST_BARRIER = 0.5
"""Barrier above the line between both ends, in points, up to which two levels count as connected; the recipe's
tolerance if that is larger, as it is for a small test set."""
POINTS = 11
"""Positions on the path between two levels."""
FREE_SHARES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Cuts larger than `FIRST_SHARE` that are looked at before a level is trained."""
EXAMPLES = 10_000
"""A projection is free if the loss rises by at most `EPSILON` on at most so many training examples."""


@dataclass(frozen=True)
class Trial:
    """One cut that was trained.

    Attributes:
        level: the level it was to become.
        share: share of the remaining weights pruned.
        density: fraction of the prunable weights left.
        error, barrier: means over the replicates, in points, on the validation examples if some are held out, else on
            the test set.
        kept: whether it became the level.
    """

    level: int
    share: float
    density: float
    error: float
    barrier: float
    kept: bool


def adaptive_chain(plan: Plan, tell: Progress) -> Procedure[tuple[list[list[Level]], list[Trial]]]:
    """All levels of all replicates together, then their controls; and what was tried."""
    recipe, every = plan.recipe, range(plan.replicates)
    split: Split = "validation" if recipe.validation else "test"
    chains = [[level] for level in (yield from gather([dense_level(plan, r) for r in every]))]
    dense = [chain[0].run for chain in chains]
    rewound = [rewind_point(plan, run) for run in dense]
    limit = float(_errors(dense, split).mean()) + recipe.tolerance
    _tell(tell, chains)
    trials: list[Trial] = []
    share = FIRST_SHARE
    while len(chains[0]) <= plan.levels and share >= LEAST_SHARE:
        last = [chain[-1] for chain in chains]
        density, size = masks.density(last[0].mask), masks.size(last[0].mask)
        if masks.count(last[0].mask) <= plan.target * size + 1:  # to the weight, but for rounding
            break
        again = bool(trials) and not trials[-1].kept  # what was free has been tried
        free = 0.0 if again else (yield from free_share(plan, last, rewound))
        tried = min(max(share, free), 1 - plan.target / density) if plan.target else max(share, free)
        number, rule = len(chains[0]), scaled(plan.pruning, tried)
        chosen = [cut(rule, last[r], rewound[r], plan.seed + r) for r in every]
        left = masks.density(chosen[0])
        names = [f"replicate {r + 1} · level {number} · {left:.1%}" for r in every]
        found = yield from gather(
            [next_level(plan, r, number, chosen[r], rewound[r], last[r].solution, names[r]) for r in every]
        )
        outcomes = yield [
            PathTask(
                recipe, last[r].solution.weights, found[r].run.weights, POINTS, (split,), label=f"{names[r]} · path"
            )
            for r in every
        ]
        barrier = float(np.mean([path_of(outcome).barrier("line", split) for outcome in outcomes]))
        errors = _errors([at.run for at in found], split)
        kept = errors.mean() <= limit + 1e-9 and barrier <= max(LARGEST_BARRIER, recipe.tolerance)
        trials.append(Trial(number, tried, left, float(errors.mean()), barrier, bool(kept)))
        if kept:
            for chain, level in zip(chains, found, strict=True):
                chain.append(level)
            _tell(tell, chains)
        else:
            share = share if tried > share else BACK_OFF * share
            log.info(
                "Level %d at %.3g %% is not kept: error %.2f (limit %.2f), barrier %.2f. The next cut is %.3g %%.",
                number, 100 * left, errors.mean(), limit, barrier, 100 * share,
            )  # fmt: skip
    # Level 0 has no controls: there is nothing to control when no cut was kept.
    chosen_levels = plan.control_levels or range(max(1, len(chains[0]) - 1), len(chains[0]))
    yield from gather([train_controls(plan, r, chains[r], rewound[r], chosen_levels) for r in every])
    return chains, trials


def free_share(plan: Plan, last: Sequence[Level], rewound: Sequence[State]) -> Procedure[float]:
    """The largest of `FREE_SHARES` whose projection costs at most `EPSILON` on average over replicates; 0 for none."""
    recipe = plan.recipe
    tasks = [
        PathTask(
            recipe, at.solution.weights, masks.apply(at.solution.weights, mask), 2, ("train",),
            examples=min(EXAMPLES, recipe.arrays.size()), label=f"replicate {r + 1} · projection of {share:.0%}",
        )
        for share in FREE_SHARES
        for r, at in enumerate(last)
        for mask in [cut(scaled(plan.pruning, share), at, rewound[r], plan.seed + r)]
    ]  # fmt: skip
    outcomes = yield tasks
    ends = [path_of(outcome).loss["train"] for outcome in outcomes]
    rises = np.array([end - start for start, end in ends]).reshape(len(FREE_SHARES), len(last)).mean(1)
    return max((share for share, rise in zip(FREE_SHARES, rises, strict=True) if rise <= EPSILON), default=0.0)


def scaled(rule: Pruning, share: float) -> Pruning:
    """The rule with ``share`` as its rate; layers with rates of their own are cut as many ordinary levels further."""
    levels = math.log(1 - share) / math.log(1 - rule.rate)
    return replace(rule, rate=share, rates={n: 1 - (1 - r) ** levels for n, r in rule.rates.items()})


def _errors(runs: Sequence[Run], split: str) -> np.ndarray:
    return np.array([run.history[-1][f"{split}_error"] for run in runs])


def _tell(tell: Progress, chains: Sequence[Sequence[Level]]) -> None:
    for replicate, chain in enumerate(chains):
        at = chain[-1]
        tell(LevelFinished(replicate, at.level, masks.density(at.mask), at.run.test_error))
