"""Experiments of *Deconstructing Lottery Tickets* and of *Masks, Signs, and Learning Rate Rewinding*.

Rows have the columns of `stabilizing`. All levels of a replicate share its data order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, Kind
from lotto.lottery.options import Retraining
from lotto.lottery.replicate import Level
from lotto.lottery.runs import changed_signs
from lotto.papers.signs import measures as m
from lotto.papers.signs import plots
from lotto.papers.signs.chains import with_start
from lotto.papers.signs.mask_agreement import overlap
from lotto.papers.signs.starts import Magnitudes, Signs, changed_start, turned_signs
from lotto.training.job import Job, State

ARMS = {
    m.KEPT_SHUFFLED: (Signs.KEPT, Magnitudes.SHUFFLED),
    m.KEPT_CONSTANT: (Signs.KEPT, Magnitudes.CONSTANT),
    m.DRAWN_KEPT: (Signs.DRAWN, Magnitudes.KEPT),
    m.DRAWN_SHUFFLED: (Signs.DRAWN, Magnitudes.SHUFFLED),
    m.DRAWN_CONSTANT: (Signs.DRAWN, Magnitudes.CONSTANT),
}
AFTER = {m.WEIGHT_REWINDING: Retraining.WEIGHTS, m.LR_REWINDING: Retraining.LR}
FRACTIONS = (0.3,)
"""Of a level's kept weights, whose signs are turned over."""


@experiment(
    "arms", title="Tickets whose signs or magnitudes are not their own", source="Zhou et al., 1905.01067",
    plot=plots.arms, compares=True,
)  # fmt: skip
def arms(case: Case, *, eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """Zhou et al.: the ticket trained with its signs kept or drawn, its magnitudes kept, shuffled or constant.

    Every arm starts at the rewind step with the ticket's mask, its other parameters and its data order; only the kept
    weights differ. The constant is the mean magnitude of a layer's kept weights. The new initialisation is IMP's
    control, which trains from step 0. At ``eval_levels``; empty = half of the levels and all.
    """
    last = case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    levels = yield from case.levels(controls=("reinit",), control_levels=numbers)
    start, chosen = levels[0].run.at(case.k), [levels[number] for number in numbers]
    runs = yield {
        (at.level, kind): Job(
            case.recipe, order_seed=case.seed, mask=at.mask, from_step=case.k,
            start=State(changed_start(start, at.mask, *arm, derived_seed(case.seed, "signs", at.level))),
            label=f"{case.label} · level {at.level} · {kind}",
        )
        for at in chosen
        for kind, arm in ARMS.items()
    }  # fmt: skip
    rows = case.dense_rows(levels[0].run)
    for at in chosen:
        found = {m.TICKET: at.run, **{kind: runs[at.level, kind] for kind in ARMS}}
        found |= {Kind(name): run for name, run in at.controls.items()}
        rows += [case.row(at, kind, ERROR, run.test_error) for kind, run in found.items()]
    return rows


@experiment(
    "flips", title="How many signs change, by level: weight rewinding and learning-rate rewinding",
    source="Gadhikar and Burkholz, 2402.19262", plot=plots.flips,
)  # fmt: skip
def flips(case: Case) -> Procedure[list[Row]]:
    """Signs of each level's kept weights at the end of training, against the rewind point, its start, and the last."""
    found = yield from gather({kind: case.levels(after=after) for kind, after in AFTER.items()})
    dense = next(iter(found.values()))[0]
    rewound = dense.run.at(case.k)
    rows = case.dense_rows(dense.run)
    for kind, levels in found.items():
        for before, here in pairwise(levels):
            at, end = At.of(here), here.run.weights
            start = rewound if kind == m.WEIGHT_REWINDING else before.run.weights
            rows += [
                case.row(at, kind, measure, changed_signs(beginning, end, here.mask))
                for measure, beginning in (
                    (m.FROM_REWIND_POINT, rewound),
                    (m.IN_LEVEL, start),
                    (m.SINCE_LEVEL, before.run.weights),
                )
            ]
    return rows


@experiment(
    "perturbation", title="Errors after signs have been turned over at one level",
    source="Gadhikar and Burkholz, 2402.19262", plot=plots.perturbation,
)  # fmt: skip
def perturbation(
    case: Case, *, fractions: Sequence[float] = FRACTIONS, perturbed_level: int = 0
) -> Procedure[list[Row]]:
    """Turn over a fraction of the signs at the start of ``perturbed_level`` and go on; 0 = half of the levels.

    Rewinding weights goes back to the rewind point with the turned signs from then on, as it does to any other;
    rewinding the learning rate goes on from the trained weights with turned signs, once.
    """
    number = perturbed_level or max(1, case.options.levels // 2)
    check_perturbation(fractions, number, case.options.levels)
    found = yield from gather({kind: case.levels(after=after) for kind, after in AFTER.items()})
    dense = next(iter(found.values()))[0]
    turned = yield from gather(
        {
            (kind, fraction): _turned(case, levels, kind, fraction, number)
            for kind, levels in found.items()
            for fraction in fractions
        }
    )
    rows = case.dense_rows(dense.run)
    for kind, levels in found.items():
        chains = {0.0: levels[number:], **{fraction: turned[kind, fraction] for fraction in fractions}}
        rows += [
            case.row(at, kind, m.PERTURBED_ERROR, at.run.test_error, x=fraction, y=number)
            for fraction, chain in chains.items()
            for at in chain
        ]
    return rows


def check_perturbation(fractions: Sequence[float], level: int, levels: int) -> None:
    """Raise ``UsageError`` for fractions or a level that cannot be used."""
    if not fractions or any(not 0 < fraction <= 1 for fraction in fractions):
        raise UsageError(
            f"Fractions of signs that are turned over lie above 0 and up to 1, as in fractions=(0.1, 0.3); "
            f"got {tuple(fractions)}."
        )
    if not 1 <= level <= levels:
        raise UsageError(f"Signs are turned over at one of the levels 1 to {levels}; got perturbed_level={level}.")


def _turned(case: Case, levels: Sequence[Level], kind: Kind, fraction: float, number: int) -> Procedure[list[Level]]:
    """The levels from ``number`` on, after a fraction of the signs were turned over at its start."""
    at, rewound = levels[number], levels[0].run.state(case.k).without_optimizer
    back = AFTER[kind] is Retraining.WEIGHTS
    start = rewound.weights if back else levels[number - 1].run.weights
    # A larger fraction turns over what a smaller one does and more.
    moved = State(turned_signs(start, at.mask, fraction, derived_seed(case.seed, "turned-signs", number)))
    plan = case.plan_of(after=AFTER[kind])
    return (yield from with_start(plan, case.replicate, at, moved, moved if back else rewound))


EXPERIMENTS = (arms, flips, perturbation, overlap)
