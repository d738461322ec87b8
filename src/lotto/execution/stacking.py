"""Which jobs train together in a stack, and how many it should be: measured on a few steps."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from lotto.core import fingerprint
from lotto.core.errors import UsageError
from lotto.core.rng import private_torch_rng
from lotto.execution.store import Store, Work
from lotto.execution.task import Outcome, Task
from lotto.execution.threads import limited_threads
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run
from lotto.training.learners.stacked import Stacked
from lotto.training.loop import Learner, learner_of
from lotto.training.network import Network, device_of, flushed_denormals

Found = Run | Outcome
"""The run of a job, or the outcome of a task."""
WIDTH = 8
"""Jobs in a stack where measuring says that stacking pays."""
GAIN = 1.1
"""How many times quicker a stack must be to be chosen: less is within the noise."""
STEPS, TURNS = 8, 3
"""Steps that are timed, after as many that are not; the best of so many turns counts."""


def companies(jobs: Sequence[Work], most: int) -> list[list[Work]]:
    """Jobs that can train together, at most ``most`` in each list: one recipe, different trainings; tasks are alone."""
    found: list[list[Work]] = []
    for job in jobs:
        for company in found:
            if len(company) < most and _join(job, company):
                company.append(job)
                break
        else:
            found.append([job])
    return found


def obtain(
    store: Store, company: Sequence[Work], on_step: Callable[[int, int, float], None], execution: Mapping[str, Any]
) -> list[tuple[Found, bool]]:
    """What each of a company gives, and whether it had to be computed; several train together.

    Args:
        store: where runs are remembered.
        company: see `companies`.
        on_step: called with (number in the company, steps done, mean loss lately).
        execution: how it is executed, for the manifests.
    """
    jobs = [job for job in company if isinstance(job, Job)]
    if len(jobs) > 1:
        return [*store.obtain_together(jobs, on_step=on_step, execution={**execution, "stack": len(jobs)})]
    (work,) = company
    return [store.obtain(work, on_step=partial(on_step, 0), execution=execution)]


def _join(job: Work, company: Sequence[Work]) -> bool:
    if isinstance(job, Task) or isinstance(company[0], Task):
        return False
    if job.recipe != company[0].recipe:
        return False
    return job.key is None or all(job.key != other.key for other in company)


@dataclass(frozen=True, eq=False)
class PaceTask(Task):
    """How long a step takes alone and in a stack, on this machine.

    Attributes:
        recipe: what is trained; dense networks are timed.
        width: networks in the stack.
        threads: of the training.
        label: what progress displays call it.
    """

    recipe: Recipe
    width: int = WIDTH
    threads: int = 1
    label: str = "alone or stacked"

    @property
    def size(self) -> int:
        """See `Task`."""
        return 1

    @cached_property
    def description(self) -> dict[str, Any]:
        """The recipe, and the machine, whose pace it is."""
        device = device_of(self.recipe)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        machine = [platform.node(), platform.machine(), str(device), name]
        how = {"task": "pace", "width": self.width, "threads": self.threads, "machine": machine}
        return fingerprint.canonical({**how, "recipe": self.recipe.identity})

    def execute(self, on_step: Callable[[int, float], None] | None = None) -> Outcome:
        """``alone`` and ``stacked``: seconds per step and network; ``stacked`` is None where it is impossible."""
        jobs, device = [Job(self.recipe, i, i) for i in range(self.width)], device_of(self.recipe)
        with limited_threads(self.threads), flushed_denormals(), private_torch_rng():
            one = _best(alone(jobs[0]), device)
            try:
                each = _best(in_a_stack(jobs), device) / self.width
            except UsageError as error:
                return {"alone": one, "stacked": None, "reason": str(error)}
        return {"alone": one, "stacked": each, "reason": ""}


def measured_width(recipe: Recipe, store: Store, threads: int) -> tuple[int, str]:
    """How many networks to stack, and a sentence that says why; measured once for a machine and a recipe."""
    found, _ = store.obtain(PaceTask(recipe, threads=threads))
    if found["stacked"] is None:
        return 1, found["reason"]
    ratio = found["alone"] / found["stacked"]
    times = f"a step takes {1e3 * found['alone']:.3g} ms alone, {1e3 * found['stacked']:.3g} ms in a stack of {WIDTH}"
    if ratio < GAIN:
        return 1, f"One network at a time: {times}."
    return WIDTH, f"Stacks of {WIDTH}, {ratio:.1f} times as quick: {times}. Stacked runs equal others up to rounding."


def alone(job: Job, learner: Learner | None = None) -> Callable[[int], None]:
    """A function that takes so many training steps of one network, with the learner that the loop would choose."""
    recipe = job.recipe
    learner = learner or learner_of(job, Network(recipe, job.initial_state().weights))
    device = learner.network.device

    def steps(count: int) -> None:
        batches = recipe.arrays.to(device).batches(
            job.order_seed, 0, count, recipe.batch_size, recipe.augment, learner.by_feature
        )
        for step, (x, y) in enumerate(batches):
            learner.train(x, y, step, recipe.learning_rate(step))

    return steps


def in_a_stack(jobs: Sequence[Job]) -> Callable[[int], None]:
    """The same of several networks at once."""
    stack = Stacked(jobs, [job.initial_state() for job in jobs])

    def steps(count: int) -> None:
        for step, (x, y) in enumerate(stack.batches(0, count)):
            stack.train(x, y, jobs[0].recipe.learning_rate(step))

    return steps


def _best(steps: Callable[[int], None], device: torch.device) -> float:
    """Seconds per step."""
    best = float("inf")
    for turn in range(TURNS + 1):
        began = time.perf_counter()
        steps(STEPS)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            best = min(best, time.perf_counter() - began)
    return best / STEPS
