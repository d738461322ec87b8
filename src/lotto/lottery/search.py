"""Iterative magnitude pruning with rewinding (STAB algorithm 1): what it receives, and how it is carried out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import DivergedError
from lotto.core.statistics import Match
from lotto.execution.engine import Engine, Progress
from lotto.execution.progress import callback
from lotto.execution.rule import chosen_engine, on_device
from lotto.execution.store import Store
from lotto.lottery.adaptive import adaptive_procedure
from lotto.lottery.options import Plan, made_from_plan
from lotto.lottery.plan import SettledPlan, make_plan
from lotto.lottery.procedure import SecondLook, level_procedure
from lotto.lottery.replicate import Level
from lotto.lottery.result import ImpResult
from lotto.pruning import masks
from lotto.pruning.ticket import Ticket
from lotto.recipe.recipe import Recipe
from lotto.training.job import Run

log = logging.getLogger(__name__)


@made_from_plan
@checked
def imp(
    recipe: Recipe,
    plan: Plan | int | None = None,
    *,
    start: Mapping[str, Tensor] | Ticket | Run | None = None,
    engine: Engine | None = None,
    jobs: int | str = "auto",
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> ImpResult:
    """Find winning tickets: iterative pruning with rewinding.

    Args:
        recipe: what is trained; its ``pruning`` gives score, allocation, per-layer rates and excluded layers.
        plan: what is asked; default made from the options. Given beside it, they change it.
        {options}
        start: where level 0 of every replicate begins instead of at new weights: a state dict, the trained weights of
            a run, or a ticket, whose mask is then what is left at level 0. Replicates differ in the data order, and
            the control ``reinit`` draws new weights.
        engine: how jobs are run; default made from ``jobs`` and ``store``.
        jobs: worker processes, see `lotto.engine.make`.
        store: where runs are remembered; default ``LOTTO_STORE``, or the user's cache. An engine has its own.
        device: where it is computed; default the recipe's.
        progress: called with engine events and `LevelFinished`; default: how far it is, on a terminal or in a
            notebook; False: not shown.

    Returns:
        The result, with `ImpResult.table` and `ImpResult.sparsest_matching`.

    Raises:
        UsageError: before any training, for whatever cannot be done.
        DivergedError: if the dense network of every replicate diverged.

    >>> plan = lotto.Plan(densities=[0.5, 0.25], rewind_to="5it", replicates=2, controls=())
    >>> lotto.imp(recipe, plan, jobs=1).table()["density"].round(3).tolist()
    [1.0, 0.5, 0.25]
    """
    recipe = on_device(recipe, device)
    if start is not None:
        recipe = recipe.replace(pretrained=_weights(start))
    settled = make_plan(recipe, plan, start_mask=start.mask if isinstance(start, Ticket) else None)
    if left_out := masks.left_out(recipe):
        asked = all(it.reason in ("excluded", "frozen") for it in left_out)
        log.log(logging.INFO if asked else logging.WARNING, "%s", recipe.left_out)
    return run_plan(settled, chosen_engine(recipe, engine, store, jobs), progress)


def _weights(start: Mapping[str, Tensor] | Ticket | Run) -> Mapping[str, Tensor]:
    return start.start if isinstance(start, Ticket) else start.weights if isinstance(start, Run) else start


def run_plan(plan: SettledPlan, engine: Engine, progress: Progress | bool | None = None) -> ImpResult:
    """Carry out a plan of `make_plan`; see `imp`."""
    if plan.replicates == 1:
        log.info("One replicate has no spread: its verdicts are %r. Two or more give bounds.", Match.UNDECIDED.value)
    if plan.adaptive:
        ((levels, trials),) = engine.run_procedures([adaptive_procedure(plan, callback(progress))], progress)
        return _unless_all_diverged(ImpResult(plan, levels, trials))
    found = _unless_all_diverged(ImpResult(plan, _replicates(plan, range(plan.replicates), engine, progress)))
    if not plan.first_look or found.open_level is None:
        return found
    callback(progress)(SecondLook(found.open_level, 2 * plan.first_look))
    more = _replicates(plan, range(plan.first_look, 2 * plan.first_look), engine, progress)
    return ImpResult(replace(plan, replicates=2 * plan.first_look), [*found.replicates, *more])


def _replicates(
    plan: SettledPlan, which: Sequence[int], engine: Engine, progress: Progress | bool | None
) -> list[list[Level]]:
    procedures = [level_procedure(plan, index, callback(progress)) for index in which]
    return engine.run_procedures(procedures, progress, plan.jobs)


def _unless_all_diverged(result: ImpResult) -> ImpResult:
    """Raise `DivergedError` if no replicate has a dense network to compare with."""
    if all(levels[0].diverged for levels in result.replicates):
        raise DivergedError(result.replicates[0][0].diverged)
    return result
