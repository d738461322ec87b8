"""Whether a network may have slices of a batch: it gives for each example what it gives within the whole batch."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.core.ranks import Ranks
from lotto.core.rng import host_state, private_rng, torch_seed
from lotto.data.batch import count, mapped
from lotto.data.batch import examples as some
from lotto.data.source import Adapted
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import mean_of
from lotto.training.learners.batch_groups import NormsOf, Slices

EXAMPLES = 4
"""For each process: enough for statistics of each slice to be others than the whole batch's."""
CLOSE = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.1}
"""Of a tensor's norm: rounding is less, another computation is more."""


def check_divides(recipe: Recipe, ranks: int) -> None:
    """Raise ``UsageError`` unless so many processes can train a recipe together."""
    if ranks == 1:
        return
    if recipe.loop is not None:
        raise UsageError(
            f"{recipe.name} is a loop of your own, which {ranks} ranks cannot divide: start it without torchrun."
        )
    if recipe.compile:
        raise UsageError(f"{ranks} ranks train without compile: leave it out, or start it without torchrun.")
    if recipe.batch_size < max(ranks, recipe.batch_groups):
        raise UsageError(too_small(recipe, recipe.batch_size, max(ranks, recipe.batch_groups)))
    if recipe.batch_groups > 1 and recipe.batch_groups % ranks:
        raise UsageError(
            f"{recipe.batch_groups} groups of a batch (batch_groups) cannot be divided among {ranks} ranks: take a "
            f"multiple of {ranks}, or 1, the whole batch."
        )


def check_devices(ranks: Ranks, device: torch.device) -> None:
    """Raise ``UsageError``, on all processes alike, if two of them would compute on one GPU."""
    if ranks.size == 1 or device.type != "cuda":
        return
    found = ranks.gathered((socket.gethostname(), str(device)))
    if doubled := next((place for place in found if found.count(place) > 1), None):
        raise UsageError(
            f"{found.count(doubled)} ranks would compute on {doubled[1]} of {doubled[0]}: start one for each GPU "
            "(--nproc-per-node), or take --device cpu."
        )


def too_small(recipe: Recipe, examples: int, parts: int) -> str:
    """What is said of a batch with fewer examples than there are to be parts of it."""
    return (
        f"A batch of {recipe.name} has {examples} example{'s' * (examples != 1)}, fewer than the {parts} parts in "
        "which it is to be computed: take a larger batch_size, or fewer ranks (--nproc-per-node) or batch_groups."
    )


def draws_for_all(recipe: Recipe, ranks: Ranks) -> str:
    """What is said of a network or a loss that draws random numbers for a slice of a batch."""
    return (
        f"{recipe.name} draws random numbers in its forward or its loss (dropout?), which one process draws for a "
        f"whole batch: say in how many groups a batch is computed, each with its own: batch_groups={ranks.size} "
        f"(--set batch_groups={ranks.size})."
    )


@torch.no_grad()
def check_slices(recipe: Recipe, outputs: Callable[[Any], Any], module: nn.Module, ranks: Ranks, draws: bool) -> None:
    """Compare the outputs and the loss of a few examples as a whole batch with those of each process's slice.

    Args:
        recipe: its data and loss.
        outputs: what the network gives for inputs.
        module: the network, in training; its statistics are put back.
        ranks: the processes.
        draws: whether it may draw random numbers.

    Raises:
        UsageError: if they differ, on all processes alike.
    """
    device = next(module.parameters()).device
    data, few = recipe.arrays.to(device), min(EXAMPLES * ranks.size, recipe.step_examples)
    x, y = next(iter(data.batches(0, 0, 1, recipe.step_examples if isinstance(data, Adapted) else few, recipe.augment)))
    size = min(few, count(y))
    x, y = (some(tree, 0, size) for tree in (x, y))
    bounds = [(i * size // ranks.size, (i + 1) * size // ranks.size) for i in range(ranks.size)]
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with private_rng(torch_seed(0, "slices")):
        state = generators(device)
        with NormsOf(Slices(ranks, bounds[ranks.rank][1] - bounds[ranks.rank][0], size)):
            own = outputs(some(x, *bounds[ranks.rank]))
            (mean_of(recipe.loss_function) or recipe.loss_function)(own, some(y, *bounds[ranks.rank]))
            drawn = draws and generators(device) != state
        if any(ranks.gathered(drawn)):
            raise UsageError(draws_for_all(recipe, ranks))
        whole = outputs(x)
    for name, buffer in module.named_buffers():
        buffer.copy_(before[name])
    found = _differs(some(whole, *bounds[ranks.rank]), own, CLOSE[_precision(recipe)])
    problem = "output" if found else "loss" if _loss_differs(recipe, whole, y, bounds) else ""
    if problem := next(filter(None, ranks.gathered(problem)), ""):
        raise UsageError(
            f"{recipe.name} has another {problem} for some examples of a batch than for these within the whole batch, "
            f"so that {ranks.size} ranks cannot compute it together: train it without torchrun, or in groups that are "
            f"computed each by itself, batch_groups={ranks.size} (--set batch_groups={ranks.size})."
        )


def _precision(recipe: Recipe) -> torch.dtype:
    return {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(recipe.precision, torch.float32)


def generators(device: torch.device) -> object:
    """The states of all global generators, for comparison."""
    own = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    return torch.get_rng_state().numpy().tobytes(), own, host_state()


def _differs(one: Any, other: Any, close: float) -> bool:
    pairs = zip(flatten(one), flatten(other), strict=True)
    floats = [(a.double(), b.double()) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point() and a.dim()]
    return any(not float((a - b).norm()) <= close * float(a.norm()) + 1e-9 for a, b in floats)


def _loss_differs(recipe: Recipe, outputs: Any, y: Any, bounds: list[tuple[int, int]]) -> bool:
    """Whether the loss of a batch is another number than the mean of those of its slices."""
    if mean_of(recipe.loss_function) is not None:
        return False
    outputs = mapped(outputs, lambda leaf: leaf.detach())

    def loss(first: int, last: int) -> float:
        return float(recipe.loss_function(some(outputs, first, last), some(y, first, last)))

    size = bounds[-1][1]
    parts = [(last - first) * loss(first, last) for first, last in bounds]
    return abs(sum(parts) / size - loss(0, size)) > 1e-3 * sum(map(abs, parts)) / size
