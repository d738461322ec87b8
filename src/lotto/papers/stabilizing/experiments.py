"""Experiments of *Stabilizing the Lottery Ticket Hypothesis* and its successor, *Linear Mode Connectivity*.

Rows have the columns ``replicate``, ``rewind_step``, ``level``, ``density``, ``kind`` (dense, imp, random, ...),
``measure``, ``unit``, ``sample``, ``value``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lotto.execution.engine import Chain, gather
from lotto.experiments.experiment import Experiment, Options, Row, about, plan_of, row
from lotto.landscape.stability import (
    Distances,
    Instability,
    data_order_chain,
    instability_chain,
    pruning_chain,
    rewind_point_chain,
)
from lotto.lottery.plan import CONTROLS, After
from lotto.lottery.procedure import REINIT_CONTROL, Level, level_chain, random_control
from lotto.training.job import State


def distances(options: Options) -> Sequence[Chain[list[Row]]]:
    """STAB figures 3, 4 and 10: distances of IMP and random masks at one density, for each rewind step."""
    return [_distances(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _distances(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    plan = plan_of(options, k)
    levels = yield from level_chain(plan, replicate, lambda event: None)
    dense, last = levels[0].run, levels[-1]
    start = dense.state(k).without_optimizer
    kinds = {"imp": last.mask, "random": random_control(last, seed)}
    orders = options.order_seeds(replicate)
    found: list[Distances] = yield from gather(
        [
            chain(recipe, start, mask, k, orders, f"replicate {replicate + 1} · k={k} · {kind}")
            for kind, mask in kinds.items()
            for chain in (data_order_chain, pruning_chain)
        ]
    )
    at_last = about(replicate, k, last)
    rows = [row(about(replicate, k, levels[0]), "dense", "error", "points", 0, dense.test_error)]
    for i, kind in enumerate(kinds):
        for measure, measured in (("data order", found[2 * i]), ("pruning", found[2 * i + 1])):
            for unit, spread in (("L2", measured.l2), ("degrees", measured.angle)):
                rows += [row(at_last, kind, measure, unit, s, v) for s, v in enumerate(spread.values)]
        rows += [row(at_last, kind, "error", "points", s, v) for s, v in enumerate(found[2 * i].errors)]
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
    dense = {"replicate": replicate, "rewind_step": k, "level": 0, "density": 1.0}
    # Copies restart the optimizer at k: they are not the dense training, whose error is the measure "error".
    return _barrier_rows(dense, "dense", found, "error of the copies")


def _barrier_rows(at: Row, kind: str, found: Instability, error: str = "error") -> list[Row]:
    rows = [row(at, kind, error, "points", s, v) for s, v in enumerate(found.errors)]
    for policy in found.paths:
        for split in ("test", "train"):
            for what, unit in (("error", "points"), ("loss", "nats")):
                spread = found.barrier(split, what, policy)
                name = f"{split} barrier, statistics {policy}d"
                rows += [row(at, kind, name, unit, s, v) for s, v in enumerate(spread.values)]
    return rows


def subnetworks(options: Options) -> Sequence[Chain[list[Row]]]:
    """LMC figures 5 and 6: instability and error of subnetworks at the levels to look at.

    IMP masks and random masks from the rewind point; the IMP mask on a new initialisation, from step 0.
    """
    return [_subnetworks(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _subnetworks(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe, seed = options.recipe, options.seed + replicate
    plan = plan_of(options, k)
    levels = yield from level_chain(plan, replicate, lambda event: None)
    start = levels[0].run.state(k).without_optimizer
    fresh = State(recipe.initial(seed + REINIT_CONTROL))
    last = len(levels) - 1
    looked_at = options.look_at or sorted({last, last // 2} - {0}, reverse=True)
    cases = [
        (at, kind, point, step, mask)
        for at in (levels[i] for i in looked_at)
        for kind, point, step, mask in (
            ("imp", start, k, at.mask),
            ("random", start, k, random_control(at, seed)),
            ("reinit", fresh, 0, at.mask),
        )
    ]
    found: list[Instability] = yield from gather(
        [
            instability_chain(
                recipe, point, mask, step, options.order_seeds(replicate), options.points, ("test", "train"),
                options.examples, f"replicate {replicate + 1} · k={k} · level {at.level} · {kind}",
            )
            for at, kind, point, step, mask in cases
        ]
    )  # fmt: skip
    rows = [row(about(replicate, k, levels[0]), "dense", "error", "points", 0, levels[0].run.test_error)]
    for (at, kind, *_), measured in zip(cases, found, strict=True):
        rows += _barrier_rows(about(replicate, k, at), kind, measured)
    return rows


def sparsity(options: Options) -> Sequence[Chain[list[Row]]]:
    """STAB figure 5: error against density for each rewind step, with both controls."""
    return [
        _levels(options, k, r, {"imp": After.WEIGHTS}, CONTROLS)
        for k in options.rewind_steps
        for r in range(options.replicates)
    ]


def retraining(options: Options) -> Sequence[Chain[list[Row]]]:
    """Renda et al. (2003.02389): weight rewinding, learning-rate rewinding and fine-tuning, equally long."""
    kinds = {"weight rewinding": After.WEIGHTS, "lr rewinding": After.LR, "fine-tuning": After.FINETUNE}
    return [_levels(options, k, r, kinds, ()) for k in options.rewind_steps for r in range(options.replicates)]


def _levels(
    options: Options, k: int, replicate: int, kinds: Mapping[str, After], controls: Sequence[str]
) -> Chain[list[Row]]:
    chains = [
        level_chain(plan_of(options, k, after, controls), replicate, lambda event: None) for after in kinds.values()
    ]
    found: list[list[Level]] = yield from gather(chains)
    rows = []
    for kind, levels in zip(kinds, found, strict=True):
        for at in levels:
            for name, run in {kind: at.run, **at.controls}.items():
                rows.append(row(about(replicate, k, at), name, "error", "points", 0, run.test_error))
    return rows


def oneshot(options: Options) -> Sequence[Chain[list[Row]]]:
    """STAB figures 6 and 7: a single cut against iteration, at the same density, over the rewind step."""
    return [_oneshot(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _oneshot(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    kinds = {"iterative": plan_of(options, k), "one-shot": plan_of(options, k, one_shot=True)}
    found = yield from gather([level_chain(plan, replicate, lambda event: None) for plan in kinds.values()])
    dense, last = found[0][0], found[0][-1]
    rows = [row(about(replicate, k, dense), "dense", "error", "points", 0, dense.run.test_error)]
    for kind, levels in zip(kinds, found, strict=True):
        rows.append(row(about(replicate, k, last), kind, "error", "points", 0, levels[-1].run.test_error))
    return rows


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
    Experiment(
        "subnetworks",
        "Instability and error of subnetworks: matching exactly when stable",
        "LMC, figures 5 and 6",
        subnetworks,
        ("0it", "100it", "500it"),
    ),
    Experiment("sparsity", "Error against density for each rewind step", "STAB, figure 5", sparsity, ("0it", "500it")),
    Experiment(
        "oneshot",
        "A single cut against iteration at the same density",
        "STAB, figures 6 and 7",
        oneshot,
        ("0it", "500it", "2ep"),
    ),
    Experiment(
        "retraining",
        "Weight rewinding, learning-rate rewinding and fine-tuning at equal budgets",
        "Renda et al., figure 1",
        retraining,
    ),
)
