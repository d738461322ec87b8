"""The experiment of *Pruning Neural Networks at Initialization: Why Are We Missing the Mark?* (2009.08576).

Rows have the columns of `stabilizing`; ``kind`` is a method's mask, the same shuffled, or on a new initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence

from lotto.core.errors import UsageError, unknown
from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, Kind
from lotto.lottery.options import CONTROLS
from lotto.lottery.plan import SettledPlan
from lotto.lottery.procedure import level_procedure
from lotto.lottery.replicate import Level
from lotto.papers.missing_the_mark import plots
from lotto.papers.missing_the_mark.measures import FRESH, METHODS, OWN, SHUFFLED
from lotto.training.job import Run


@experiment(
    "ablations", title="Pruning before training: masks as they are, shuffled within layers, on a new initialisation",
    source="2009.08576, figures on ablations", rewind_to=("0it",), plot=plots.ablations, compares=True, searches=True,
)  # fmt: skip
def ablations(case: Case, *, methods: Sequence[str] = ()) -> Procedure[list[Row]]:
    """Error of each of ``methods`` (empty = all of `METHODS`) at every density, with both ablations.

    Methods before training prune the weights at the rewind step, by one cut for each density; at step 0 that is pruning
    at initialisation. A mask that is shuffled within layers is a random one of the same layer densities. Copies on a
    new initialisation are trained from the start.
    """
    chosen = tuple(methods) or tuple(METHODS)
    for name in chosen:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    plans = {name: plans_of(case, name) for name in chosen}
    found: dict[str, list[list[Level]]] = yield from gather(
        {name: [level_procedure(plan, case.replicate, lambda event: None) for plan in plans[name]] for name in chosen}
    )
    rows = case.dense_rows(found[chosen[0]][0][0].run)
    for name, trained in found.items():
        for at, level in _numbered(trained):
            rows += [case.row(at, kind, ERROR, run.test_error) for kind, run in _runs(name, level)]
    return rows


def plans_of(case: Case, method: str) -> list[SettledPlan]:
    """The plans of a method: one with a level for each density, or one for each density where each is a single cut."""
    chosen, densities = METHODS[method], tuple(case.plan_of().densities)
    given = {
        "allocation": "global", "controls": CONTROLS if chosen.ablated else (),
        "prune_at": "rewind" if chosen.before else "end", **chosen.options,
    }  # fmt: skip
    together = [densities] if chosen.before or chosen.iterative else [(density,) for density in densities]
    plans = [case.plan_of(densities=part, **given) for part in together]
    if "reinit" in plans[0].left_out:
        raise UsageError(
            f"{case.recipe.name} has one initialisation, and these ablations are about others; its model has to draw "
            "its weights from torch's generator, or give init='kaiming-normal'."
        )
    return plans


def _numbered(trained: Sequence[Sequence[Level]]) -> list[tuple[At, Level]]:
    """The pruned levels of a method, numbered by their densities whatever plan they are of."""
    if len(trained) == 1:
        return [(At.of(level), level) for level in trained[0][1:]]
    return [(At(n, At.of(levels[1]).density), levels[1]) for n, levels in enumerate(trained, 1) if len(levels) > 1]


def _runs(name: str, level: Level) -> list[tuple[Kind, Run]]:
    kinds = {"random": SHUFFLED[name], "reinit": FRESH[name]}
    return [(OWN[name], level.run), *((kinds[control], run) for control, run in level.controls.items())]


EXPERIMENTS = (ablations,)
