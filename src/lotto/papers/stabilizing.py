"""Experiments of *Stabilizing the Lottery Ticket Hypothesis* and its successor, *Linear Mode Connectivity*.

Rows have the columns ``replicate``, ``rewind_step``, ``density``, ``kind`` (imp, random, dense), ``measure``,
``unit``, ``sample``, ``value``.
"""

from __future__ import annotations

from collections.abc import Sequence

from lotto import masks
from lotto.engine import Chain, together
from lotto.imp import MAX_LEVELS, level_chain, make_plan
from lotto.papers.experiment import Experiment, Options, Row
from lotto.stability import Distances, data_order_chain, instability_chain, pruning_chain, rewind_point_chain


def distances(options: Options) -> Sequence[Chain[list[Row]]]:
    """STAB figures 3, 4 and 10: distances of IMP and random masks at one density, for each rewind step."""
    return [_distances(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _distances(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    plan = make_plan(
        recipe, options.levels, rewind_to=k, replicates=options.replicates, controls=(), seed=options.seed, check=False
    )
    levels = yield from level_chain(plan, replicate, lambda event: None)
    dense, last = levels[0].run, levels[-1]
    start = dense.state(k).without_optimizer
    # The same random mask as IMP's control at this level.
    kinds = {"imp": last.mask, "random": masks.random_like(last.mask, seed * MAX_LEVELS + last.level)}
    orders = options.order_seeds(replicate)
    found: list[Distances] = yield from together(
        [
            chain(recipe, start, mask, k, orders, f"replicate {replicate + 1} · k={k} · {kind}")
            for kind, mask in kinds.items()
            for chain in (data_order_chain, pruning_chain)
        ]
    )
    about = {"replicate": replicate, "rewind_step": k, "density": masks.density(last.mask)}
    rows = [_row({**about, "density": 1.0}, "dense", "error", "points", 0, dense.test_error)]
    for i, kind in enumerate(kinds):
        for measure, measured in (("data order", found[2 * i]), ("pruning", found[2 * i + 1])):
            for unit, spread in (("L2", measured.l2), ("degrees", measured.angle)):
                rows += [_row(about, kind, measure, unit, s, v) for s, v in enumerate(spread.values)]
        rows += [_row(about, kind, "error", "points", s, v) for s, v in enumerate(found[2 * i].errors)]
    return rows


def instability(options: Options) -> Sequence[Chain[list[Row]]]:
    """LMC figure 3: error barrier of the dense network against the step at which its copies part."""
    return [_instability(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _instability(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    start = yield from rewind_point_chain(recipe, k, seed, seed, f"replicate {replicate + 1}")
    label = f"replicate {replicate + 1} · k={k}"
    found = yield from instability_chain(
        recipe,
        start,
        None,
        k,
        options.order_seeds(replicate),
        options.points,
        ("test", "train"),
        options.examples,
        label,
    )
    about = {"replicate": replicate, "rewind_step": k, "density": 1.0}
    rows = [_row(about, "dense", "error", "points", s, v) for s, v in enumerate(found.errors)]
    for policy in found.paths:
        for split in ("test", "train"):
            for what, unit in (("error", "points"), ("loss", "nats")):
                spread = found.barrier(split, what, policy)
                name = f"{split} barrier, statistics {policy}d"
                rows += [_row(about, "dense", name, unit, s, v) for s, v in enumerate(spread.values)]
    return rows


def _row(about: Row, kind: str, measure: str, unit: str, sample: int, value: float) -> Row:
    return {**about, "kind": kind, "measure": measure, "unit": unit, "sample": sample, "value": value}


EXPERIMENTS = (
    Experiment(
        "distances",
        "Stability to pruning and to data order: IMP against random masks",
        "STAB, figures 3 and 10",
        distances,
    ),
    Experiment(
        "rewind",
        "Stability against the rewind step",
        "STAB, figure 4",
        distances,
        ("0it", "100it", "500it", "2ep"),
    ),
    Experiment(
        "instability",
        "Instability of the dense network against the step at which its copies part",
        "LMC, figure 3",
        instability,
        ("0it", "100it", "500it", "2ep"),
    ),
)
