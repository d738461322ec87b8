"""What a plan comes to before it is carried out: how many trainings, how long they take, what the store takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lotto.core.errors import NotCacheableError
from lotto.core.shown import shown
from lotto.execution.admin import FINISHED, walk
from lotto.execution.autotune import measured_step
from lotto.execution.compute import lookup
from lotto.execution.engine import Engine
from lotto.execution.procedures import Position, Procedure
from lotto.execution.store import Store
from lotto.execution.threads import limited_threads
from lotto.lottery.adaptive import adaptive_procedure
from lotto.lottery.options import Retraining
from lotto.lottery.plan import SettledPlan
from lotto.lottery.procedure import level_procedure
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run
from lotto.training.loop import learner_of

ENOUGH = 100
"""Stored runs that tell how long another one takes."""
OVERHEAD = 4096
"""Bytes of a training's records and manifest, about."""


@dataclass(frozen=True)
class Training:
    """One training of a plan.

    Attributes:
        steps: iterations; of a loop of one's own, whose length nobody knows, 1.
        states: how many are stored.
        kept: how many of them with the optimizer's tensors.
        control: whether it is a control's, which no level waits for.
    """

    steps: int
    states: int = 1
    kept: int = 0
    control: bool = False


@dataclass(frozen=True)
class Forecast:
    """What a plan comes to.

    Attributes:
        plan: the plan; with ``replicates="auto"`` this is its first look.
        trainings: how many; None for adaptive pruning, which does not know beforehand.
        remembered: how many of them are in the store.
        step_seconds: how long an iteration takes, or a whole training by a loop of one's own; NaN = not known.
        source: how that is known.
        seconds: how long the trainings that are missing take together on the engine's workers, without the workers'
            start; of adaptive pruning, one training.
        size: bytes that they add to the store; of adaptive pruning, one training.
    """

    plan: SettledPlan
    trainings: int | None
    remembered: int
    step_seconds: float
    source: str
    seconds: float
    size: int

    __repr__ = shown


def forecast(plan: SettledPlan, engine: Engine) -> Forecast:
    """What a plan comes to on an engine. Nothing is trained but, if no run of the recipe is stored, a few steps.

    Args:
        plan: see `lotto.lottery.plan.make_plan`.
        engine: its workers share the work, its store is looked into.

    >>> plan = lotto.lottery.plan.make_plan(recipe, levels=3, replicates=2, controls=())
    >>> forecast(plan, lotto.engine.make(1)).trainings
    8
    """
    store, recipe = engine.store, plan.recipe
    with limited_threads(engine.threads):  # so that what is remembered is what the engine would compute
        found = [stored_of(procedure, store) for procedure in _procedures(plan)]
    seconds, source = _pace(recipe, [run for runs in found for run in runs], engine)
    state, optimizer = _state_bytes(recipe)

    def size(trainings: Sequence[Training]) -> int:
        return sum(t.states * state + t.kept * optimizer + OVERHEAD for t in trainings)

    each = trainings_of(plan)
    remembered = sum(len(runs) for runs in found)
    if plan.adaptive:
        return Forecast(plan, None, remembered, seconds, source, each[-1].steps * seconds, size(each[-1:]))
    left = [each[len(runs) :] for runs in found]  # they are asked for in this order
    work = sum(t.steps for trainings in left for t in trainings) / min(engine.slots, max(1, sum(map(len, left))))
    longest = max(_longest(plan, trainings) for trainings in left)
    return Forecast(
        plan, plan.replicates * len(each), remembered, seconds, source, max(work, longest) * seconds,
        sum(map(size, left)),
    )  # fmt: skip


def trainings_of(plan: SettledPlan) -> list[Training]:
    """The trainings of one replicate, in the order in which `level_procedure` asks for them."""
    total, rewind = (plan.recipe.total, plan.rewind_step) if plan.recipe.loop is None else (1, 0)
    asked = plan.options
    rest = Training(total - rewind)
    level = Training(total) if asked.after is Retraining.REINIT else rest
    dense = [Training(total, 2, int(rewind > 0))]  # at step 0 the optimizer is new
    if asked.restart_dense and rewind:
        dense.append(Training(total - rewind, 2, int(asked.rewind_optimizer)))
    dense += [rest] * (asked.particles - 1)
    kinds = {"reinit": Training(total, control=True), "random": Training(total - rewind, control=True)}
    controls = [kinds[c] for _ in plan.control_levels for c in plan.trained_controls]
    return [*dense, *[level] * (asked.particles * plan.levels), *controls]


def stored_of(procedure: Procedure[Any], store: Store) -> list[Run]:
    """The runs that a procedure finds in a store before it asks for one that is not there."""
    position, runs = Position(procedure), []
    while jobs := position.advance():
        found = {index: lookup(store, job) for index, job in jobs}
        runs += [run for run in found.values() if isinstance(run, Run)]
        if any(result is None for result in found.values()):
            procedure.close()
            break
        position.results = found
    return runs


def _procedures(plan: SettledPlan) -> list[Procedure[Any]]:
    if plan.adaptive:
        return [adaptive_procedure(plan, lambda event: None)]
    return [level_procedure(plan, index, lambda event: None) for index in range(plan.replicates)]


def _longest(plan: SettledPlan, left: Sequence[Training]) -> float:
    """Iterations that follow each other: a level waits for the one before it, its copies for nobody."""
    levels = [t.steps for t in left if not t.control]
    controls = [t.steps for t in left if t.control]
    if plan.before_training:  # then they wait for the dense network alone
        return sum(sorted(levels)[-2:]) + max(controls, default=0)
    return sum(levels) / plan.options.particles + max(controls, default=0)


def _pace(recipe: Recipe, runs: Sequence[Run], engine: Engine) -> tuple[float, str]:
    """Seconds per iteration, and how they are known."""
    times = [(run.seconds, run.steps[1] - run.steps[0]) for run in runs] or _stored_times(recipe, engine.store)
    if recipe.loop is not None:
        times = [(seconds, 1) for seconds, _ in times]
    if steps := sum(taken for _, taken in times):
        runs_said = "1 stored run" if len(times) == 1 else f"{len(times)} stored runs"
        return sum(seconds for seconds, _ in times) / steps, runs_said
    if recipe.loop is not None:
        return math.nan, "no stored run"
    return measured_step(recipe, engine.threads), "a few steps, without evaluations"


def _stored_times(recipe: Recipe, store: Store) -> list[tuple[float, int]]:
    """Seconds and iterations of stored runs of a recipe, whatever their seeds and masks."""
    try:
        description = Job(recipe).description["recipe"]
    except NotCacheableError:
        return []
    times = []
    for entry in walk(store):
        job = entry.manifest.get("job", {})
        if entry.status == FINISHED and "steps" in job and job.get("recipe") == description:
            first, last = job["steps"]
            times.append((float(entry.manifest["seconds"]), last - first))
            if len(times) == ENOUGH:
                break
    return times


def _state_bytes(recipe: Recipe) -> tuple[int, int]:
    """Bytes of a state's weights, and of its optimizer's tensors."""
    if recipe.loop is not None:
        return sum(t.nbytes for t in recipe.initial(0).values()), 0
    state = learner_of([Job(recipe)]).state(0)
    weights, optimizer = (sum(t.nbytes for t in part.values()) for part in (state.weights, state.optimizer))
    return weights, optimizer
