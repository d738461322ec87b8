"""Solutions of many methods of one replicate at one density: barriers between them, and between copies of each.

Rows have the columns of `stabilizing`. Statistics of BatchNorm are re-estimated on every path.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from lotto.core.errors import unknown
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, Kind, Measure
from lotto.landscape.path import PathTask, path_of
from lotto.papers.modes import measures as m
from lotto.papers.modes import plots
from lotto.papers.modes.methods import changing, tickets
from lotto.training.job import Job, Run

Pair = tuple[Measure, Kind, Kind]


@experiment(
    "solutions", title="Barriers between the solutions of many methods at one density, and between copies of each",
    source="ours", rewind_to=("100it",), plot=plots.solutions, searches=True,
)  # fmt: skip
def solutions(
    case: Case, *, methods: Sequence[str] = (), points: int = 30, examples: int | None = None
) -> Procedure[list[Row]]:
    """Errors, barriers between all solutions, barriers between two data orders, and masks at the other start.

    At the density of the last level. IMP and one cut of the trained network rewind to ``k``; the others train from the
    same initialisation. ``methods``: empty = all of `METHODS`. A copy has the start and the mask of its original, or
    the start alone where the mask changes along the training, and another data order.
    """
    chosen = tuple(methods) or tuple(m.METHODS)
    for name in chosen:
        if name not in m.METHODS:
            raise unknown("method", name, m.METHODS)
    for name in {"gradual", "set"} & set(chosen):  # what cannot work is said now
        changing(case.recipe, name, 0.5).updates(case.recipe)
    levels = yield from case.levels()
    point = levels[0].run.state(case.k).without_optimizer
    found = yield from tickets(case, levels, chosen)
    own, other = case.order_seeds(2)
    jobs: dict[str, dict[Kind, Job]] = {
        "own": {
            kind: ticket.job(case, point, own, f"{case.label} · {kind}")
            for kind, ticket in found.items() if kind != DENSE
        },
        "copy": {
            kind: ticket.job(case, point, other, f"{case.label} · {kind}, another order")
            for kind, ticket in found.items()
        },
        "moved": {
            kind: ticket.job(case, point, own, f"{case.label} · {kind}, the other start", moved=True)
            for kind, ticket in found.items() if ticket.mask is not None and ticket.sparsity is None
        },
    }  # fmt: skip
    runs: dict[str, dict[Kind, Run]] = yield jobs
    runs["own"] = {DENSE: levels[0].run, **runs["own"]}
    barriers = yield from _barriers(case, runs, points, examples)
    rows = case.convergence_rows(levels[0].run)
    places = {kind: At(0, 1.0) if kind == DENSE else At.of(levels[-1]) for kind in found}
    for name, measure in (("own", ERROR), ("copy", m.COPY_ERROR), ("moved", m.MOVED_ERROR)):
        rows += [case.row(places[kind], kind, measure, run.test_error) for kind, run in runs[name].items()]
    for (measure, kind, beside), value in barriers.items():
        row = case.row(places[kind], kind, measure, value)
        rows.append({**row, "x": float(m.SOLUTIONS.index(beside))} if measure == m.BETWEEN else row)
    return rows


def _barriers(
    case: Case, runs: dict[str, dict[Kind, Run]], points: int, examples: int | None
) -> Procedure[dict[Pair, float]]:
    """The barrier of each pair (measure, kind, kind at the other end), but for those of what diverged."""
    own = runs["own"]
    ordered = sorted(own, key=m.SOLUTIONS.index)
    ends: dict[Pair, tuple[Run, Run]] = {
        (m.BETWEEN, b, a): (own[a], own[b]) for a, b in combinations(ordered, 2)
    }  # fmt: skip
    ends |= {(m.COPIES, kind, kind): (own[kind], run) for kind, run in runs["copy"].items()}
    ends |= {(m.MOVED_BETWEEN, kind, DENSE): (own[DENSE], run) for kind, run in runs["moved"].items()}
    tasks = {
        pair: PathTask(
            case.recipe, a.weights, b.weights, points, batchnorm="recompute", examples=examples,
            label=f"{case.label} · {pair[1]}, {pair[2]}: {pair[0].name}",
        )
        for pair, (a, b) in ends.items()
        if not a.diverged and not b.diverged
    }  # fmt: skip
    outcomes = yield tasks
    return {pair: path_of(outcome).barrier("mean") for pair, outcome in outcomes.items()}


EXPERIMENTS = (solutions,)
