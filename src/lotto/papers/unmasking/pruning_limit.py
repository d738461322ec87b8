"""How much can be pruned at once: by experiment, by theory, and by the quadratic model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lotto.core.rng import derived_seed
from lotto.core.weights import Weights
from lotto.data import Split
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import IMP, LIMIT, PRUNING_DISTANCE, Kind
from lotto.landscape.batchnorm import has_batchnorm
from lotto.landscape.curvature.convergence import MOST_STEPS, Limits, LimitsTask, enough_examples, limits_from
from lotto.landscape.curvature.pruning_limit import EPSILON, allowed, squared_distances, squared_lengths, tolerated_rise
from lotto.landscape.curvature.quadratic import LARGEST, QuadraticTask
from lotto.landscape.path import Path, PathTask, path_of
from lotto.lottery.replicate import Level
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import prune
from lotto.recipe.lr_schedules import Linear
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, State

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Fractions of the remaining weights that are pruned at once."""
LEVELS = 4
"""So many levels are measured: the first, the last but one, and what is evenly between."""
STEPS = MOST_STEPS
"""Lanczos steps at most."""
EVALUATED = 5_000
"""Examples of each split at most, unless others are asked for."""
DRAWN = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Fractions at which the distances of pruning, and those that the theory allows, are drawn."""
SEARCH = 0.25
"""Length of the training that looks for the lowest loss inside a subspace, as a fraction of a full training."""


@experiment(
    "pruning_limit", title="How much can be pruned at once", source="UNM, figure 5", plot=plots.pruning_limit,
    searches=True,
)  # fmt: skip
def pruning_limit(case: Case, *, examples: int | None = EVALUATED) -> Procedure[list[Row]]:
    """UNM 3.3, figure 5: how much can be pruned at once, at four levels from the first to the last but one.

    By the projection itself, by the lowest loss found inside the remaining subspace, by both readings of the theory
    (a row that says so where its spectrum has not converged), and, where few enough weights are left, by the exact
    minimum of the quadratic model in the subspace. One of the fractions is that of a single cut to the last level's
    density.

    With BatchNorm, the theory and the projection have the solution's statistics; training in the subspace moves them.
    """
    recipe, label, low = case.recipe, case.label, search(case.recipe)
    levels = yield from case.levels()
    chosen = {at.level: at for at in spread(levels, LEVELS)}
    to_last = {i: round(1 - masks.count(levels[-1].mask) / masks.count(at.mask), 3) for i, at in chosen.items()}
    cuts = {
        (i, kind, fraction): cut_at_once(case, at, kind, fraction)
        for i, at in chosen.items()
        for kind in m.CUTS
        for fraction in sorted({*FRACTIONS, to_last[i]})
    }
    starts = {key: masks.apply(chosen[key[0]].run.weights, cut) for key, cut in cuts.items()}
    names = {(i, kind, part): f"{label} · level {i} · {kind} {part:.0%}" for i, kind, part in cuts}

    def path(a: Weights, b: Weights, name: str, splits: tuple[Split, ...] = ("train", "test"), **how: Any) -> PathTask:
        return PathTask(recipe, a, b, 2, splits, examples=examples, label=name, **how)

    ends = yield {i: path(at.run.weights, at.run.weights, f"{label} · level {i}") for i, at in chosen.items()}
    losses = {i: path_of(outcome).loss["train"][0] for i, outcome in ends.items()}
    epsilons = {i: tolerated_rise(recipe, loss, EPSILON) for i, loss in losses.items()}
    found = yield {
        "lowest": {
            key: Job(low, order_seed=case.seed, start=State(starts[key]), mask=cut, label=names[key])
            for key, cut in cuts.items()
        },
        "theory": {
            i: LimitsTask(
                recipe, at.run.weights, at.mask, epsilons[i], STEPS, seed=case.seed,
                label=f"{label} · level {i} · spectrum",
            )
            for i, at in chosen.items()
        },
        "exact": {
            i: QuadraticTask(
                recipe, at.run.weights, at.mask, [cut for (level, *_), cut in cuts.items() if level == i],
                examples=enough_examples(recipe, masks.count(at.mask)), label=f"{label} · level {i} · quadratic",
            )
            for i, at in chosen.items()
            if masks.count(at.mask) <= LARGEST
        },
        "recomputed": {
            key: path(
                start, chosen[key[0]].run.weights, f"{names[key]} · recomputed", ("train",), batchnorm="recompute"
            )
            for key, start in (starts if has_batchnorm(recipe) else {}).items()
        },
    }  # fmt: skip
    paths = yield {key: path(starts[key], run.weights, f"{names[key]} · ends") for key, run in found["lowest"].items()}
    rises: dict[tuple[int, Kind, str], dict[float, float]] = {}

    def rose(i: int, kind: Kind, how: str, fraction: float, rise: float) -> Row:
        rises.setdefault((i, kind, how), {})[fraction] = rise
        return case.row(chosen[i], kind, m.RISE[how], rise, x=fraction)

    rows = case.convergence_rows(levels[0].run)
    for (i, kind, fraction), outcome in paths.items():
        both = path_of(outcome)
        for how, loss in ((m.PROJECTION, both.loss["train"][0]), (m.SUBSPACE, min(both.loss["train"]))):
            rows.append(rose(i, kind, how, fraction, loss - losses[i]))
        for how, error in zip((m.PROJECTION, m.SUBSPACE), both.error["test"], strict=True):
            rows.append(case.row(chosen[i], kind, m.ERROR_IN[how], error, x=fraction))
    for (i, kind, fraction), outcome in found["recomputed"].items():
        first, last = path_of(outcome).loss["train"]  # the rise is of networks with statistics of one kind
        rows.append(rose(i, kind, m.RECOMPUTED_PROJECTION, fraction, first - last))
    for i, outcome in found["exact"].items():
        for (_, kind, fraction), cost in zip((key for key in cuts if key[0] == i), outcome["costs"], strict=True):
            rows.append(rose(i, kind, m.QUADRATIC, fraction, cost))
    for (i, kind, how), rise in rises.items():
        rows.append(case.row(chosen[i], kind, m.LARGEST_FRACTION[how], largest(rise, epsilons[i])))
    for i, outcome in found["theory"].items():
        rows.append(case.row(chosen[i], IMP, m.FRACTION_TO_LAST, to_last[i]))
        rows += theory_rows(case, chosen[i], limits_from(outcome), epsilons[i])
    return rows


def theory_rows(case: Case, level: Level, found: Limits, epsilon: float) -> list[Row]:
    """What the theory says of a level, and what it is computed from; a fraction that is refused is NaN with a note."""
    at, spectrum = At.of(level), found.spectrum
    rows = [
        case.row(at, IMP, m.LARGEST_EIGENVALUE, max(spectrum.nodes)),
        case.row(at, IMP, m.TRACE, spectrum.trace),
        case.row(at, IMP, m.TRACE_ERROR, spectrum.trace_error),
        case.row(at, IMP, m.LANCZOS_STEPS, found.steps),
        case.row(at, IMP, m.SPECTRUM_EXAMPLES, found.examples),
    ]
    for reading, how in m.THEORIES.items():
        for kind in m.CUTS:
            reason = found.reason(kind, reading)
            row = case.row(at, kind, m.LARGEST_FRACTION[how], math.nan if reason else found.fractions[kind, reading])
            rows.append({**row, "note": reason} if reason else row)
            rows.append(case.row(at, kind, m.PROBE_ERROR[reading], found.errors[kind, reading]))
            squared = squared_distances(squared_lengths(level.run.weights, level.mask, kind), reading)
            distances = np.sqrt(squared[[round(part * (len(squared) - 1)) for part in DRAWN]])
            rows += [
                case.row(at, kind, PRUNING_DISTANCE[reading], float(distance), x=part)
                for part, distance in zip(DRAWN, distances, strict=True)
            ]
        if not any(found.reason(kind, reading) for kind in m.CUTS):
            rows += [
                case.row(at, LIMIT, PRUNING_DISTANCE[reading], distance, x=part)
                for part in DRAWN
                if math.isfinite(distance := allowed_distance(found, epsilon, part, reading))
            ]
    return rows


def allowed_distance(found: Limits, epsilon: float, fraction: float, reading: str) -> float:
    """The largest distance at which the theory lets a fraction go; infinite where that much is always free."""
    low, high = 0.0, 1.0
    while allowed(found.spectrum, epsilon, high**2, reading) >= fraction:
        low, high = high, 2 * high
        if high > 1e9:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if allowed(found.spectrum, epsilon, middle**2, reading) >= fraction else (low, middle)
        )
    return low


def cut_at_once(case: Case, at: Level, kind: Kind, fraction: float) -> Mask:
    """The mask of a level with a fraction of its weights pruned, over all layers."""
    seed = derived_seed(case.seed, f"limit {at.level}", round(1000 * fraction))
    return prune(at.run.weights, at.mask, fraction, kind, "global", seed=seed)


def search(recipe: Recipe) -> Recipe:
    """A short training that looks for the lowest loss: the recipe's optimizer at half its rate, falling to 0."""
    return shortened(recipe, recipe.optimizer.lr / 2)


