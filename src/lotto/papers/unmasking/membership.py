"""UNM's mechanism: whether the next axial subspace meets the connected sublevel set of a level's solution."""

from __future__ import annotations

from itertools import pairwise

from lotto.core.rng import derived_seed
from lotto.core.weights import distance
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, IMP, RANDOM
from lotto.landscape.batchnorm import has_batchnorm
from lotto.landscape.path import PathTask, path_of
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.papers.unmasking.pruning_limit import EVALUATED, shortened
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training.job import Job, State

POINTS = 7
"""On a line that is as short as a projection."""
RATE = 0.1
"""Rate of the search inside the subspace, as a part of the recipe's: it is to stay near the solution."""


@experiment(
    "membership", title="The next subspace meets the connected sublevel set where the next level matches",
    source="UNM 3.1", rewind_to=("0it", "100it"), plot=plots.membership,
)  # fmt: skip
def membership(case: Case, *, points: int = POINTS, examples: int | None = EVALUATED) -> Procedure[list[Row]]:
    """UNM 3.1: how far the straight line from a solution to the best point of the next axial subspace rises above it.

    The epsilon-linearly-connected sublevel set of a solution holds all points to which the line stays within epsilon
    of its own value; the best point inside the subspace is found by a short training at a low rate from the
    projection. The control is a random subspace of the same size within the level's own. With BatchNorm also with
    statistics re-estimated along the line. A row's level is that of the subspace.
    """
    recipe = case.recipe
    low = shortened(recipe, RATE * recipe.optimizer.lr)
    levels = yield from case.levels()
    pairs = list(pairwise(levels))
    jobs, solutions = {}, {}
    for here, after in pairs:
        rate = 1 - masks.count(after.mask) / masks.count(here.mask)
        seed = derived_seed(case.seed, f"membership {after.level}")
        drawn = prune(here.run.weights, here.mask, rate, "random", "global", seed=seed)
        for kind, mask in ((IMP, after.mask), (RANDOM, drawn)):
            solutions[after.level] = here.run.weights
            jobs[after.level, kind] = Job(
                low, order_seed=case.seed, start=State(masks.apply(here.run.weights, mask)), mask=mask,
                label=f"{case.label} · subspace of level {after.level} · {kind}",
            )  # fmt: skip
    runs = yield jobs
    policies = ("interpolate", "recompute") if has_batchnorm(recipe) else ("interpolate",)
    paths = yield {
        (level, kind, policy): PathTask(
            recipe, solutions[level], run.weights, points, ("train", "test"), policy, examples,
            label=f"{jobs[level, kind].label} · path",
        )
        for (level, kind), run in runs.items()
        for policy in policies
    }  # fmt: skip
    rows = case.dense_rows(levels[0].run)
    rows += [case.row(after, IMP, ERROR, after.run.test_error) for _, after in pairs]
    for (level, kind, policy), outcome in paths.items():
        place, path = At.of(levels[level]), path_of(outcome)
        again = policy == "recompute"
        loss, error = (
            (m.RECOMPUTED_RISE_TO_SUBSPACE, m.RECOMPUTED_ERROR_RISE_TO_SUBSPACE)
            if again
            else (m.RISE_TO_SUBSPACE, m.ERROR_RISE_TO_SUBSPACE)
        )
        rows.append(case.row(place, kind, loss, highest_rise(path.loss["train"])))
        rows.append(case.row(place, kind, error, highest_rise(path.error["test"])))
        if not again:
            length = distance(solutions[level], runs[level, kind].weights, levels[level - 1].mask)
            rows.append(case.row(place, kind, m.DISTANCE_TO_BEST, length))
    return rows


def highest_rise(values: tuple[float, ...]) -> float:
    """How far a curve rises above its first point; 0 if it never does."""
    return max(values) - values[0]
