"""One rule for all that computes: where it runs, what remembers it, on which device.

`lotto.train`, `lotto.imp`, the measures of stability, paths, planes and curvature take the same keywords, and what they
compute is remembered: the same call again, in whichever process, computes nothing and gives the same bits. Without an
engine, what is one computation runs in this process, what is many trainings over as many as ``jobs`` says. An analysis
is a task, which `outcome_of` computes, or a procedure, which `result_of` carries out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lotto.core.errors import UsageError
from lotto.execution.engine import Engine
from lotto.execution.events import JobAdvanced, Progress
from lotto.execution.factory import make
from lotto.execution.procedures import Procedure, T
from lotto.execution.progress import callback
from lotto.execution.store import Store, WorkItem
from lotto.execution.task import OnStep
from lotto.recipe.recipe import Recipe


def on_device(recipe: Recipe, device: str | torch.device | None) -> Recipe:
    """The recipe on a device; None = on its own. The device has no part in any key."""
    return recipe if device is None or str(device) == recipe.device else recipe.replace(device=str(device))


def chosen_engine(
    recipe: Recipe,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    jobs: int | str = 1,
) -> Engine:
    """The engine that is given, or one made for the recipe's device with the given store or the user's.

    Args:
        recipe: what is computed.
        engine: how; it has a store of its own.
        store: where it is remembered; default ``LOTTO_STORE``, or the user's cache.
        jobs: worker processes, see `lotto.engine.make`; a single computation needs none.

    Raises:
        UsageError: if an engine and another store are given.
    """
    place = store if store is None or isinstance(store, Store) else Store(os.fspath(store))
    if engine is None:
        return make(jobs, place, device=recipe.device)
    if place is not None and place.root != engine.store.root:
        raise UsageError(
            f"An engine has a store of its own, at {engine.store.root}; got another one at {place.root}. "
            "Give engine=... or store=..., or make the engine with that store: lotto.engine.make(jobs, store)."
        )
    return engine


def outcome_of(
    item: WorkItem,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
    on_step: OnStep | None = None,
) -> Any:
    """What a job or a task gives on a device, computed or remembered.

    Args:
        item: what is computed; the device has no part in its key.
        engine, store, device, progress: as of `lotto.train`.
        on_step: called as it advances, with (step, loss).
    """
    recipe = on_device(item.recipe, device)
    there = item if recipe is item.recipe else replace(item, recipe=recipe)  # type: ignore[type-var]
    return chosen_engine(recipe, engine, store).run([there], stepping(progress, on_step))[0]


def result_of(
    procedure: Callable[[Recipe], Procedure[T]],
    recipe: Recipe,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
    jobs: int | str = "auto",
) -> T:
    """What a procedure returns on a device; its jobs are computed or remembered.

    Args:
        procedure: from the recipe on its device to the procedure.
        recipe: what is trained.
        engine, store, device, progress, jobs: as of `lotto.imp`.
    """
    recipe = on_device(recipe, device)
    return chosen_engine(recipe, engine, store, jobs).run_procedures([procedure(recipe)], progress)[0]


def stepping(progress: Progress | bool | None, on_step: OnStep | None) -> Progress | bool | None:
    """``progress``, and ``on_step`` for those events that are steps."""
    if on_step is None:
        return progress

    def both(event: object) -> None:
        if isinstance(event, JobAdvanced):
            on_step(event.step, event.loss)
        callback(progress)(event)

    return both
