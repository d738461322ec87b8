"""Experiments of *Unmasking the Lottery Ticket Hypothesis*: what a mask encodes, told by the error landscape.

Rows have the columns of `stabilizing` and ``x``: the experiment's own axis (another level, a multiple of a distance, a
share pruned), empty where there is none; the planes also have ``y``. All levels of a replicate share its data order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch

from lotto.core.rng import derived_seed
from lotto.core.weights import Weights, norm
from lotto.execution.engine import Chain
from lotto.experiments.experiment import Experiment, Options, Row, about, plan_of, row
from lotto.landscape.curvature.eigenvalues import SpectrumTask, spectrum_from
from lotto.landscape.curvature.pruning_limit import EPSILON, KINDS, largest_prunable
from lotto.landscape.curvature.quadratic import LARGEST, QuadraticTask
from lotto.landscape.path import Path, PathTask, has_batchnorm, path_of
from lotto.landscape.plane import PlaneTask, plane_of
from lotto.landscape.subspace import distance_to, perturb
from lotto.lottery.procedure import Level, level_chain
from lotto.papers.unmasking.adaptive import adaptive
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import prune
from lotto.recipe.lr_schedules import Linear
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run, State

MULTIPLES = (0.5, 1.0, 2.0, 4.0)
"""Perturbations in units of the distance between successive pruned rewind points."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of the remaining weights that are pruned at once."""
SPECTRUM = {"steps": 32, "probes": 3}
SPECTRUM_EXAMPLES = 2_000
SEARCH = 0.25
"""Length of the training that looks for the lowest loss inside a subspace, as a share of a full training."""
BINS = np.linspace(-4.0, 1.0, 41)
"""Edges of the histogram of log10 |w|."""


