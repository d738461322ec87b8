"""What adaptive shares save against a fixed share, replicate by replicate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lotto.execution.engine import Chain
from lotto.experiments.experiment import Options, Row, about, plan_of, row
from lotto.lottery.adaptive import adaptive_chain
from lotto.lottery.plan import make_plan
from lotto.lottery.procedure import level_chain
from lotto.pruning import masks


def adaptive(options: Options) -> Sequence[Chain[list[Row]]]:
    """UNM section 6 and its sibling on adaptive pruning: trainings to the density that fixed shares reach.

    Each replicate decides alone. ``trainings`` counts every one, failed trials among them; that of the fixed share is
    what it takes to get to the density that the adaptive one has reached.
    """
    return [_adaptive(options, k, r) for k in options.rewind_steps for r in range(options.replicates)]


def _adaptive(options: Options, k: int, replicate: int) -> Chain[list[Row]]:
    recipe = options.recipe
    levels = yield from level_chain(plan_of(options, k), replicate, lambda event: None)
    target = masks.density(levels[-1].mask)
    plan = make_plan(
        recipe, rewind_to=k, replicates=1, controls=(), density=target, seed=options.seed + replicate, adaptive=True
    )
    (chosen,), trials = yield from adaptive_chain(plan, lambda event: None)
    rows = []
    for kind, chain in (("imp", levels), ("adaptive", chosen)):
        for at in chain:
            rows.append(row(about(replicate, k, at), kind, "error", "points", 0, at.run.test_error, x=math.nan))
    for number, trial in enumerate(trials, start=1):
        place: Row = {"replicate": replicate, "rewind_step": k, "level": trial.level, "density": trial.density}
        rows.append(row(place, "kept" if trial.kept else "not kept", "share tried", "share", 0, trial.share, x=number))
    reached = masks.density(chosen[-1].mask)
    fixed = next(at.level for at in levels if masks.density(at.mask) <= reached * (1 + 1e-3))
    # Replicates may end at different densities, so the counts stand at the density that was asked for.
    place = {**about(replicate, k, levels[-1]), "density": target}
    rows.append(row(place, "adaptive", "trainings", "count", 0, 1 + len(trials), x=math.nan))
    rows.append(row(place, "imp", "trainings", "count", 0, 1 + fixed, x=math.nan))
    rows.append(row(place, "adaptive", "density reached", "fraction", 0, reached, x=math.nan))
    # A training without its first k steps, which only the dense network takes.
    rest = recipe.total - k
    for kind, count in (("adaptive", len(trials)), ("imp", fixed)):
        rows.append(row(place, kind, "steps", "count", 0, recipe.total + count * rest, x=math.nan))
    return rows
