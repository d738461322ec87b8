"""What happens to a training's state at a step at which its mask changes.

Between two such steps a training is a masked training like any other, so that every learner does what it always does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lotto.core.errors import DivergedError, UsageError
from lotto.core.ranks import ALONE, Ranks
from lotto.core.rng import private_rng, torch_seed
from lotto.core.weights import first_non_finite
from lotto.pruning import masks
from lotto.pruning.dynamic import exchange_counts, random_growth, thinned
from lotto.pruning.masks import Mask, cover_shared, shared_names
from lotto.training.job import Job, State
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.distributed import Distributed
from lotto.training.mask_entries import EXPLORED, mask_entries, masked, of_mask, without_mask
from lotto.training.network import Network, with_weights


def check_ranks(jobs: Sequence[Job], ranks: Ranks) -> None:
    """Raise ``UsageError`` if several processes would have to change one mask."""
    if ranks.size > 1 and any(job.sparsity is not None for job in jobs):
        raise UsageError(
            f"A mask that changes is changed by one process; {jobs[0].recipe.name} has {ranks.size} ranks. Start it "
            "without torchrun, or with --nproc-per-node 1."
        )


def update_steps(job: Job) -> list[int]:
    """Steps of a job before which its mask changes."""
    if job.sparsity is None:
        return []
    return [step for step in job.sparsity.updates(job.recipe).steps if job.from_step <= step < job.end]


def at_step(job: Job, state: State, step: int, network: Network | None = None) -> tuple[Job, State]:
    """A job as it is trained from a step on: with one mask, and the state changed if the mask changes here.

    Args:
        job: whose mask may change.
        state: after ``step`` steps.
        step: the next one.
        network: one of the recipe that may be used for RigL's gradients; None = one is built.

    Returns:
        The job with the mask that it has until the next update, and its state.

    Raises:
        DivergedError: if weights or gradients are not finite.
    """
    if job.sparsity is None:
        return job, state
    found = of_mask(state.optimizer)
    assert found is not None
    mask = Mask(found)
    if step in update_steps(job):
        mask = _updated(job, mask, state, step, network)
        state = _changed(job, mask, state)
    return replace(job, mask=mask), state


def _changed(job: Job, mask: Mask, state: State) -> State:
    """A state with another mask: what is pruned now is 0, and so is what is remembered of it."""
    full = cover_shared(mask, job.recipe.meta_model())
    entries = mask_entries(mask, of_mask(state.optimizer, EXPLORED))
    return State(masks.apply(state.weights, full), {**masked(without_mask(state.optimizer), full), **entries})


def _updated(job: Job, mask: Mask, state: State, step: int, network: Network | None) -> Mask:
    """The mask after the update at a step."""
    sparsity = job.sparsity
    assert sparsity is not None
    progress = sparsity.updates(job.recipe).progress(step)
    weights = {name: state.weights[name] for name in mask}
    _check_finite(job, weights, step, "weights")
    pattern = sparsity.changing
    if not sparsity.exchanges:
        density = pattern.possible(sparsity.density_at(progress))
        return thinned(weights, mask, density, sparsity.allocation, pattern.keep)
    fraction = sparsity.fraction_at(progress)
    if not any(exchange_counts(mask, fraction).values()):
        return mask
    if sparsity.kind == "set":
        growth: Mapping[str, Tensor] = random_growth(mask, job.order_seed, step)
    else:
        growth = {name: g.abs() for name, g in dense_gradients(job, mask, state, step, network).items()}
    return pattern.exchange(weights, mask, fraction, growth)


def dense_gradients(
    job: Job, mask: Mapping[str, Tensor], state: State, step: int, network: Network | None = None
) -> dict[str, Tensor]:
    """Gradients of a step's batch with respect to all weights of a mask's layers, those that are pruned too.

    Args:
        job: what is trained.
        mask: says of which layers.
        state: its weights, pruned ones 0.
        step: whose batch, and what is drawn in it.
        network: see `at_step`; it is left with gradients and with the statistics of this batch.

    Returns:
        Tensors in the shape of the weights, on the CPU; 0 for a weight that has no part in the loss.

    Raises:
        DivergedError: if they are not finite.
    """
    dense, now = replace(job, sparsity=None, mask=None), State(state.weights)
    network = with_weights(job.recipe, state.weights, network)
    names = {n: next(iter(g)) for g in shared_names(network.module) for n in g}
    grouped = Distributed.is_needed(job.recipe, ALONE)
    learner = Distributed([dense], network, [now], ALONE) if grouped else Autograd([dense], network, [now])
    with private_rng(torch_seed(job.order_seed, "step", step)):  # as the step itself begins, see `Draws`
        gradients = learner.gradients(next(iter(learner.batches(step, step + 1))), step)
    found = {n: gradients.get(names.get(n, n), torch.zeros_like(state.weights[n])) for n in mask}
    _check_finite(job, found, step, "gradients")
    return found


def _check_finite(job: Job, tensors: Mapping[str, Tensor], step: int, what: str) -> None:
    if (bad := first_non_finite(tensors)) is not None:
        raise DivergedError(
            f"The {what} of {bad!r} of {job.label or job.recipe.name} are not finite at step {step}, where its mask "
            "is to change. Try a lower learning rate, a warm-up, or float32.",
            step,
        )
