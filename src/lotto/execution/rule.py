"""One rule for all that computes: where it runs, what remembers it, on which device.

`lotto.train`, `lotto.imp`, the measures of stability, paths, planes and curvature take the same keywords, and what they
compute is remembered: the same call again, in whichever process, computes nothing and gives the same bits.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from lotto.core.errors import UsageError
from lotto.execution.engine import Engine
from lotto.execution.events import JobAdvanced, Progress
from lotto.execution.factory import make
from lotto.execution.progress import callback
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
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
    task: Task,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
    on_step: OnStep | None = None,
) -> Any:
    """What a task gives, computed or remembered; ``on_step`` is called as it advances, with (step, loss)."""
    return chosen_engine(task.recipe, engine, store).run([task], stepping(progress, on_step))[0]


def stepping(progress: Progress | bool | None, on_step: OnStep | None) -> Progress | bool | None:
    """``progress``, and ``on_step`` for those events that are steps."""
    if on_step is None:
        return progress

    def both(event: object) -> None:
        if isinstance(event, JobAdvanced):
            on_step(event.step, event.loss)
        callback(progress)(event)

    return both
