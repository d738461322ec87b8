"""Flatness: of a level's solution and the share that random pruning may take, and of the weights that pruning takes.

Curvature is that of the training loss in evaluation mode: BatchNorm's statistics are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from lotto.core.rng import derived_seed
from lotto.core.weights import norm
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, IMP, RANDOM
from lotto.landscape.curvature.blocks import BlocksTask, blocks_from
from lotto.landscape.curvature.convergence import LEAST_EXAMPLES
from lotto.landscape.curvature.pruning_limit import EPSILON, tolerated_rise
from lotto.landscape.path import PathTask, path_of
from lotto.lottery.replicate import Level
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.papers.unmasking.pruning_limit import EVALUATED, cut_at_once, largest, lowest_rise, search
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, State

ROUNDS = 4
"""Halvings of the interval that holds the largest fraction: each costs one search at every level."""
PRUNED_PROBES = 8
"""Probes of each block's mean curvature: with three random cuts per level the error is a few percent."""
RANDOM_CUTS = 3


@experiment(
    "flatness", title="Flatter solutions let random pruning take more", source="UNM 3.3", plot=plots.flatness,
    searches=True,
)  # fmt: skip
def flatness(case: Case, *, examples: int | None = EVALUATED) -> Procedure[list[Row]]:
    """UNM 3.3: mean curvature of every level's solution, and the largest share that random pruning may take of it.

    A level has fewer weights than the one before, so its trace alone says how sparse it is. The theory knows of it
    through ``trace(H) |w|^2 / D``. The largest share is found by halving, with a search for the lowest loss in the
    remaining subspace each time.
    """
    recipe, low = case.recipe, search(case.recipe)
    levels = yield from case.levels()
    measured = levels[:-1]
    some = min(LEAST_EXAMPLES, recipe.arrays.size())
    found = yield {
        "curvature": [
            BlocksTask(
                recipe, at.run.weights, at.mask, [{n: keep & False for n, keep in at.mask.items()}], examples=some,
                seed=case.seed, label=f"{case.label} · level {at.level} · trace",
            )
            for at in measured
        ],
        "ends": [
            PathTask(
                recipe, at.run.weights, at.run.weights, 2, ("train",), examples=examples,
                label=f"{case.label} · level {at.level}",
            )
            for at in measured
        ],
    }  # fmt: skip
    losses = [path_of(outcome).loss["train"][0] for outcome in found["ends"]]
    shares = yield from _largest_random(case, low, measured, losses, examples)
    rows = case.convergence_rows(levels[0].run)
    for at, share, outcome in zip(measured, shares, found["curvature"], strict=True):
        (block,), place = blocks_from(outcome), At.of(at)
        length = norm(at.run.weights, at.mask)
        rows += [
            case.row(place, IMP, ERROR, at.run.test_error),
            case.row(place, IMP, m.TRACE, block.trace),
            case.row(place, IMP, m.TRACE_ERROR, block.size * block.error),
            case.row(place, IMP, m.WEIGHTS, block.size),
            case.row(place, IMP, m.NORM, length),
            case.row(place, IMP, m.SHARPNESS, block.mean * length**2),
            case.row(place, RANDOM, m.HALVED_FRACTION, share),
        ]
    return rows


def _largest_random(
    case: Case, low: Recipe, levels: list[Level], losses: list[float], examples: int | None
) -> Procedure[list[float]]:
    """The largest share of random pruning at each level, by halving: linear in the rise within the last interval.

    Training in the subspace is that of the recipe ``low``.
    """
    recipe = case.recipe
    tried: list[dict[float, float]] = [{} for _ in levels]
    epsilons = [tolerated_rise(recipe, loss, EPSILON) for loss in losses]
    for _ in range(ROUNDS):
        parts = [next_fraction(rises, epsilon) for rises, epsilon in zip(tried, epsilons, strict=True)]
        cuts = [cut_at_once(case, at, RANDOM, part) for at, part in zip(levels, parts, strict=True)]
        names = [f"{case.label} · level {at.level} · random {p:.0%}" for at, p in zip(levels, parts, strict=True)]
        starts = [masks.apply(at.run.weights, cut) for at, cut in zip(levels, cuts, strict=True)]
        runs = yield [
            Job(low, order_seed=case.seed, start=State(start), mask=cut, label=name)
            for start, cut, name in zip(starts, cuts, names, strict=True)
        ]
        ends = yield [
            PathTask(recipe, start, run.weights, 2, ("train",), examples=examples, label=f"{name} · ends")
            for start, run, name in zip(starts, runs, names, strict=True)
        ]
        for rises, part, outcome, loss in zip(tried, parts, ends, losses, strict=True):
            rises[part] = lowest_rise(path_of(outcome), loss)
    return [largest(dict(sorted(r.items())), epsilon) for r, epsilon in zip(tried, epsilons, strict=True)]


def next_fraction(rises: Mapping[float, float], epsilon: float) -> float:
    """The middle between the largest fraction below the first that costs too much, and that one."""
    above = min((part for part, rise in rises.items() if rise > epsilon), default=1.0)
    below = max((part for part in rises if part < above), default=0.0)
    return (below + above) / 2


@experiment(
    "flat_directions", title="Magnitude pruning takes the flatter directions", source="UNM 3.3",
    plot=plots.flat_directions,
)  # fmt: skip
def flat_directions(case: Case) -> Procedure[list[Row]]:
    """UNM 3.3: the curvature of what each level prunes, against as many weights drawn at random.

    Along the displacement (the Rayleigh quotient of the Hessian), and on average over the pruned weights (the trace of
    their block over its size).
    """
    recipe = case.recipe
    levels = yield from case.levels()
    some = min(LEAST_EXAMPLES, recipe.arrays.size())
    pairs = list(pairwise(levels))
    tasks = []
    for here, after in pairs:
        rate = 1 - masks.count(after.mask) / masks.count(here.mask)
        seeds = [derived_seed(case.seed, f"directions {here.level}", i) for i in range(RANDOM_CUTS)]
        drawn = [prune(here.run.weights, here.mask, rate, "random", "global", seed=seed) for seed in seeds]
        by_size = prune(here.run.weights, here.mask, rate, "magnitude", "global")
        nothing = {n: keep & False for n, keep in here.mask.items()}
        tasks.append(
            BlocksTask(
                recipe, here.run.weights, here.mask, [nothing, by_size, *drawn], PRUNED_PROBES, some, case.seed,
                label=f"{case.label} · level {here.level} · curvature",
            )
        )  # fmt: skip
    outcomes = yield tasks
    rows = case.convergence_rows(levels[0].run)
    for (here, _), outcome in zip(pairs, outcomes, strict=True):
        whole, magnitude, *random = blocks_from(outcome)
        place = At.of(here)
        for kind, blocks in ((m.ALL, [whole]), (m.MAGNITUDE, [magnitude]), (RANDOM, random)):
            rows += case.rows(place, kind, m.ALONG, [block.rayleigh for block in blocks])
            rows += case.rows(place, kind, m.BLOCK, [block.mean for block in blocks])
            rows += case.rows(place, kind, m.BLOCK_ERROR, [block.error for block in blocks])
    return rows
