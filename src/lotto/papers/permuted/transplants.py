"""Two dense networks from two initialisations, in what order their units match, and trainings under foreign masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lotto.core.errors import DivergedError
from lotto.core.rng import derived_seed
from lotto.core.weights import Weights
from lotto.execution.procedures import Procedure
from lotto.experiments.case import Case
from lotto.experiments.measures import Kind
from lotto.landscape.permutation.orders import Permutation, permuted
from lotto.landscape.permutation.task import MatchTask, permutation_of
from lotto.lottery.plan import SettledPlan
from lotto.lottery.procedure import level_procedure
from lotto.lottery.replicate import Level, trained_replicate
from lotto.papers.permuted import measures as m
from lotto.pruning.masks import MaskLike
from lotto.training.job import Job, Run, State


@dataclass(frozen=True, eq=False)
class Pair:
    """A replicate and another one whose dense network its own is matched to.

    Attributes:
        case: of the first.
        levels: of the first.
        others: levels of the second, at least its dense network; it has an initialisation and a data order of its own.
        orders: by the kind of the rows: the first's units in the order that is nearest to the second.
    """

    case: Case
    levels: Sequence[Level]
    others: Sequence[Level]
    orders: Mapping[Kind, Permutation]

    @property
    def rewound(self) -> State:
        """The second's rewind point."""
        return self.others[0].run.state(self.case.k).without_optimizer

    def masks(self, at: Level) -> dict[Kind, MaskLike]:
        """The mask of a level for the second's initialisation: as it is, and permuted."""
        return {m.NAIVE: at.mask, **{kind: permuted(order, at.mask) for kind, order in self.orders.items()}}

    def solutions(self, at: Level) -> dict[Kind, Weights]:
        """The trained weights of a level: as they are, and permuted."""
        weights = at.run.weights
        return {m.NAIVE: weights, **{kind: permuted(order, weights) for kind, order in self.orders.items()}}


def other_seed(case: Case) -> int:
    """Of the other initialisation and its data order; no other replicate has it."""
    return derived_seed(case.seed, "another-initialisation")


def other_plan(case: Case) -> SettledPlan:
    """The plan of the other initialisation, whose only replicate it is."""
    return case.plan_of(seed=other_seed(case))


def matched_pair(case: Case, methods: Sequence[str], *, dense_only: bool = False) -> Procedure[Pair]:
    """Train both and match the dense networks as they are after training.

    Args:
        case: of the first.
        methods: of matching.
        dense_only: whether the second is not pruned.
    """
    levels = yield from case.levels()
    if dense_only:
        others = [(yield from trained_replicate(other_plan(case), 0)).dense]
    else:
        others = yield from level_procedure(other_plan(case), 0, lambda event: None)
    if others[0].diverged:
        raise DivergedError(others[0].diverged)
    outcomes = yield {
        method: MatchTask(
            case.recipe, levels[0].run.weights, others[0].run.weights, method, seed=case.seed,
            label=f"{case.label} · matching by {method}",
        )
        for method in methods
    }  # fmt: skip
    orders = {m.PERMUTED[method]: permutation_of(case.recipe, outcome) for method, outcome in outcomes.items()}
    return Pair(case, levels, others, orders)


def transplanted(pair: Pair, chosen: Sequence[Level]) -> Procedure[dict[tuple[int, Kind], Run]]:
    """Train the second's rewind point under the first's masks, by level and kind, on the second's data order."""
    case = pair.case
    return (
        yield {
            (at.level, kind): Job(
                case.recipe, order_seed=other_seed(case), start=pair.rewound, mask=mask, from_step=case.k,
                label=f"{case.label} · level {at.level} · {kind}",
            )
            for at in chosen
            for kind, mask in pair.masks(at).items()
        }
    )  # fmt: skip
