"""`train`: one run by keyword, for those who want a run and not a list of jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.weights import clone
from lotto.execution.engine import Engine, Progress
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.pruning.masks import Mask, MaskLike
from lotto.pruning.ticket import Ticket
from lotto.recipe.recipe import Recipe
from lotto.training.dynamic_sparsity import DynamicSparsity
from lotto.training.job import Job, Run, State


@checked
def train(
    recipe: Recipe,
    init_seed: int = 0,
    order_seed: int | None = None,
    mask: MaskLike | None = None,
    start: State | Ticket | Mapping[str, Tensor] | None = None,
    from_step: str | int = "0it",
    keep: Sequence[str | int] = (),
    *,
    to_step: str | int | None = None,
    sparsity: DynamicSparsity | None = None,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> Run:
    """Train one network, or remember that it has been trained.

    Args:
        recipe: what is trained and how.
        init_seed: initialisation; used when ``start`` is None.
        order_seed: data order and augmentation; default that of the ticket's own training, or 0.
        mask: weights that stay 0; None = dense.
        start: weights (or a `State`, which restores the optimizer too) at ``from_step``. A `Ticket` brings its own
            mask and step.
        from_step: where training begins: the schedule and the data order go on from there.
        keep: steps whose weights are kept, besides the last.
        to_step: where training ends; default the recipe's end.
        sparsity: how the mask changes along the training; default: it holds still.
        engine: how it is run; default in this process.
        store: where runs are remembered; default ``LOTTO_STORE``, or the user's cache. An engine has its own.
        device: where it is computed; default the recipe's.
        progress: called with engine events; default: how far it is, on a terminal or in a notebook; False: not shown.

    Returns:
        The run: ``weights``, ``at(step)``, ``test_error``, ``history``.

    >>> run = train(recipe, keep=["10it"])
    >>> again = train(recipe, start=run.at(10), from_step="10it", mask=lotto.pruning.masks.ones(recipe))
    >>> again.steps
    (10, 40)
    """
    at = recipe.step(from_step)
    if isinstance(start, Ticket):
        mask = start.mask if mask is None else mask
        at = at or start.rewind_step
        order_seed = start.info.get("order_seed", 0) if order_seed is None else order_seed
        start = State(clone(start.start))
    elif start is not None and not isinstance(start, State):
        start = State(clone(start))
    job = Job(
        recipe,
        init_seed,
        order_seed or 0,
        start,
        None if mask is None else Mask(clone(mask)),
        at,
        None if to_step is None else recipe.step(to_step),
        tuple(recipe.step(k) for k in keep),
        label=recipe.name,
        sparsity=sparsity,
    )
    run: Run = outcome_of(job, engine, store, device, progress)
    return run
