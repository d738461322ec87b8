"""Experiments of *Unmasking the Lottery Ticket Hypothesis*: what a mask encodes, seen in the error landscape.

Rows have the columns of `stabilizing` and ``x``: the experiment's own axis (another level, a multiple of a distance, a
fraction pruned), empty where there is none; the planes also have ``y``. All levels of a replicate share its data order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import torch

from lotto.core.rng import derived_seed
from lotto.core.weights import Weights, norm
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import (
    BARRIER,
    ERROR,
    ERROR_BETWEEN,
    IMP,
    ONE_SHOT,
    PLANE,
    PLANE_CORNER,
    RANDOM,
    WEIGHTS_IN_BIN,
    WITHOUT_RETRAINING,
    Measure,
)
from lotto.landscape.batchnorm import has_batchnorm
from lotto.landscape.path import PathTask, path_of
from lotto.landscape.plane import PlaneTask, plane_of
from lotto.landscape.subspace import distance_to, perturb
from lotto.lottery.replicate import Level
from lotto.lottery.scoring import pruned
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.papers.unmasking.adaptive import adaptive
from lotto.papers.unmasking.flatness import flat_directions, flatness
from lotto.papers.unmasking.membership import membership
from lotto.papers.unmasking.pruning_limit import first_middle_last, pruning_limit
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.recipe.tolerance import Tolerance
from lotto.training.job import Job, State

MULTIPLES = (0.5, 1.0, 2.0, 4.0)
"""Perturbations in units of the distance between successive pruned rewind points."""
BINS = np.linspace(-4.0, 1.0, 41)
"""Edges of the histogram of log10 |w|."""
FAR_POINTS = 5
"""Positions on the path between levels that are not successive: its ends, its midpoint and the points between."""
EARLY = ("0it", "100it", "500it")


@experiment(
    "connectivity", title="Successive levels are linearly connected where they match", source="UNM, figure 2",
    rewind_to=EARLY, plot=plots.connectivity,
)  # fmt: skip
def connectivity(
    case: Case,
    *,
    points: int = 30,
    examples: int | None = None,
    random_chain: bool = True,
    restart_dense: bool = False,
) -> Procedure[list[Row]]:
    """UNM figure 2: barriers between the solutions of all levels, for each rewind step.

    Successive levels at ``points`` positions, distant ones at the ends, the midpoint and the quarter points, as the
    rows say. With ``random_chain`` also those of successive random masks, each within the one before and with the layer
    densities of IMP's level: nested masks may be connected whatever they keep.
    """
    levels = yield from case.levels(restart_dense=restart_dense)
    chains = {IMP: levels}
    if random_chain:
        chains[RANDOM] = yield from _random_chain(case, levels)
    pairs = [
        (kind, measure, batchnorm, a, b)
        for kind, chain in chains.items()
        for measure, batchnorm in _policies(case, BARRIER, m.RECOMPUTED_BARRIER)
        for a, b in (combinations(chain, 2) if kind == IMP else pairwise(chain))
        if not a.diverged and not b.diverged
    ]
    found = yield [
        PathTask(
            case.recipe, a.run.weights, b.run.weights, _positions(a, b, points), batchnorm=batchnorm,
            examples=examples, label=f"{case.label} · {kind} {a.level}–{b.level}, {batchnorm}",
        )
        for kind, _, batchnorm, a, b in pairs
    ]  # fmt: skip
    rows = [*_errors(case, levels), *case.convergence_rows(levels[0].run)]
    rows += [case.row(at, RANDOM, m.CHAIN_ERROR, at.run.test_error) for at in chains.get(RANDOM, [])[1:]]
    for (kind, measure, _, a, b), outcome in zip(pairs, found, strict=True):
        path, at = path_of(outcome), {"x": b.level, "points": _positions(a, b, points)}
        rows.append(case.row(a, kind, measure, path.barrier("line"), **at))
        if kind == IMP and measure == BARRIER:
            rows.append(case.row(a, kind, ERROR_BETWEEN, path.error["test"][len(path.alphas) // 2], **at))
    return rows


def _positions(a: Level, b: Level, points: int) -> int:
    """Positions on the path between two levels: there are many pairs of distant ones."""
    return points if b.level == a.level + 1 else min(points, FAR_POINTS)


def _policies(case: Case, interpolated: Measure, recomputed: Measure) -> list[tuple[Measure, str]]:
    """Measures by what is done about BatchNorm's statistics; without BatchNorm there is nothing to do."""
    both = [(interpolated, "interpolate"), (recomputed, "recompute")]
    return both if has_batchnorm(case.recipe) else both[:1]


