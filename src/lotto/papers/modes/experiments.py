"""Solutions of many methods of one replicate at one density: barriers between them, and between copies of each.

Rows have the columns of `stabilizing`. Statistics of BatchNorm are re-estimated on every path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from lotto.core.errors import unknown
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, Kind, Measure
from lotto.landscape.path import PathTask, path_of
from lotto.papers.modes import measures as m
from lotto.papers.modes import plots
from lotto.papers.modes.methods import Ticket, changing, tickets
from lotto.training.job import Job, Run, State

Pair = tuple[Measure, Kind, Kind]
Runs = dict[Kind, Run]


@dataclass(frozen=True, eq=False)
class Found:
    """The tickets of a case's methods, at the density of IMP's last level.

    Attributes:
        case: the case.
        dense: the dense training.
        point: the rewind point.
        tickets: by kind, the dense network's first.
        pruned: where rows of pruned networks stand.
    """

    case: Case
    dense: Run
    point: State
    tickets: Mapping[Kind, Ticket]
    pruned: At

    def jobs(self, kinds: Iterable[Kind], order: int, *, moved: bool = False) -> dict[Kind, Job]:
        """The trainings of some kinds on a data order."""
        beside = (", the other start" if moved else "") + ("" if order == self.case.seed else ", another order")
        return {
            kind: self.tickets[kind].job(
                self.case, self.point, order, f"{self.case.label} · {kind}{beside}", moved=moved
            )
            for kind in kinds
        }

    def own(self) -> Procedure[Runs]:
        """The solutions."""
        runs = yield self.jobs([kind for kind in self.tickets if kind != DENSE], self.case.seed)
        return {DENSE: self.dense, **runs}

    def rows(self, measure: Measure, runs: Runs) -> list[Row]:
        """The rows of errors."""
        return [self.row(kind, measure, run.test_error) for kind, run in runs.items()]

    def row(self, kind: Kind, measure: Measure, value: float) -> Row:
        """The row of a kind."""
        return self.case.row(At(0, 1.0) if kind == DENSE else self.pruned, kind, measure, value)

    def barriers(
        self, ends: Mapping[Pair, tuple[Run, Run]], points: int, examples: int | None
    ) -> Procedure[dict[Pair, float]]:
        """The barrier of each pair (measure, kind, kind at the other end), but for those of what diverged."""
        outcomes = yield {
            pair: PathTask(
                self.case.recipe, a.weights, b.weights, points, batchnorm="recompute", examples=examples,
                label=f"{self.case.label} · {pair[1]}, {pair[2]}: {pair[0].name}",
            )
            for pair, (a, b) in ends.items()
            if not a.diverged and not b.diverged
        }  # fmt: skip
        return {pair: path_of(outcome).barrier("mean") for pair, outcome in outcomes.items()}


@experiment(
    "solutions", title="Barriers between the solutions of many methods at one density", source="ours",
    rewind_to=("100it",), plot=plots.solutions, searches=True,
)  # fmt: skip
def solutions(
    case: Case, *, methods: Sequence[str] = (), points: int = 30, examples: int | None = None
) -> Procedure[list[Row]]:
    """Errors of all solutions and barriers between them, at the density of the last level.

    IMP and one cut of the trained network rewind to ``k``; the others train from the same initialisation. All have the
    data order of the dense network. ``methods``: empty = all of `METHODS`.
    """
    found = yield from _found(case, methods)
    own = yield from found.own()
    ordered = sorted(own, key=m.SOLUTIONS.index)
    ends = {(m.BETWEEN, b, a): (own[a], own[b]) for a, b in combinations(ordered, 2)}
    barriers = yield from found.barriers(ends, points, examples)
    rows = [*case.convergence_rows(found.dense), *found.rows(ERROR, own)]
    for (measure, kind, beside), value in barriers.items():
        rows.append({**found.row(kind, measure, value), "x": float(m.SOLUTIONS.index(beside))})
    return rows


@experiment(
    "copies", title="Barriers between copies of each method's ticket on two data orders", source="ours",
    rewind_to=("100it",), plot=plots.copies, searches=True,
)  # fmt: skip
def copies(
    case: Case, *, methods: Sequence[str] = (), points: int = 30, examples: int | None = None
) -> Procedure[list[Row]]:
    """Barriers between each solution and a copy on another data order.

    A copy has the start and the mask of its original, or the start alone where the mask changes along the training.
    """
    found = yield from _found(case, methods)
    own = yield from found.own()
    other = yield found.jobs([kind for kind in own if kind != DENSE], case.order_seeds(2)[1])
    ends = {(m.COPIES, kind, kind): (own[kind], run) for kind, run in other.items()}
    barriers = yield from found.barriers(ends, points, examples)
    rows = [*case.convergence_rows(found.dense), *found.rows(ERROR, own), *found.rows(m.COPY_ERROR, other)]
    return [*rows, *(found.row(kind, measure, value) for (measure, kind, _), value in barriers.items())]


@experiment(
    "starts", title="Each method's mask at the other start: the initial weights or the rewind point", source="ours",
    rewind_to=("100it",), plot=plots.starts, searches=True,
)  # fmt: skip
def starts(
    case: Case, *, methods: Sequence[str] = (), points: int = 30, examples: int | None = None
) -> Procedure[list[Row]]:
    """Barriers between the dense network and masks that hold still, at the start that is not their own."""
    found = yield from _found(case, methods)
    still = [kind for kind, ticket in found.tickets.items() if ticket.mask is not None and ticket.sparsity is None]
    moved = yield found.jobs(still, case.seed, moved=True)
    ends = {(m.MOVED_BETWEEN, kind, DENSE): (found.dense, run) for kind, run in moved.items()}
    barriers = yield from found.barriers(ends, points, examples)
    rows = [*case.dense_rows(found.dense), *found.rows(m.MOVED_ERROR, moved)]
    return [*rows, *(found.row(kind, measure, value) for (measure, kind, _), value in barriers.items())]


def _found(case: Case, methods: Sequence[str]) -> Procedure[Found]:
    chosen = tuple(methods) or tuple(m.METHODS)
    for name in chosen:
        if name not in m.METHODS:
            raise unknown("method", name, m.METHODS)
    for name in {"gradual", "set"} & set(chosen):  # what cannot work is said now
        changing(case.recipe, name, 0.5).updates(case.recipe)
    levels = yield from case.levels()
    made = yield from tickets(case, levels, chosen)
    return Found(case, levels[0].run, levels[0].run.state(case.k).without_optimizer, made, At.of(levels[-1]))


EXPERIMENTS = (solutions, copies, starts)
