"""What a plan comes to, in lines."""

from __future__ import annotations

import math
from dataclasses import fields

from lotto.core.text import size_words, time_words
from lotto.lottery.forecast import Forecast
from lotto.recipe.recipe import Recipe
from lotto.report.table import percent

OPTIONS = (
    "clip_norm", "accumulate", "batch_groups", "ema", "weights", "patience", "validation", "metrics", "decide_by",
    "output",
)  # fmt: skip
"""Fields of a recipe that are named where they are not at their defaults."""


def forecast_lines(found: Forecast) -> list[str]:
    """The settled plan, its densities, its trainings, their time and what the store takes: a line for each."""
    plan, recipe = found.plan, found.plan.recipe
    levels = f"{'at most ' * plan.adaptive}{plan.levels} level{'s' * (plan.levels != 1)}"
    of_all = "" if recipe.loop else f" of {recipe.total:,}"
    training = [f"Training   {said}"] if (said := _training(recipe)) else []
    return [
        f"Plan       {recipe.name}: {plan.schedule!r}, {levels}, back to step {plan.rewind_step:,}{of_all}",
        f"Densities  {_densities(found)}",
        *training,
        f"Trainings  {_trainings(found)}",
        f"Time       {_time(found)}",
        f"Store      {_size(found)}",
    ]


def _training(recipe: Recipe) -> str:
    """What of its training is not as usual; empty if nothing is."""
    given = {name: getattr(recipe, name) for name in OPTIONS} | {"groups": recipe.optimizer.groups}
    usual = {f.name: f.default for f in fields(recipe)}
    asked = [f"{name}={value!r}" for name, value in given.items() if value != usual.get(name)]
    return ", ".join(asked) + (f"; the weights that count: {recipe.reported}" if recipe.reported != "last" else "")


def _densities(found: Forecast) -> str:
    if found.plan.adaptive:
        target = found.plan.target
        return f"chosen by trial{f', down to {percent(target)}' if target else ''}"
    return ", ".join(map(percent, [1.0, *found.plan.densities]))


def _trainings(found: Forecast) -> str:
    plan = found.plan
    stored = f"{found.remembered} of them remembered"
    if found.trainings is None:
        return f"as many as the search takes, for {plan.replicates} replicates; {stored}"
    controls = len(plan.trained_controls) * len(plan.control_levels)
    each = found.trainings // plan.replicates
    parts = f"{plan.replicates} replicate{'s' * (plan.replicates != 1)} of {each}, {controls} of these controls"
    later = "; as many more if there is a second look" if plan.first_look else ""
    return f"{found.trainings} ({parts}), {stored}{later}"


def _time(found: Forecast) -> str:
    if math.isnan(found.step_seconds):
        return "not known before one training of this loop is stored"
    each = f"{1e3 * found.step_seconds:.3g} ms per iteration"
    if found.plan.recipe.loop:
        each = f"{time_words(found.step_seconds)} per training"
    pace = f"{each}, as in {found.source}"
    if found.trainings is None:
        return f"about {time_words(found.seconds)} for each training ({pace})"
    if found.remembered == found.trainings:
        return "nothing is left to train"
    return f"about {time_words(found.seconds)} ({pace})"


def _size(found: Forecast) -> str:
    return f"about {size_words(found.size)} more{' for each training' * (found.trainings is None)}"