def _random_chain(case: Case, levels: Sequence[Level]) -> Procedure[list[Level]]:
    """Trainings from the rewind point under nested random masks with the layer densities of the levels."""
    nested = [levels[0].mask]
    for at in levels[1:]:
        nested.append(masks.random_like(at.mask, derived_seed(case.seed, "random-chain", at.level), nested[-1]))
    start = levels[0].run.state(case.k).without_optimizer
    runs = yield [
        Job(
            case.recipe, order_seed=case.seed, start=start, mask=mask, from_step=case.k,
            label=f"{case.label} · random level {number}",
        )
        for number, mask in enumerate(nested[1:], start=1)
    ]  # fmt: skip
    return [levels[0], *(Level(i, nested[i], run) for i, run in enumerate(runs, start=1))]


def _errors(case: Case, levels: Sequence[Level]) -> list[Row]:
    return [case.row(at, IMP, ERROR, at.run.test_error) for at in levels]


@experiment(
    "projection", title="Pruning leaves the floor of the connected region, retraining returns to it",
    source="UNM, figure 3", plot=plots.projection,
)  # fmt: skip
def projection(case: Case, *, points: int = 30, examples: int | None = None) -> Procedure[list[Row]]:
    """UNM figure 3: solution, projection and next initialisation; the barrier from projection to next solution.

    Of a model with BatchNorm with its statistics as they are and re-estimated: those of a projection are of no network.
    """
    recipe = case.recipe
    levels = yield from case.levels()
    start = levels[0].run.at(case.k)
    projected = [masks.apply(here.run.weights, after.mask) for here, after in pairwise(levels)]
    # A plane for one level that matches and for the last one, of the first replicate.
    shown = sorted({_last_matching(levels, recipe.margin), len(levels) - 2}) if case.replicate == 0 else []
    policies = [batchnorm for _, batchnorm in _policies(case, m.PROJECTION_BARRIER, m.RECOMPUTED_PROJECTION_BARRIER)]
    found = yield {
        "steps": [
            {
                batchnorm: {
                    "forth": PathTask(
                        recipe, projected[i], after.run.weights, points, batchnorm=batchnorm, examples=examples,
                        label=f"{case.label} · level {i} · from the projection, {batchnorm}",
                    ),
                    "back": PathTask(
                        recipe, masks.apply(start, after.mask), projected[i], 2, batchnorm=batchnorm,
                        examples=examples, label=f"{case.label} · level {i} · next initialisation, {batchnorm}",
                    ),
                }
                for batchnorm in policies
            }
            for i, after in enumerate(levels[1:])
        ],
        "planes": {
            i: PlaneTask(
                recipe, levels[i].run.weights, projected[i], levels[i + 1].run.weights, examples=examples,
                label=f"{case.label} · plane of level {i}",
            )
            for i in shown
        },
    }  # fmt: skip
    rows = [*_errors(case, levels), *case.convergence_rows(levels[0].run)]
    for (here, after), outcomes in zip(pairwise(levels), found["steps"], strict=True):
        for batchnorm in policies:
            forth, back = path_of(outcomes[batchnorm]["forth"]), path_of(outcomes[batchnorm]["back"])
            barrier, error, next_error = m.PROJECTED[batchnorm]
            rows += [
                case.row(here, IMP, barrier, forth.barrier("line"), x=after.level),
                case.row(here, IMP, error, forth.error["test"][0]),
                case.row(here, IMP, next_error, back.error["test"][0]),
            ]
        rows.append(case.row(here, IMP, m.PROJECTION_LENGTH, distance_to(here.run.weights, after.mask)))
    for number, outcome in found["planes"].items():
        plane, at = plane_of(outcome), At.of(levels[number])
        for i, (kind, (x, y)) in enumerate(zip(m.CORNERS, plane.corners, strict=True)):
            rows.append(case.row(at, kind, PLANE_CORNER, 0.0, sample=i, x=x, y=y))
        for j, y in enumerate(plane.y):
            rows += [case.row(at, IMP, PLANE, plane.error[j, i], x=x, y=y) for i, x in enumerate(plane.x)]
    return rows


def _last_matching(levels: Sequence[Level], margin: Tolerance) -> int:
    dense = levels[0].run.test_error
    return max(at.level for at in levels[:-1] if at.run.test_error <= dense + margin.above(dense))


