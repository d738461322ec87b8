"""What adaptive fractions save against a fixed fraction, replicate by replicate."""

from __future__ import annotations

from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, IMP
from lotto.lottery.adaptive import adaptive_procedure
from lotto.lottery.plan import make_plan
from lotto.papers.unmasking import measures as m
from lotto.papers.unmasking import plots
from lotto.pruning import masks


@experiment(
    "adaptive", title="Trainings with adaptive shares against a fixed one", source="UNM's sibling on adaptive pruning",
    plot=plots.adaptive, chooses=True, searches=True,
)  # fmt: skip
def adaptive(case: Case) -> Procedure[list[Row]]:
    """UNM's sibling on adaptive pruning: trainings to the density that fixed fractions reach.

    Each replicate decides alone. ``trainings`` counts every one, failed trials among them; that of the fixed fraction
    is what it takes to get to the density that the adaptive one has reached.
    """
    levels = yield from case.levels()
    target = masks.density(levels[-1].mask)
    plan = make_plan(
        case.recipe, rewind_to=case.k, replicates=1, controls=(), density=target, seed=case.seed, adaptive=True
    )
    (chosen,), trials = yield from adaptive_procedure(plan, lambda event: None)
    rows = [
        case.row(level, kind, ERROR, level.run.test_error)
        for kind, found in ((IMP, levels), (m.ADAPTIVE, chosen))
        for level in found
    ]
    rows += case.convergence_rows(levels[0].run)
    for number, trial in enumerate(trials, start=1):
        at, kind = At(trial.level, trial.density), m.KEPT if trial.kept else m.NOT_KEPT
        rows.append(case.row(at, kind, m.FRACTION_TRIED, trial.share, x=number))
    reached = masks.density(chosen[-1].mask)
    fixed = next(at.level for at in levels if masks.density(at.mask) <= reached * (1 + 1e-3))
    # Replicates may end at different densities, so the counts stand at the density that was asked for.
    end = At(levels[-1].level, target)
    counts = {m.ADAPTIVE: len(trials), IMP: fixed}
    rows += [case.row(end, kind, m.TRAININGS, 1 + count) for kind, count in counts.items()]
    rows.append(case.row(end, m.ADAPTIVE, m.DENSITY_REACHED, reached))
    # A training without its first k steps, which only the dense network takes.
    total, rest = case.recipe.total, case.recipe.total - case.k
    rows += [case.row(end, kind, m.STEPS, total + count * rest) for kind, count in counts.items()]
    return rows