def connectivity(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM figure 2: barriers between the solutions of all levels, for each rewind step."""
    return [_connectivity(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _connectivity(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    pairs = list(combinations(levels, 2))
    label = f"replicate {replicate + 1} · k={k}"
    tasks = [_path(options, a.run.weights, b.run.weights, f"{label} · {a.level}–{b.level}") for a, b in pairs]
    recomputed = [p for p in pairs if p[1].level == p[0].level + 1] if has_batchnorm(options.recipe) else []
    tasks += [
        replace(_path(options, a.run.weights, b.run.weights, f"{label} · {a.level}–{b.level}, recomputed"),
                batchnorm="recompute")
        for a, b in recomputed
    ]  # fmt: skip
    outcomes = yield tasks
    paths = [path_of(outcome) for outcome in outcomes]
    rows = [row(about(replicate, k, at), "imp", "error", "points", 0, at.run.test_error, x=math.nan) for at in levels]
    for (a, b), path in zip(pairs, paths, strict=False):
        at = about(replicate, k, a)
        rows += _barriers(at, path, "barrier", b.level)
        middle = len(path.alphas) // 2
        rows.append(row(at, "imp", "error between", "points", 0, path.error["test"][middle], x=b.level))
    for (a, b), path in zip(recomputed, paths[len(pairs) :], strict=True):
        rows += _barriers(about(replicate, k, a), path, "barrier, statistics recomputed", b.level)
    return rows


def _barriers(at: Row, path: Path, name: str, x: float) -> list[Row]:
    """The barrier above the line between both ends (UNM)."""
    return [row(at, "imp", name, "points", 0, path.barrier("line", "test"), x=x)]


def projection(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM figure 3: solution, projection and next initialisation; the barrier from projection to next solution."""
    return [_projection(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _projection(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe = options.recipe
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    label = f"replicate {replicate + 1} · k={k}"
    start = levels[0].run.at(k)
    tasks: list[Any] = []
    for here, after in _successive(levels):
        projected = masks.apply(here.run.weights, after.mask)
        name = f"{label} · level {here.level}"
        tasks.append(_path(options, projected, after.run.weights, f"{name} · from the projection"))
        first = masks.apply(start, after.mask)
        tasks.append(replace(_path(options, first, projected, f"{name} · next initialisation"), points=2))
    # A plane for one level that matches and for the last one, of the first replicate.
    shown = sorted({_last_matching(levels, recipe.tolerance), len(levels) - 2}) if replicate == 0 else []
    for number in shown:
        here, after = levels[number], levels[number + 1]
        projected = masks.apply(here.run.weights, after.mask)
        tasks.append(
            PlaneTask(
                recipe, here.run.weights, projected, after.run.weights, examples=options.examples,
                label=f"{label} · plane of level {number}",
            )
        )  # fmt: skip
    outcomes = yield tasks
    rows = [row(about(replicate, k, at), "imp", "error", "points", 0, at.run.test_error, x=math.nan) for at in levels]
    for i, (here, after) in enumerate(_successive(levels)):
        forth, back = path_of(outcomes[2 * i]), path_of(outcomes[2 * i + 1])
        at = about(replicate, k, here)
        rows += _barriers(at, forth, "barrier from the projection", after.level)
        for name, path in (("projection error", forth), ("next initialisation error", back)):
            rows.append(row(at, "imp", name, "points", 0, path.error["test"][0], x=math.nan))
        rows.append(row(at, "imp", "projection length", "L2", 0, distance_to(here.run.weights, after.mask), x=math.nan))
    for number, outcome in zip(shown, outcomes[2 * (len(levels) - 1) :], strict=True):
        plane = plane_of(outcome)
        at = about(replicate, k, levels[number])
        for i, (x, y) in enumerate(plane.corners):
            name = ("solution", "projection", "next solution")[i]
            rows.append(row(at, name, "plane corner", "L2", i, 0.0, x=x, y=y))
        for j, y in enumerate(plane.y):
            rows += [row(at, "imp", "plane", "points", 0, plane.error[j, i], x=x, y=y) for i, x in enumerate(plane.x)]
    return rows


def _last_matching(levels: Sequence[Level], tolerance: float) -> int:
    dense = levels[0].run.test_error
    found = [at.level for at in levels[:-1] if at.run.test_error <= dense + tolerance]
    return max(found)


def robustness(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM figure 4: rewind points moved by the distance of successive ones, trained, and the barrier between both."""
    return [_robustness(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _robustness(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    here, last = levels[-2], levels[-1]
    rewound = levels[0].run.state(k).without_optimizer
    pruned = masks.apply(rewound.weights, here.mask)
    length = distance_to(pruned, last.mask)  # between successive pruned rewind points
    label = f"replicate {replicate + 1} · k={k}"
    jobs = []
    for i, multiple in enumerate(MULTIPLES):
        moved = perturb(rewound.weights, last.mask, multiple * length, derived_seed(seed, "perturbation", i))
        jobs.append(
            Job(recipe, order_seed=seed, start=State(moved), mask=last.mask, from_step=k,
                label=f"{label} · moved by {multiple:g}")
        )  # fmt: skip
    other = options.order_seeds(replicate)[1]
    jobs.append(
        Job(recipe, order_seed=other, start=rewound, mask=last.mask, from_step=k, label=f"{label} · order {other}")
    )
    runs: list[Run] = yield jobs
    tasks = [
        _path(options, last.run.weights, run.weights, f"{job.label} · path")
        for job, run in zip(jobs, runs, strict=True)
    ]
    outcomes = yield tasks
    at = about(replicate, k, last)
    rows = [
        row(about(replicate, k, levels[0]), "dense", "error", "points", 0, levels[0].run.test_error, x=math.nan),
        row(at, "imp", "error", "points", 0, last.run.test_error, x=math.nan),
        row(at, "imp", "distance of successive rewind points", "L2", 0, length, x=math.nan),
        row(at, "imp", "norm of the rewind point", "L2", 0, norm(rewound.weights, last.mask), x=math.nan),
    ]
    kinds = [*(("perturbed", multiple) for multiple in MULTIPLES), ("another order", math.nan)]
    for (kind, multiple), run, outcome in zip(kinds, runs, outcomes, strict=True):
        path = path_of(outcome)
        rows.append(row(at, kind, "error after training", "points", 0, run.test_error, x=multiple))
        rows.append(row(at, kind, "barrier", "points", 0, path.barrier("mean"), x=multiple))
    return rows


def pruning_limit(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM figure 5: how much can be pruned at once, at the first, a middle and the last but one level.

    By the projection itself, by the lowest loss found inside the remaining subspace, by the theory, and, where few
    enough weights are left, by the exact minimum of the quadratic model in the subspace. One of the shares is that of
    a single cut to the last level's density.
    """
    return [_pruning_limit(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _pruning_limit(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    chosen = [levels[i] for i in sorted({0, (len(levels) - 1) // 2, len(levels) - 2})]
    label = f"replicate {replicate + 1} · k={k}"
    search = _search(recipe)
    one_cut = {at.level: round(1 - masks.count(levels[-1].mask) / masks.count(at.mask), 3) for at in chosen}
    jobs: list[Any] = []
    cases: list[tuple[Level, str, float, Weights, Mask]] = []
    for at in chosen:
        for kind in KINDS:
            for share in sorted({*SHARES, one_cut[at.level]}):
                cut = prune(
                    at.run.weights, at.mask, share, kind, "global",
                    seed=derived_seed(seed, f"limit {at.level}", round(1000 * share)),
                )  # fmt: skip
                start = masks.apply(at.run.weights, cut)
                name = f"{label} · level {at.level} · {kind} {share:.0%}"
                cases.append((at, kind, share, start, cut))
                jobs.append(Job(search, order_seed=seed, start=State(start), mask=cut, label=name))
    spectra = [
        SpectrumTask(
            recipe, at.run.weights, at.mask, 0, examples=min(SPECTRUM_EXAMPLES, recipe.arrays.size()), seed=seed,
            label=f"{label} · level {at.level} · spectrum", **SPECTRUM,
        )
        for at in chosen
    ]  # fmt: skip
    small = [at for at in chosen if masks.count(at.mask) <= LARGEST]
    exact = [
        QuadraticTask(
            recipe, at.run.weights, at.mask, [cut for case, _, _, _, cut in cases if case is at],
            examples=min(SPECTRUM_EXAMPLES, recipe.arrays.size()), label=f"{label} · level {at.level} · quadratic",
        )
        for at in small
    ]  # fmt: skip
    found = yield [*jobs, *spectra, *exact]
    runs: list[Run] = found[: len(jobs)]
    paths = yield [
        PathTask(
            recipe, start, run.weights, 2, ("train", "test"), "interpolate", options.examples, f"{job.label} · ends"
        )
        for (_, _, _, start, _), job, run in zip(cases, jobs, runs, strict=True)
    ]
    own = yield [
        PathTask(recipe, at.run.weights, at.run.weights, 2, ("train", "test"), "interpolate", options.examples,
                 f"{label} · level {at.level}")
        for at in chosen
    ]  # fmt: skip
    base = {at.level: path_of(outcome).loss["train"][0] for at, outcome in zip(chosen, own, strict=True)}
    rows = []
    lowest: dict[tuple[int, str, str], dict[float, float]] = {}
    for (at, kind, share, _, _), outcome in zip(cases, paths, strict=True):
        ends, place = path_of(outcome), about(replicate, k, at)
        for where, i in (("projection", 0), ("subspace", 1)):
            loss = ends.loss["train"][i] if i == 0 else min(ends.loss["train"])
            rows.append(row(place, kind, f"rise of the loss, {where}", "nats", 0, loss - base[at.level], x=share))
            rows.append(row(place, kind, f"error, {where}", "points", 0, ends.error["test"][i], x=share))
            lowest.setdefault((at.level, kind, where), {})[share] = loss - base[at.level]
    for at, outcome in zip(small, found[len(jobs) + len(spectra) :], strict=True):
        own_cases = [(kind, share) for case, kind, share, _, _ in cases if case is at]
        for (kind, share), cost in zip(own_cases, outcome["costs"], strict=True):
            rows.append(row(about(replicate, k, at), kind, "rise of the loss, quadratic", "nats", 0, cost, x=share))
            lowest.setdefault((at.level, kind, "quadratic"), {})[share] = cost
    for at, outcome in zip(chosen, found[len(jobs) : len(jobs) + len(spectra)], strict=True):
        spectrum, place = spectrum_from(outcome), about(replicate, k, at)
        rows.append(row(place, "imp", "largest eigenvalue", "nats", 0, max(spectrum.nodes), x=math.nan))
        rows.append(row(place, "imp", "trace", "nats", 0, spectrum.trace, x=math.nan))
        rows.append(row(place, "imp", "share to the last level", "share", 0, one_cut[at.level], x=math.nan))
        for kind in KINDS:
            theory = largest_prunable(spectrum, at.run.weights, at.mask, EPSILON, kind)
            rows.append(row(place, kind, "largest share, theory", "share", 0, theory, x=math.nan))
            for where in ("projection", "subspace", "quadratic"):
                if (at.level, kind, where) not in lowest:
                    continue
                measured = _largest(lowest[at.level, kind, where], EPSILON)
                rows.append(row(place, kind, f"largest share, {where}", "share", 0, measured, x=math.nan))
    return rows


def _search(recipe: Recipe) -> Recipe:
    """A short training that looks for the lowest loss: the recipe's optimizer at half its rate, falling to 0."""
    optimizer = replace(recipe.optimizer, lr=recipe.optimizer.lr / 2)
    length = max(1, round(SEARCH * recipe.total))
    return recipe.replace(optimizer=optimizer, schedule=Linear(), steps=f"{length}it", evaluations=1)


def _largest(rises: Mapping[float, float], epsilon: float) -> float:
    """The share at which the rise first passes ``epsilon``, linear between those that were tried, which increase."""
    before_share, before_rise = 0.0, 0.0
    for share, rise in rises.items():
        if rise > epsilon:
            part = (epsilon - before_rise) / (rise - before_rise)
            return before_share + part * (share - before_share)
        before_share, before_rise = share, rise
    return before_share


def retraining(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM figure 6: weight magnitudes before pruning, after it and after retraining; the next projection's length.

    Also what pruning does without retraining, and a single cut with it, at the same densities.
    """
    return [_retraining(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _retraining(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    label = f"replicate {replicate + 1} · k={k}"
    rule, dense = recipe.pruning, levels[0]
    untrained: list[Mask] = [levels[0].mask]
    for number in range(1, len(levels)):
        cut = prune(
            dense.run.weights, untrained[-1], rule.rate, rule.score, rule.scope, rule.rates,
            start=dense.run.at(k), seed=derived_seed(seed, "pruning", number),
        )  # fmt: skip
        untrained.append(cut)
    rewound = dense.run.state(k).without_optimizer
    tasks: list[Any] = [
        replace(
            _path(options, masks.apply(dense.run.weights, m), dense.run.weights, f"{label} · untrained {i}"), points=2
        )
        for i, m in enumerate(untrained)
    ]
    tasks.append(
        Job(recipe, order_seed=seed, start=rewound, mask=untrained[-1], from_step=k, label=f"{label} · one-shot")
    )
    found = yield tasks
    rows = []
    for i, at in enumerate(levels):
        place = about(replicate, k, at)
        rows.append(row(place, "imp", "error", "points", 0, at.run.test_error, x=math.nan))
        error = path_of(found[i]).error["test"][0]
        rows.append(row(place, "without retraining", "error", "points", 0, error, x=math.nan))
    last: Run = found[-1]
    rows.append(row(about(replicate, k, levels[-1]), "one-shot", "error", "points", 0, last.test_error, x=math.nan))
    for i, (here, after) in enumerate(_successive(levels)):
        place = about(replicate, k, here)
        for kind, length in (
            ("imp", distance_to(here.run.weights, after.mask)),
            ("without retraining", distance_to(masks.apply(dense.run.weights, untrained[i]), untrained[i + 1])),
        ):
            rows.append(row(place, kind, "projection length", "L2", 0, length, x=math.nan))
    for number in sorted({0, (len(levels) - 1) // 2, len(levels) - 2}):
        here, after = levels[number], levels[number + 1]
        place = about(replicate, k, here)
        for kind, weights, mask in (
            ("before pruning", here.run.weights, here.mask),
            ("after pruning", here.run.weights, after.mask),
            ("after retraining", after.run.weights, after.mask),
        ):
            for centre, share in _histogram(weights, mask):
                rows.append(row(place, kind, "weights in bin", "share", 0, share, x=centre))
    return rows


def _histogram(weights: Weights, mask: Mask) -> list[tuple[float, float]]:
    """Share of the unpruned weights by log10 of their magnitude: bin centre and share."""
    values = torch.cat([weights[n][m].double().abs() for n, m in mask.items()]).numpy()
    logs = np.log10(np.maximum(values, 10 ** BINS[0]))
    counts, _ = np.histogram(logs.clip(BINS[0], BINS[-1]), BINS)
    return [(float(c), float(v)) for c, v in zip((BINS[1:] + BINS[:-1]) / 2, counts / len(values), strict=True)]


def _successive(levels: Sequence[Level]) -> list[tuple[Level, Level]]:
    return list(pairwise(levels))


def _path(options: Options, a: Weights, b: Weights, label: str) -> PathTask:
    return PathTask(options.recipe, a, b, options.points, ("test",), "interpolate", options.examples, label)


def _experiment(chains: Any, title: str, source: str, rewind_to: tuple[str, ...] = ()) -> Experiment:
    return Experiment(chains.__name__, title, source, chains, rewind_to, "unmasking")


EARLY = ("0it", "100it", "500it")
EXPERIMENTS = (
    _experiment(connectivity, "Successive levels are linearly connected where they match", "UNM, figure 2", EARLY),
    _experiment(
        projection, "Pruning leaves the floor of the connected region, retraining returns to it", "UNM, figure 3"
    ),
    _experiment(
        robustness, "How far a rewind point can be moved before training ends elsewhere", "UNM, figure 4", EARLY
    ),
    _experiment(pruning_limit, "How much can be pruned at once", "UNM, figure 5"),
    _experiment(retraining, "Retraining makes new small weights to prune", "UNM, figure 6"),
    _experiment(adaptive, "Trainings with adaptive shares against a fixed one", "UNM's sibling on adaptive pruning"),
)
