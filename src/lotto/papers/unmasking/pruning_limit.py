"""How much can be pruned at once: by experiment, by theory, and by the quadratic model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lotto.core.rng import derived_seed
from lotto.core.weights import Weights
from lotto.execution.procedures import Procedure
from lotto.experiments.case import Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import IMP
from lotto.landscape.curvature.eigenvalues import SpectrumTask, spectrum_from
from lotto.landscape.curvature.pruning_limit import EPSILON, largest_prunable, tolerated_rise
from lotto.landscape.curvature.quadratic import LARGEST, QuadraticTask
from lotto.landscape.path import PathTask, path_of
from lotto.lottery.replicate import Level
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.recipe.lr_schedules import Linear
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, State

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Fractions of the remaining weights that are pruned at once."""
SPECTRUM = {"steps": 32, "probes": 3}
SPECTRUM_EXAMPLES = 2_000
SEARCH = 0.25
"""Length of the training that looks for the lowest loss inside a subspace, as a fraction of a full training."""


@experiment("pruning_limit", title="How much can be pruned at once", source="UNM, figure 5", plot=plots.pruning_limit)
def pruning_limit(case: Case, *, examples: int | None = None) -> Procedure[list[Row]]:
    """UNM figure 5: how much can be pruned at once, at the first, a middle and the last but one level.

    By the projection itself, by the lowest loss found inside the remaining subspace, by the theory, and, where few
    enough weights are left, by the exact minimum of the quadratic model in the subspace. One of the fractions is that
    of a single cut to the last level's density.
    """
    recipe, label = case.recipe, case.label
    levels = yield from case.levels()
    chosen = {at.level: at for at in first_middle_last(levels)}
    to_last = {i: round(1 - masks.count(levels[-1].mask) / masks.count(at.mask), 3) for i, at in chosen.items()}
    cuts = {
        (i, kind, fraction): prune(
            at.run.weights, at.mask, fraction, kind, "global",
            seed=derived_seed(case.seed, f"limit {i}", round(1000 * fraction)),
        )
        for i, at in chosen.items()
        for kind in m.CUTS
        for fraction in sorted({*FRACTIONS, to_last[i]})
    }  # fmt: skip
    starts = {key: masks.apply(chosen[key[0]].run.weights, cut) for key, cut in cuts.items()}
    names = {(i, kind, part): f"{label} · level {i} · {kind} {part:.0%}" for i, kind, part in cuts}
    search, some = _search(recipe), min(SPECTRUM_EXAMPLES, recipe.arrays.size())
    found = yield {
        "lowest": {
            key: Job(search, order_seed=case.seed, start=State(starts[key]), mask=cut, label=names[key])
            for key, cut in cuts.items()
        },
        "spectrum": {
            i: SpectrumTask(
                recipe, at.run.weights, at.mask, 0, examples=some, seed=case.seed,
                label=f"{label} · level {i} · spectrum", **SPECTRUM,
            )
            for i, at in chosen.items()
        },
        "exact": {
            i: QuadraticTask(
                recipe, at.run.weights, at.mask, [cut for (level, *_), cut in cuts.items() if level == i],
                examples=some, label=f"{label} · level {i} · quadratic",
            )
            for i, at in chosen.items()
            if masks.count(at.mask) <= LARGEST
        },
    }  # fmt: skip

    def path(a: Weights, b: Weights, name: str) -> PathTask:
        return PathTask(recipe, a, b, 2, ("train", "test"), examples=examples, label=name)

    paths = yield {
        "cuts": {key: path(starts[key], run.weights, f"{names[key]} · ends") for key, run in found["lowest"].items()},
        "levels": {i: path(at.run.weights, at.run.weights, f"{label} · level {i}") for i, at in chosen.items()},
    }
    rows = []
    rises: dict[tuple[int, str, str], dict[float, float]] = {}
    for (i, kind, fraction), outcome in paths["cuts"].items():
        ends, base = path_of(outcome), path_of(paths["levels"][i]).loss["train"][0]
        losses = {m.PROJECTION: ends.loss["train"][0], m.SUBSPACE: min(ends.loss["train"])}
        for (how, loss), error in zip(losses.items(), ends.error["test"], strict=True):
            rows.append(case.row(chosen[i], kind, m.RISE[how], loss - base, x=fraction))
            rows.append(case.row(chosen[i], kind, m.ERROR_IN[how], error, x=fraction))
            rises.setdefault((i, kind, how), {})[fraction] = loss - base
    for i, outcome in found["exact"].items():
        for (_, kind, fraction), cost in zip((key for key in cuts if key[0] == i), outcome["costs"], strict=True):
            rows.append(case.row(chosen[i], kind, m.RISE[m.QUADRATIC], cost, x=fraction))
            rises.setdefault((i, kind, m.QUADRATIC), {})[fraction] = cost
    for i, outcome in found["spectrum"].items():
        spectrum, at = spectrum_from(outcome), chosen[i]
        epsilon = tolerated_rise(recipe, path_of(paths["levels"][i]).loss["train"][0], EPSILON)
        rows.append(case.row(at, IMP, m.LARGEST_EIGENVALUE, max(spectrum.nodes)))
        rows.append(case.row(at, IMP, m.TRACE, spectrum.trace))
        rows.append(case.row(at, IMP, m.FRACTION_TO_LAST, to_last[i]))
        for kind in m.CUTS:
            theory = largest_prunable(spectrum, at.run.weights, at.mask, epsilon, kind)
            rows.append(case.row(at, kind, m.LARGEST_FRACTION[m.THEORY], theory))
            for how in m.RISE:
                if (i, kind, how) in rises:
                    rows.append(case.row(at, kind, m.LARGEST_FRACTION[how], _largest(rises[i, kind, how], epsilon)))
    return rows


def _search(recipe: Recipe) -> Recipe:
    """A short training that looks for the lowest loss: the recipe's optimizer at half its rate, falling to 0."""
    optimizer = replace(recipe.optimizer, lr=recipe.optimizer.lr / 2)
    length = max(1, round(SEARCH * recipe.total))
    return recipe.replace(optimizer=optimizer, schedule=Linear(), steps=f"{length}it", evaluations=1)


def _largest(rises: Mapping[float, float], epsilon: float) -> float:
    """The fraction at which the rise first passes ``epsilon``, linear between those that were tried, which increase."""
    last_fraction, last_rise = 0.0, 0.0
    for fraction, rise in rises.items():
        if rise > epsilon:
            part = (epsilon - last_rise) / (rise - last_rise)
            return last_fraction + part * (fraction - last_fraction)
        last_fraction, last_rise = fraction, rise
    return last_fraction


def first_middle_last(levels: Sequence[Level]) -> list[Level]:
    """Of the levels that are pruned again."""
    return [levels[i] for i in sorted({0, (len(levels) - 1) // 2, len(levels) - 2})]
