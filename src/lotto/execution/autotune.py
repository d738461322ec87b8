"""How many networks to stack: measured on a few steps, once for a machine and a recipe."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lotto.core import fingerprint
from lotto.core.errors import UsageError
from lotto.core.rng import private_rng
from lotto.core.shown import shown
from lotto.execution.compute import get_or_compute
from lotto.execution.store import Store
from lotto.execution.task import Outcome, Task
from lotto.execution.threads import limited_threads
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.learners.base import Learner
from lotto.training.loop import learner_of
from lotto.training.network import device_of, flushed_denormals

WIDTH = 8
"""Jobs in a stack where measuring says that stacking is faster."""
GAIN = 1.1
"""How many times quicker a stack must be to be chosen: less is within the noise."""
STEPS, TURNS = 8, 3
"""Steps that are timed, after as many that are not; the best of so many turns counts."""


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
    label: str = "single or stacked"

    kind = "pace"

    @property
    def size(self) -> int:
        return 1

    @cached_property
    def description(self) -> dict[str, Any]:
        """The recipe, and the machine, whose pace it is."""
        device = device_of(self.recipe)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        machine = [platform.node(), platform.machine(), str(device), name]
        how = {"task": self.kind, "width": self.width, "threads": self.threads, "machine": machine}
        return fingerprint.canonical({**how, "recipe": self.recipe.fingerprint()})

    def execute(self, on_step: Callable[[int, float], None] | None = None) -> Outcome:
        """``alone`` and ``stacked``: seconds per step and network; ``stacked`` is None where it is impossible."""
        jobs, device = [Job(self.recipe, i, i) for i in range(self.width)], device_of(self.recipe)
        with limited_threads(self.threads), flushed_denormals(), private_rng():
            one = _best(steps_of(learner_of(jobs[:1])), device)
            try:
                each = _best(steps_of(learner_of(jobs)), device) / self.width
            except UsageError as error:
                return {"alone": one, "stacked": None, "reason": str(error)}
        return {"alone": one, "stacked": each, "reason": ""}

    __repr__ = shown


def measured_width(recipe: Recipe, store: Store, threads: int) -> tuple[int, str]:
    """How many networks to stack, and a sentence that says why; measured once for a machine and a recipe."""
    found, _ = get_or_compute(store, PaceTask(recipe, threads=threads))
    if found["stacked"] is None:
        return 1, found["reason"]
    ratio = found["alone"] / found["stacked"]
    times = f"a step takes {1e3 * found['alone']:.3g} ms alone, {1e3 * found['stacked']:.3g} ms in a stack of {WIDTH}"
    if ratio < GAIN:
        return 1, f"One network at a time: {times}."
    return WIDTH, f"Stacks of {WIDTH}, {ratio:.1f} times as quick: {times}. Stacked runs equal others up to rounding."


def measured_step(recipe: Recipe, threads: int) -> float:
    """Seconds per step of one dense network, on this machine, now."""
    with limited_threads(threads), flushed_denormals(), private_rng():
        return _best(steps_of(learner_of([Job(recipe)])), device_of(recipe))


def steps_of(learner: Learner) -> Callable[[int], None]:
    """A function that takes so many training steps, with nothing around them."""

    def steps(count: int) -> None:
        for step, batch in enumerate(learner.batches(0, count)):
            learner.train_step(batch, step)

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