@experiment(
    "robustness", title="How far a rewind point can be moved before training ends elsewhere", source="UNM, figure 4",
    rewind_to=EARLY, plot=plots.robustness,
)  # fmt: skip
def robustness(case: Case, *, points: int = 30, examples: int | None = None) -> Procedure[list[Row]]:
    """UNM figure 4: rewind points moved by the distance of successive ones, trained, and the barrier between both."""
    levels = yield from case.levels()
    here, last = levels[-2], levels[-1]
    rewound = levels[0].run.state(case.k).without_optimizer
    length = distance_to(masks.apply(rewound.weights, here.mask), last.mask)  # between successive pruned rewind points
    jobs = {}
    for i, multiple in enumerate(MULTIPLES):
        moved = perturb(rewound.weights, last.mask, multiple * length, derived_seed(case.seed, "perturbation", i))
        jobs[m.PERTURBED, multiple] = Job(
            case.recipe, order_seed=case.seed, start=State(moved), mask=last.mask, from_step=case.k,
            label=f"{case.label} · moved by {multiple:g}",
        )  # fmt: skip
    other = case.order_seeds(2)[1]
    jobs[m.ANOTHER_ORDER, math.nan] = Job(
        case.recipe, order_seed=other, start=rewound, mask=last.mask, from_step=case.k,
        label=f"{case.label} · order {other}",
    )  # fmt: skip
    runs = yield jobs
    policies = _policies(case, BARRIER, m.RECOMPUTED_BARRIER)
    outcomes = yield {
        (*key, batchnorm): PathTask(
            case.recipe, last.run.weights, run.weights, points, batchnorm=batchnorm, examples=examples,
            label=f"{jobs[key].label} · path, {batchnorm}",
        )
        for key, run in runs.items()
        for _, batchnorm in policies
    }  # fmt: skip
    rows = [
        *case.dense_rows(levels[0].run),
        case.row(last, IMP, ERROR, last.run.test_error),
        case.row(last, IMP, m.SUCCESSIVE_DISTANCE, length),
        case.row(last, IMP, m.REWIND_NORM, norm(rewound.weights, last.mask)),
    ]
    for (kind, multiple), run in runs.items():
        rows.append(case.row(last, kind, m.ERROR_AFTER_TRAINING, run.test_error, x=multiple))
        for measure, batchnorm in policies:
            barrier = path_of(outcomes[kind, multiple, batchnorm]).barrier("mean")
            rows.append(case.row(last, kind, measure, barrier, x=multiple))
    return rows


@experiment(
    "retraining", title="Retraining makes new small weights to prune", source="UNM, figure 6", plot=plots.retraining,
)  # fmt: skip
def retraining(case: Case, *, examples: int | None = None) -> Procedure[list[Row]]:
    """UNM figure 6: weight magnitudes before pruning, after it and after retraining; the next projection's length.

    Also what pruning does without retraining, and a single cut with it, at the same densities.
    """
    recipe, rule = case.recipe, case.recipe.pruning
    levels = yield from case.levels()
    dense = levels[0].run
    untrained: list[Mask] = [levels[0].mask]
    for number in range(1, len(levels)):
        cut = yield from pruned(
            recipe, rule, dense.weights, untrained[-1], start=dense.at(case.k),
            seed=derived_seed(case.seed, "pruning", number), label=f"{case.label} · untrained {number}",
        )  # fmt: skip
        untrained.append(cut)
    projected = [masks.apply(dense.weights, mask) for mask in untrained]
    found = yield {
        "untrained": [
            PathTask(recipe, a, dense.weights, 2, examples=examples, label=f"{case.label} · untrained {i}")
            for i, a in enumerate(projected)
        ],
        "one-shot": Job(
            recipe, order_seed=case.seed, start=dense.state(case.k).without_optimizer, mask=untrained[-1],
            from_step=case.k, label=f"{case.label} · one-shot",
        ),
    }  # fmt: skip
    rows = case.convergence_rows(dense)
    for at, outcome in zip(levels, found["untrained"], strict=True):
        rows.append(case.row(at, IMP, ERROR, at.run.test_error))
        error = path_of(outcome).error["test"][0]
        rows.append(case.row(at, WITHOUT_RETRAINING, ERROR, error, examples=examples))
    rows.append(case.row(levels[-1], ONE_SHOT, ERROR, found["one-shot"].test_error))
    for i, (here, after) in enumerate(pairwise(levels)):
        rows.append(case.row(here, IMP, m.PROJECTION_LENGTH, distance_to(here.run.weights, after.mask)))
        rows.append(
            case.row(here, WITHOUT_RETRAINING, m.PROJECTION_LENGTH, distance_to(projected[i], untrained[i + 1]))
        )
    for here in first_middle_last(levels):
        after, place = levels[here.level + 1], At.of(here)
        for kind, weights, mask in (
            (m.BEFORE_PRUNING, here.run.weights, here.mask),
            (m.AFTER_PRUNING, here.run.weights, after.mask),
            (m.AFTER_RETRAINING, after.run.weights, after.mask),
        ):
            rows += [
                case.row(place, kind, WEIGHTS_IN_BIN, part, x=centre) for centre, part in _histogram(weights, mask)
            ]
    return rows


def _histogram(weights: Weights, mask: Mask) -> list[tuple[float, float]]:
    """Fraction of the unpruned weights by log10 of their magnitude: bin centre and fraction."""
    values = torch.cat([weights[name][keep].double().abs() for name, keep in mask.items()]).numpy()
    logs = np.log10(np.maximum(values, 10 ** BINS[0]))
    counts, _ = np.histogram(logs.clip(BINS[0], BINS[-1]), BINS)
    return [(float(c), float(v)) for c, v in zip((BINS[1:] + BINS[:-1]) / 2, counts / len(values), strict=True)]


EXPERIMENTS = (
    connectivity, projection, membership, robustness, pruning_limit, flatness, flat_directions, retraining, adaptive,
)  # fmt: skip
