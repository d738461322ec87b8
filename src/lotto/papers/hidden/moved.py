"""Tickets that are found by one optimizer, or on one data set, and trained by another or on another.

Rows have the columns of `stabilizing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lotto.data as datasets
from lotto.core.errors import UsageError, unknown
from lotto.data.in_memory import Arrays
from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row, lost_in_last_quarter
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, IMP, RANDOM
from lotto.lottery.replicate import Level, random_control
from lotto.papers.hidden import measures as m
from lotto.papers.hidden import plots
from lotto.recipe.optimizers import SGD, Adam, Optimizer
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job

OPTIMIZERS: dict[str, Optimizer] = {"adam": Adam(1e-2), "sgd": SGD(0.1, momentum=0.9)}
"""Those that tickets are moved to. Adam's rate is the best of 1e-3, 3e-3, 1e-2 and 3e-2 for the dense
`resnet20-mnist1d`, on held-out examples of one training (seed 999)."""
MIRRORED = "mirrored"
"""The recipe's own data with every input backwards."""


@dataclass(frozen=True)
class Move:
    """Where tickets are moved to.

    Attributes:
        name: of the optimizer or the data set.
        what: what is another there, a key of `measures.MOVED_ERRORS`.
        recipe: that of training there.
    """

    name: str
    what: str
    recipe: Recipe


@experiment(
    "moved", title="Tickets trained by another optimizer, or on other data, than found", plot=plots.moved,
    source="after Morcos et al., 1906.02773",
)  # fmt: skip
def moved(case: Case, *, methods: Sequence[str] = (), eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """A ticket, its mask and its rewound weights, trained elsewhere, beside the ticket that is found there.

    Also the mask alone, on the rewind point of the dense network there, a random mask with the ticket's layer densities
    on the same, and the dense network there; all with one initialisation and data order. ``methods`` name where to: an
    optimizer of `OPTIMIZERS`, and ``mirrored`` (the recipe's inputs backwards) or a data set of the same shapes; empty
    = the optimizer that the recipe has not, and ``mirrored``. At ``eval_levels``; empty = half of the levels and all.
    """
    last = case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    chosen = moves(case.recipe, methods)
    levels = yield from case.levels()
    found = yield from gather({move.what: _there(case, move, levels, numbers) for move in chosen})
    rows = case.dense_rows(levels[0].run)
    rows += [case.row(levels[number], IMP, ERROR, levels[number].run.test_error) for number in numbers]
    return [*rows, *(row for there in found.values() for row in there)]


def _there(case: Case, move: Move, levels: Sequence[Level], numbers: Sequence[int]) -> Procedure[list[Row]]:
    """Find tickets where others are moved to, and train those beside them."""
    own = yield from case.with_recipe(move.recipe).levels()
    dense, k, error = own[0].run, case.k, m.MOVED_ERRORS[move.what]
    here, there = (run.state(k).without_optimizer for run in (levels[0].run, dense))
    jobs = {}
    for at in (levels[number] for number in numbers):
        random = random_control(at, case.seed, case.plan_of().pruning.pattern)
        for kind, start, mask in ((m.MOVED, here, at.mask), (m.MASK, there, at.mask), (RANDOM, there, random)):
            jobs[At.of(at), kind] = Job(
                move.recipe, order_seed=case.seed, start=start, mask=mask, from_step=k,
                label=f"{case.label} · level {at.level} · {kind}, {move.name}",
            )  # fmt: skip
    runs = yield jobs
    rows = [case.row(At(0, 1.0), DENSE, error, dense.test_error)]
    if (late := lost_in_last_quarter(move.recipe, dense)) is not None:
        fraction, lost, examples = late
        rows.append(case.row(At(0, 1.0), DENSE, m.LATE[move.what], lost, x=fraction, examples=examples))
    rows += [case.row(own[number], m.OWN, error, own[number].run.test_error) for number in numbers]
    return [*rows, *(case.row(at, kind, error, run.test_error) for (at, kind), run in runs.items())]


def moves(recipe: Recipe, names: Sequence[str] = ()) -> tuple[Move, ...]:
    """Where tickets of a recipe are moved to.

    Args:
        recipe: by which they are found.
        names: at most one optimizer and one data set; empty = the optimizer that it has not, and mirrored data.

    Raises:
        UsageError: for an unknown name, two of a sort, what the recipe has already, and data of other shapes.

    >>> [(move.name, move.what) for move in moves(recipe)]
    [('adam', 'optimizer'), ('mirrored', 'data')]
    """
    found: dict[str, Move] = {}
    for name in tuple(names) or ("sgd" if isinstance(recipe.optimizer, Adam) else "adam", MIRRORED):
        what = "optimizer" if name in OPTIMIZERS else "data"
        if what in found:
            raise UsageError(
                f"Tickets are moved to one optimizer and one data set at most; got {found[what].name} and {name}."
            )
        found[what] = Move(name, what, _by(recipe, name) if what == "optimizer" else _on(recipe, name))
    return tuple(found.values())


def _by(recipe: Recipe, name: str) -> Recipe:
    if isinstance(recipe.optimizer, type(OPTIMIZERS[name])):
        raise UsageError(f"Tickets are moved to another optimizer; {recipe.name} is trained by {name} already.")
    return recipe.replace(optimizer=OPTIMIZERS[name])


def _on(recipe: Recipe, name: str) -> Recipe:
    if name != MIRRORED and name not in datasets.NAMES:
        raise unknown("optimizer or data set to move tickets to", name, (*OPTIMIZERS, MIRRORED, *datasets.NAMES))
    if name == recipe.data:
        raise UsageError(f"Tickets are moved to other data; {recipe.name} is trained on {name} already.")
    other = recipe.replace(data=mirrored(recipe) if name == MIRRORED else name)
    shapes, others = ({n: tuple(t.shape) for n, t in r.meta_model().state_dict().items()} for r in (recipe, other))
    if different := [n for n, shape in shapes.items() if others.get(n) != shape]:
        first = different[0]
        raise UsageError(
            f"Tickets are moved to data of the same shapes and classes; for {name} {first} has the shape "
            f"{others.get(first)}, not {shapes[first]}."
        )
    return other


def mirrored(recipe: Recipe) -> Arrays:
    """The recipe's data with every input backwards along its last axis; without any held out.

    Raises:
        UsageError: if the inputs are no tensor in memory.
    """
    data = recipe.replace(validation=0).arrays
    if not isinstance(data, Arrays):
        raise UsageError(
            f"Inputs are mirrored that lie in memory as one tensor (lotto.data.Arrays); those of {data.name} do not. "
            "Name another data set of the same shapes, methods=('fashion-mnist',)."
        )
    return data.mirrored()
