"""Train by a loop of the user's own: one job, from its start to whatever end the loop has."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from typing import Any

from lotto.core.errors import DivergedError, UsageError, text
from lotto.core.rng import private_rng, torch_seed
from lotto.core.weights import clone, first_non_finite
from lotto.pruning import masks
from lotto.recipe.own_loop import OwnLoop
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run, State
from lotto.training.network import Network, constant_buffers
from lotto.training.own_batches import check_functions, numbers
from lotto.training.sparse_loop import SparseLoop, sparse

REPORT_SECONDS = 0.2
"""Between two reports of where the loop is."""
NEEDS = ("start_step", "seed")


def check_fit(loop: OwnLoop) -> None:
    """Raise ``UsageError`` unless the loop can be called as it will be."""
    try:
        inspect.signature(loop.fit).bind(None, **dict.fromkeys(NEEDS, 0))
    except TypeError as error:
        raise UsageError(
            f"fit is called as fit(model, start_step=..., seed=...); this one cannot be: {error}."
        ) from error
    except ValueError:  # a builtin without a signature: it will tell
        pass
    check_functions(loop)


def train_own(job: Job, on_step: Callable[[int, float], None] | None = None) -> Run:
    """The run of a job whose recipe has a loop.

    Global generators are seeded by the job's data order before the loop and are as they were after it.

    Raises:
        UsageError: if the loop ends before a step that is to be kept, takes no step, or returns no error.
        DivergedError: if weights or the error end as NaN or infinity.
    """
    recipe, loop, began = job.recipe, job.recipe.loop, time.perf_counter()
    assert loop is not None
    network = Network(recipe, job.initial_state().weights)
    module = network.module.train()
    mask = masks.ones(recipe) if job.mask is None else job.mask
    wanted = [step for step in job.steps if step != recipe.total]
    with private_rng(torch_seed(job.order_seed, "own loop")):
        with sparse(module, mask, keep=wanted, start_step=job.from_step) as seen:
            seen.on_step = _reporter(on_step)
            metrics = loop.fit(module, start_step=job.from_step, seed=job.order_seed)
        found = _checked(recipe, seen, metrics, wanted, job.from_step)
    states = {step: State(weights) for step, weights in seen.kept.items()}
    if recipe.total in job.steps:
        states[recipe.total] = State(clone(module.state_dict()))
    bad = [n for s in states.values() if (n := first_non_finite(s.weights, constant_buffers(module))) is not None]
    if bad or not math.isfinite(found["error"]):
        what = f"weights {bad[0]!r} are" if bad else "error is"
        raise DivergedError(
            f"The {what} not finite after the loop of {job.label or recipe.name}, at step {seen.steps}.", seen.steps
        )
    own = {f"test_{name}": value for name, value in found.items()}
    record = {"step": seen.steps, "learning_rate": math.nan, "train_loss": math.nan, "test_loss": math.nan, **own}
    seconds = time.perf_counter() - began
    return Run((job.from_step, job.end), [record], states, seconds=seconds, arithmetic="a loop of your own")


def _reporter(on_step: Callable[[int, float], None] | None) -> Callable[[int], None]:
    last = [0.0]

    def report(step: int) -> None:
        if on_step is not None and time.monotonic() - last[0] > REPORT_SECONDS:
            last[0] = time.monotonic()
            on_step(step, math.nan)

    return report


def _checked(recipe: Recipe, seen: SparseLoop, metrics: Any, wanted: list[int], first: int) -> dict[str, float]:
    """The metrics that the loop returned, after a look at what it did."""
    if seen.steps == first:
        raise UsageError(
            f"The loop of {recipe.name} took no step with a torch.optim optimizer of the model that it was given: it "
            "trains that module in place, not a copy."
        )
    if missed := [step for step in wanted if step not in seen.kept]:
        raise UsageError(
            f"The loop of {recipe.name} ended after {seen.steps} steps of its optimizer; step {missed[0]}, which is to "
            "be kept, never came. Rewind to an earlier one."
        )
    if "error" not in (found := numbers(metrics)):
        raise UsageError(
            "fit returns its metrics, numbers by name with 'error' among them (smaller is better), such as "
            f"{{'error': 100 * (1 - accuracy)}}; this one returned {text(metrics)}."
        )
    return found
