"""Experiments of *Stabilizing the Lottery Ticket Hypothesis* and its successor, *Linear Mode Connectivity*.

Rows have the columns ``replicate``, ``rewind_step``, ``level``, ``density``, ``kind`` (dense, imp, random, ...),
``measure``, ``unit``, ``sample``, ``value``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import BARRIERS, DENSE, ERROR, IMP, ONE_SHOT, RANDOM, REINIT, Kind, Measure
from lotto.experiments.options import NO_CONTROLS
from lotto.landscape.stability import (
    Instability,
    data_order_procedure,
    instability_procedure,
    pruning_procedure,
)
from lotto.lottery.options import CONTROLS, Retraining
from lotto.lottery.replicate import REINIT_CONTROL, Level, random_control
from lotto.papers.stabilizing import measures as m
from lotto.papers.stabilizing import plots
from lotto.training.job import Job, State


@experiment(
    "distances", title="Stability to pruning and to data order: IMP against random masks",
    source="STAB, figures 3 and 10", plot=plots.distances,
)  # fmt: skip
def distances(case: Case, *, orders: int = 3) -> Procedure[list[Row]]:
    """STAB figures 3, 4 and 10: distances of IMP and random masks at one density, for each rewind step.

    Stability to pruning is measured on data orders other than the one that made the mask, which knows its own.
    """
    levels = yield from case.levels()
    dense, last = levels[0], levels[-1]
    start, seeds = dense.run.state(case.k).without_optimizer, case.order_seeds(orders)
    found = yield from gather(
        {
            kind: [
                procedure(case.recipe, start, mask, case.k, orders_of, f"{case.label} · {kind}")
                for procedure, orders_of in ((data_order_procedure, seeds), (pruning_procedure, seeds[1:]))
            ]
            for kind, mask in ((IMP, last.mask), (RANDOM, random_control(last, case.seed, case.recipe.pruning.pattern)))
        }
    )
    rows = case.dense_rows(dense.run)
    for kind, (to_order, to_pruning) in found.items():
        rows += case.rows(last, kind, m.DATA_ORDER, to_order.l2.values)
        rows += case.rows(last, kind, m.DATA_ORDER_ANGLE, to_order.angle.values)
        rows += case.rows(last, kind, m.PRUNING, to_pruning.l2.values, first=1)
        rows += case.rows(last, kind, m.PRUNING_ANGLE, to_pruning.angle.values, first=1)
        rows += case.rows(last, kind, ERROR, to_order.errors)
    return rows


rewind = replace(
    distances,
    name="rewind",
    title="Stability against the rewind step",
    source="STAB, figure 4",
    rewind_to=("0it", "100it", "500it", "2ep"),
)


@experiment(
    "instability", title="Instability of the dense network against the step at which its copies part",
    source="LMC, figure 3", rewind_to=("0it", "100it", "500it", "2ep"), plot=plots.instability,
)  # fmt: skip
def instability(case: Case, *, orders: int = 3, points: int = 30, examples: int | None = None) -> Procedure[list[Row]]:
    """LMC figure 3: error barrier of the dense network against the step at which its copies part."""
    label = f"replicate {case.replicate + 1} · dense"
    (dense,) = yield [Job(case.recipe, case.seed, case.seed, keep=(case.k,), label=label)]
    found = yield from instability_procedure(
        case.recipe, dense.state(case.k).without_optimizer, None, case.k, case.order_seeds(orders), points,
        examples=examples, label=case.label,
    )  # fmt: skip
    rows = _instability_rows(case, At(0, 1.0), DENSE, found, m.ERROR_OF_COPIES)
    return [*rows, *case.convergence_rows(dense)]


def _instability_rows(case: Case, at: Level | At, kind: Kind, found: Instability, error: Measure = ERROR) -> list[Row]:
    rows = case.rows(at, kind, error, found.errors)
    for (policy, split, what), measure in BARRIERS.items():
        if policy in found.paths:
            rows += case.rows(at, kind, measure, found.barrier(split, what, policy).values)
    return rows


@experiment(
    "subnetworks", title="Instability and error of subnetworks: matching exactly when stable",
    source="LMC, figures 5 and 6", rewind_to=("0it", "100it", "500it"), plot=plots.subnetworks,
)  # fmt: skip
def subnetworks(
    case: Case, *, orders: int = 3, points: int = 30, examples: int | None = None, eval_levels: Sequence[int] = ()
) -> Procedure[list[Row]]:
    """LMC figures 5 and 6: instability and error of subnetworks at ``eval_levels``; empty = half of the levels and all.

    IMP masks and random masks from the rewind point; the IMP mask on a new initialisation, from step 0.
    """
    levels = yield from case.levels()
    start = levels[0].run.state(case.k).without_optimizer
    fresh = State(case.recipe.initial(case.seed + REINIT_CONTROL))
    last = len(levels) - 1
    evaluated = [levels[i] for i in eval_levels or sorted({last, last // 2} - {0}, reverse=True)]
    seeds = case.order_seeds(orders)
    found = yield from gather(
        [
            {
                kind: instability_procedure(
                    case.recipe, point, mask, step, seeds, points, examples=examples,
                    label=f"{case.label} · level {at.level} · {kind}",
                )
                for kind, point, step, mask in (
                    (IMP, start, case.k, at.mask),
                    (RANDOM, start, case.k, random_control(at, case.seed, case.recipe.pruning.pattern)),
                    (REINIT, fresh, 0, at.mask),
                )
            }
            for at in evaluated
        ]
    )  # fmt: skip
    rows = case.dense_rows(levels[0].run)
    for at, kinds in zip(evaluated, found, strict=True):
        for kind, measured in kinds.items():
            rows += _instability_rows(case, at, kind, measured)
    return rows


@experiment(
    "sparsity", title="Error against density for each rewind step", source="STAB, figure 5",
    rewind_to=("0it", "500it"), plot=plots.against_density, compares=True,
)  # fmt: skip
def sparsity(case: Case, *, control_steps: Sequence[str | int] = ()) -> Procedure[list[Row]]:
    """STAB figure 5: error against density for each rewind step, with both controls.

    The controls are trained at the rewind steps ``control_steps``; empty = at all, ``("none",)`` = nowhere.
    """
    if tuple(control_steps) == NO_CONTROLS:
        return (yield from _errors(case, {IMP: Retraining.WEIGHTS}))
    controlled = {case.recipe.step(k) for k in control_steps} or {case.k}
    return (yield from _errors(case, {IMP: Retraining.WEIGHTS}, CONTROLS if case.k in controlled else ()))


@experiment(
    "oneshot", title="A single cut against iteration at the same density", source="STAB, figures 6 and 7",
    rewind_to=("0it", "500it", "2ep"), plot=plots.oneshot,
)  # fmt: skip
def oneshot(case: Case) -> Procedure[list[Row]]:
    """STAB figures 6 and 7: a single cut against iteration, at the same density, over the rewind step."""
    found = yield from gather({m.ITERATIVE: case.levels(), ONE_SHOT: case.levels(one_shot=True)})
    dense, last = found[m.ITERATIVE][0], found[m.ITERATIVE][-1]
    rows = case.dense_rows(dense.run)
    return rows + [case.row(last, kind, ERROR, levels[-1].run.test_error) for kind, levels in found.items()]


@experiment(
    "retraining", title="Weight rewinding, learning-rate rewinding and fine-tuning at equal budgets",
    source="Renda et al., figure 1", plot=plots.against_density, compares=True,
)  # fmt: skip
def retraining(case: Case) -> Procedure[list[Row]]:
    """Renda et al. (2003.02389): weight rewinding, learning-rate rewinding and fine-tuning, equally long."""
    kinds = {m.WEIGHT_REWINDING: Retraining.WEIGHTS, m.LR_REWINDING: Retraining.LR, m.FINE_TUNING: Retraining.FINETUNE}
    return (yield from _errors(case, kinds))


def _errors(case: Case, kinds: Mapping[Kind, Retraining], controls: Sequence[str] = ()) -> Procedure[list[Row]]:
    found = yield from gather(
        {kind: case.levels(partial=True, after=after, controls=controls) for kind, after in kinds.items()}
    )
    rows = [
        case.row(at, Kind(name), ERROR, run.test_error)
        for kind, levels in found.items()
        for at in levels
        for name, run in {kind: at.run, **at.controls}.items()
    ]
    return rows + case.convergence_rows(next(iter(found.values()))[0].run)


EXPERIMENTS = (distances, rewind, instability, subnetworks, sparsity, oneshot, retraining)
