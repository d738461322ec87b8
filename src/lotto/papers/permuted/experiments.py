"""Experiments on masks and solutions of one initialisation that are brought to another by a permutation of units.

Rows have the columns of `stabilizing`. Every replicate has another initialisation of its own, so that no network is in
two replicates' values.
"""

from __future__ import annotations

from collections.abc import Sequence

from lotto.core.weights import distance
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR
from lotto.landscape.batchnorm import has_batchnorm
from lotto.landscape.path import PathTask, path_of
from lotto.landscape.permutation.orders import permuted
from lotto.models.widths import widened
from lotto.papers.permuted import measures as m
from lotto.papers.permuted import plots
from lotto.papers.permuted.transplants import Pair, matched_pair, transplanted
from lotto.pruning.agreement import overlap

METHODS = ("activations", "weights")
FACTORS = (0.5, 1.0, 2.0)
"""Of the recipe's width."""


@experiment(
    "transplant", title="A mask on another initialisation, as it is and permuted to it", source="2505.05143",
    plot=plots.transplant, compares=True, searches=True,
)  # fmt: skip
def transplant(case: Case, *, eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """IMP's masks trained from another initialisation's rewind point, as they are and permuted; its own beside them.

    The permutation matches both dense networks after training, by activations and by weights. At ``eval_levels``;
    empty = half of the levels and all.
    """
    last = case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    pair = yield from matched_pair(case, METHODS)
    own = pair.others
    chosen = [pair.levels[number] for number in numbers]
    runs = yield from transplanted(pair, chosen)
    rows = [*case.dense_rows(pair.levels[0].run), *_distances(pair)]
    for at in chosen:
        errors = {
            m.OWN: at.run.test_error,
            **{kind: run.test_error for (n, kind), run in runs.items() if n == at.level},
        }
        if at.level < len(own):
            errors[m.OTHERS_OWN] = own[at.level].run.test_error
            for kind, mask in pair.masks(at).items():
                found = overlap(mask, own[at.level].mask)
                if found.expected < 1:
                    above = (found.jaccard - found.expected) / (1 - found.expected)
                    rows.append(case.row(at, kind, m.AGREEMENT, above))
        rows += [case.row(at, kind, ERROR, error) for kind, error in errors.items()]
    return rows


def _distances(pair: Pair) -> list[Row]:
    """How near both dense networks come to each other, over their prunable weights."""
    mask = pair.levels[0].mask
    one, two = pair.levels[0].run.weights, pair.others[0].run.weights
    apart = distance(one, two, mask)
    return [
        pair.case.row(At(0, 1.0), kind, m.DISTANCE, distance(permuted(order, one), two, mask) / apart)
        for kind, order in pair.orders.items()
    ]


@experiment(
    "widths", title="Permuted masks against the width of the network", source="2505.05143", plot=plots.widths,
    searches=True,
)  # fmt: skip
def widths(case: Case, *, factors: Sequence[float] = ()) -> Procedure[list[Row]]:
    """The last level's mask on its own and on another initialisation, permuted by activations, for several widths.

    ``factors`` times the recipe's; empty = a half, the same and twice as wide.
    """
    models = {factor: widened(str(case.recipe.model), factor) for factor in tuple(factors) or FACTORS}
    rows: list[Row] = []
    for factor, model in models.items():
        narrow = case if factor == 1 else case.with_recipe(case.recipe.replace(model=model))
        pair = yield from matched_pair(narrow, ("activations",), dense_only=True)
        last = pair.levels[-1]
        runs = yield from transplanted(pair, [last])
        errors = {m.OWN: last.run.test_error, **{kind: run.test_error for (_, kind), run in runs.items()}}
        if factor == 1:
            rows += case.dense_rows(pair.levels[0].run)
        rows += [narrow.row(last, kind, m.WIDTH_ERROR, error, x=factor) for kind, error in errors.items()]
        rows.append(narrow.row(At(0, 1.0), m.OWN, m.WIDTH_ERROR, pair.levels[0].run.test_error, x=factor))
    return rows


@experiment(
    "barriers", title="Barriers between levels of two initialisations, as they are and modulo permutation",
    source="Sharma et al., 2024; Ainsworth et al., 2209.04836", plot=plots.barriers,
)  # fmt: skip
def barriers(
    case: Case, *, points: int = 30, examples: int | None = None, eval_levels: Sequence[int] = ()
) -> Procedure[list[Row]]:
    """Barriers between the solutions of two initialisations at level 0 and at ``eval_levels``, units permuted or not.

    The permutation is that of the dense networks at every level. With BatchNorm also with statistics re-estimated.
    """
    last = case.options.levels
    numbers = (0, *(tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))))
    pair = yield from matched_pair(case, METHODS)
    own = pair.others
    policies = ("interpolate", "recompute") if has_batchnorm(case.recipe) else ("interpolate",)
    there = [n for n in numbers if n < len(own) and not own[n].diverged]
    tasks = {
        (n, kind, policy): PathTask(
            case.recipe, weights, own[n].run.weights, points, batchnorm=policy, examples=examples,
            label=f"{case.label} · level {n} · {kind}, {policy}",
        )
        for n in there
        for kind, weights in pair.solutions(pair.levels[n]).items()
        for policy in policies
    }  # fmt: skip
    found = yield tasks
    rows = [*case.dense_rows(pair.levels[0].run), *_distances(pair)]
    for (n, kind, policy), outcome in found.items():
        rows.append(case.row(pair.levels[n], kind, m.BARRIERS[policy], path_of(outcome).barrier("mean")))
    return rows


EXPERIMENTS = (transplant, widths, barriers)