def shortened(recipe: Recipe, rate: float) -> Recipe:
    """A part, `SEARCH`, of the recipe's training at a rate that falls to 0."""
    length = max(1, round(SEARCH * recipe.total))
    optimizer = replace(recipe.optimizer, lr=rate)
    return recipe.replace(optimizer=optimizer, schedule=Linear(), steps=f"{length}it", evaluations=1)


def lowest_rise(path: Path, base: float) -> float:
    """The lower of both ends of a path above a training loss."""
    return min(path.loss["train"]) - base


def largest(rises: Mapping[float, float], epsilon: float) -> float:
    """The fraction at which the rise first passes ``epsilon``, linear between those that were tried, which increase."""
    last_fraction, last_rise = 0.0, 0.0
    for fraction, rise in rises.items():
        if rise > epsilon:
            part = (epsilon - last_rise) / (rise - last_rise)
            return last_fraction + part * (fraction - last_fraction)
        last_fraction, last_rise = fraction, rise
    return last_fraction


def spread(levels: Sequence[Level], count: int) -> list[Level]:
    """Of the levels that are pruned again: the first, the last, and what is evenly between."""
    last = len(levels) - 2
    return [levels[i] for i in sorted({round(last * part / (count - 1)) for part in range(count)})]


def first_middle_last(levels: Sequence[Level]) -> list[Level]:
    """Of the levels that are pruned again."""
    return [levels[i] for i in sorted({0, (len(levels) - 1) // 2, len(levels) - 2})]
