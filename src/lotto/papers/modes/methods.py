"""The solution of every method at one density: its mask, where its training starts, and the trainings beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lotto.core.rng import derived_seed
from lotto.execution.procedures import Procedure
from lotto.experiments.case import Case
from lotto.experiments.measures import DENSE, Kind
from lotto.lottery.replicate import Level
from lotto.lottery.scoring import pruned
from lotto.papers.modes import measures as m
from lotto.pruning import masks
from lotto.pruning.allocation import random_erk
from lotto.pruning.density import to_density
from lotto.pruning.masks import Mask
from lotto.pruning.rule import Pruning
from lotto.recipe.recipe import Recipe
from lotto.training.dynamic_sparsity import DynamicSparsity, spaced
from lotto.training.job import Job, State

SCORES = {"snip": "snip", "synflow": "synflow"}
UPDATES, MANY_UPDATES, STOP, FRACTION = 10, 20, 0.5, 0.3
"""Of masks that change: how often those of SET and of gradual pruning do, until which part, and SET's share."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """What a method trains.

    Attributes:
        mask: that it starts with; None = dense.
        rewound: whether it starts at the rewind point; else from the initial weights.
        sparsity: how its mask changes.
    """

    mask: Mask | None
    rewound: bool = False
    sparsity: DynamicSparsity | None = None

    def job(self, case: Case, point: State, order: int, label: str, *, moved: bool = False) -> Job:
        """Its training.

        Args:
            case: whose replicate it is.
            point: the rewind point.
            order: seed of the data order.
            label: what progress displays call it.
            moved: whether it starts at the other start.
        """
        if self.rewound is not moved:
            return Job(case.recipe, order_seed=order, start=point, mask=self.mask, from_step=case.k, label=label)
        return Job(case.recipe, case.seed, order, mask=self.mask, sparsity=self.sparsity, label=label)


def changing(recipe: Recipe, name: str, density: float) -> DynamicSparsity:
    """How the mask of SET, or of gradual pruning to a density, changes; as in the experiment on such masks."""
    every, stop = spaced(recipe, MANY_UPDATES if name == "gradual" else UPDATES, STOP)
    if name == "gradual":
        return DynamicSparsity("gradual", every=every, stop=stop, density=density)
    return DynamicSparsity("set", every=every, stop=stop, fraction=FRACTION)


def tickets(case: Case, levels: Sequence[Level], methods: Sequence[str]) -> Procedure[Mapping[Kind, Ticket]]:
    """The tickets of all methods with as many weights as IMP's last level, and the dense network.

    Args:
        case: whose replicate it is.
        levels: of IMP.
        methods: names in `METHODS`.
    """
    recipe, last, found = case.recipe, levels[-1].mask, {DENSE: Ticket(None)}
    density, ones = masks.density(last), masks.ones(recipe)
    initial = recipe.initial(case.seed)
    for name in methods:
        kind = m.METHODS[name]
        if name == "imp":
            found[kind] = Ticket(last, rewound=True)
        elif name == "one-shot":
            cut = yield from case.levels(one_shot=True)
            found[kind] = Ticket(cut[-1].mask, rewound=True)
        elif name in SCORES:
            rule = to_density(Pruning(score=SCORES[name], allocation="global"), ones, density)
            mask = yield from pruned(
                recipe, rule, initial, ones, start=initial, seed=derived_seed(case.seed, "pruning", 0),
                label=f"{case.label} · {kind}",
            )  # fmt: skip
            found[kind] = Ticket(mask)
        elif name == "random":
            found[kind] = Ticket(random_erk(ones, masks.count(last), case.seed))
        elif name == "gradual":
            found[kind] = Ticket(None, sparsity=changing(recipe, name, density))
        else:
            mask = random_erk(ones, masks.count(last), case.seed)
            found[kind] = Ticket(mask, sparsity=changing(recipe, name, density))
    return found
