"""Which examples, classes and probabilities a ticket changes, beside another training of the dense network.

Rows have the columns of `stabilizing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lotto.core.errors import DivergedError
from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, IMP, RANDOM, Kind
from lotto.lottery.replicate import Level
from lotto.papers.hidden import measures as m
from lotto.papers.hidden import plots
from lotto.papers.hidden.predictions import Predictions, PredictionsTask, check_probabilities, predictions_of
from lotto.training.job import Job, Run


@experiment(
    "examples", title="Examples, classes and probabilities that tickets change",
    source="after Hooker et al., 1911.05248", plot=plots.examples,
)  # fmt: skip
def examples(case: Case, *, eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """Errors of classes, calibration and changed test examples of IMP's tickets and of random masks, by level.

    The yardstick is a second dense network: from the rewind point of the first, where tickets start, on another data
    order. Random masks, with the layer densities of the tickets', at ``eval_levels``; empty = half of the levels and
    all. Calibration by `BINS` bins of equally many examples.
    """
    check_probabilities(case.recipe)
    last = case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    levels = yield from case.levels(controls=("random",), control_levels=numbers)
    dense = levels[0].run
    (other,) = yield [
        Job(
            case.recipe, order_seed=case.order_seeds(2)[1], start=dense.state(case.k).without_optimizer,
            from_step=case.k, label=f"{case.label} · dense, another order",
        )
    ]  # fmt: skip
    if other.diverged:
        raise DivergedError(other.diverged)
    whole = At(0, 1.0)
    runs: dict[tuple[At, Kind], Run] = {(whole, DENSE): dense, (whole, m.OTHER_ORDER): other}
    for at in levels[1:]:
        place = At.of(at)
        runs |= {(place, kind): run for kind, run in {IMP: at.run, **_random(at)}.items()}
    outcomes = yield {
        (place, kind): PredictionsTask(
            case.recipe, run.weights, label=f"{case.label} · level {place.level} · {kind}, predictions"
        )
        for (place, kind), run in runs.items()
        if not run.diverged
    }
    found = {where: predictions_of(outcome) for where, outcome in outcomes.items()}
    rows = case.convergence_rows(dense)
    for (place, kind), run in runs.items():
        rows.append(case.row(place, kind, m.ORDER_ERROR if kind == m.OTHER_ORDER else ERROR, run.test_error))
        if (place, kind) in found:
            rows += _rows(case, place, kind, found[place, kind], found[whole, DENSE])
    return rows


def _random(at: Level) -> dict[Kind, Run]:
    """The random mask's training of a level, where there is one."""
    return {RANDOM: at.controls[RANDOM]} if RANDOM in at.controls else {}


def _rows(case: Case, at: At, kind: Kind, found: Predictions, dense: Predictions) -> list[Row]:
    values = {
        m.WORST_CLASS: found.worst_class, m.CLASS_SPREAD: found.spread, m.CALIBRATION: found.calibration_error,
        m.LOG_LOSS: found.log_loss, m.BRIER: found.brier,
    }  # fmt: skip
    if kind != DENSE:
        values |= {
            m.CLASS_RISE: found.largest_rise(dense), m.CHANGED: found.changed(dense), m.FLIPPED: found.flipped(dense)
        }  # fmt: skip
    classes = [(number, float(error)) for number, error in enumerate(found.class_errors) if not math.isnan(error)]
    return [
        *(case.row(at, kind, measure, value) for measure, value in values.items()),
        *(case.row(at, kind, m.CLASS_ERROR, error, x=number) for number, error in classes),
    ]
