"""Tickets against narrower dense networks with as many parameters, each trained at its best learning rate.

Rows have the columns of `stabilizing`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from lotto.core.errors import DivergedError, UsageError
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, IMP, Kind
from lotto.models.widths import widened, widths
from lotto.papers.hidden import measures as m
from lotto.papers.hidden import plots
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run

FACTORS = (0.5, 1.0, 2.0)
"""Learning rates, times the recipe's."""
AS_MANY = 2.0
"""A network of another width has as many parameters if it has at most so many times as many, or as few."""
Runs = Mapping[float, Run]
"""By the factor of the recipe's learning rate."""


@experiment(
    "budget", title="Tickets and narrower dense networks of as many parameters, each at its best rate", source="ours",
    plot=plots.budget, chooses=True,
)  # fmt: skip
def budget(case: Case, *, factors: Sequence[float] = (), eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """Test errors of the dense network, of tickets, and of narrower dense networks, each at its best learning rate.

    A ticket has the weights that are left and all parameters that are never pruned; the narrower network has the width
    in its model's name with which its number of parameters is nearest, an initialisation of its own and the data order
    of the others. Rates are ``factors`` times the recipe's (empty = `FACTORS`); each network's is chosen by its error
    on examples that are held out. Tickets are found at the recipe's rate, only their last training has another. At
    ``eval_levels``; empty = half of the levels and all.
    """
    recipe, last = case.recipe, case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    at_rates = {factor: at_rate(recipe, factor) for factor in tuple(factors) or FACTORS}
    if not recipe.arrays.size("validation"):
        raise UsageError("Learning rates are chosen by held-out examples, of which there are none: set validation=N.")
    densities = case.plan_of().densities
    for number in numbers:  # what has no narrower network is said now
        nearest_width(recipe, parameters_left(recipe, densities[number - 1]))
    levels = yield from case.levels()
    chosen = [levels[number] for number in numbers]
    rewound = levels[0].run.state(case.k).without_optimizer
    arms: dict[tuple[At, Kind], tuple[int, dict[float, Job]]] = {
        (At(0, 1.0), DENSE): (
            recipe.parameter_count,
            {f: Job(r, case.seed, case.seed, label=f"{case.label} · dense, rate × {f:g}") for f, r in at_rates.items()},
        )
    }
    for level in chosen:
        at = At.of(level)
        left = parameters_left(recipe, at.density)
        model, count = nearest_width(recipe, left)
        label = f"{case.label} · level {at.level}"
        arms[at, IMP] = left, {
            f: Job(
                r, order_seed=case.seed, start=rewound, mask=level.mask, from_step=case.k,
                label=f"{label}, rate × {f:g}",
            )
            for f, r in at_rates.items()
        }  # fmt: skip
        arms[at, m.NARROW] = (
            count,
            {
                f: Job(r.replace(model=model), case.seed, case.seed, label=f"{label} · {model}, rate × {f:g}")
                for f, r in at_rates.items()
            },
        )
    found = yield {where: jobs for where, (_, jobs) in arms.items()}
    rows = [*case.dense_rows(levels[0].run), *(case.row(at, IMP, ERROR, at.run.test_error) for at in chosen)]
    for (at, kind), (count, _) in arms.items():
        runs: Runs = found[at, kind]
        factor = best(runs)
        rows += [
            case.row(at, kind, m.PARAMETERS, count),
            case.row(at, kind, m.TUNED_ERROR, runs[factor].test_error),
            case.row(at, kind, m.BEST_FACTOR, factor),
            *(case.row(at, kind, m.RATE_ERROR, run.test_error, x=f) for f, run in runs.items()),
        ]
    return rows


def at_rate(recipe: Recipe, factor: float) -> Recipe:
    """The recipe at a learning rate that is so many times its own.

    Raises:
        UsageError: if that is no rate, or groups of parameters have rates of their own.
    """
    if any("lr" in fields for fields in (recipe.optimizer.groups or {}).values()):
        raise UsageError("A learning rate is tuned that all parameters share; these have groups with lr of their own.")
    if not 0 < factor < math.inf:
        raise UsageError(f"Learning rates are some positive number of times the recipe's; got the factor {factor}.")
    return recipe.replace(optimizer__lr=factor * recipe.optimizer.lr) if factor != 1 else recipe


def best(runs: Runs) -> float:
    """The factor whose run has the least error on the examples that are held out; of equal ones the nearest to 1.

    Raises:
        DivergedError: if all have diverged.
    """
    ended = [factor for factor, run in runs.items() if not run.diverged]
    if not ended:
        raise DivergedError(next(iter(runs.values())).diverged)
    return min(ended, key=lambda f: (runs[f].history[-1]["validation_error"], abs(math.log(f))))


def parameters_left(recipe: Recipe, density: float) -> int:
    """How many parameters a ticket has: the weights that are left, and all that are never pruned."""
    prunable = masks.size(masks.ones(recipe))
    return recipe.parameter_count - prunable + round(density * prunable)


def nearest_width(recipe: Recipe, parameters: int) -> tuple[str, int]:
    """The model of another width, no wider than the recipe's, whose number of parameters is nearest, and that number.

    Args:
        recipe: its model's name says how wide it is.
        parameters: how many are asked for; the nearest is the one with the smallest ratio.

    Raises:
        UsageError: if no width is in the model's name; if none has as many parameters, see `AS_MANY`.

    >>> nearest_width(recipe, 400)  # a perceptron with 24 and 16 units has 814
    ('mlp-15-10', 421)
    """
    model = str(recipe.model)
    own = widths(model)
    largest = max(own)
    narrowest = largest // (2 * min(own)) + 1  # so that no layer is rounded to nothing

    def count(width: int) -> int:
        return recipe.replace(model=widened(model, width / largest)).parameter_count

    place = bisect_left(range(narrowest, largest), parameters, key=count) + narrowest
    counts = {width: count(width) for width in {max(narrowest, place - 1), place}}
    width = min(counts, key=lambda w: abs(math.log(counts[w] / parameters)))
    found = widened(model, width / largest)
    if not 1 / AS_MANY <= counts[width] / parameters <= AS_MANY:
        raise UsageError(
            f"No network of another width has as many parameters as the ticket, {parameters}: of those of {model!r} "
            f"the nearest is {found!r} with {counts[width]}. Ask for levels with more weights."
        )
    return found, counts[width]
