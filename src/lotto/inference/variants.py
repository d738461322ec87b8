"""Ways to run a trained network, measured against each other."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.pytree import flatten
from lotto.data.batch import call, count, mapped
from lotto.data.batch import examples as some
from lotto.inference.compaction import compact
from lotto.inference.kept_weights import is_sparse, sparse_network
from lotto.inference.programs import examples_of
from lotto.inference.timing import interleaved
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import Tally

BATCHES = (1, 64)
"""Batch sizes that are timed."""
AT_ONCE = 128
"""Test examples: of more the activations of an image network are new pages of memory at every layer."""
DENSE, COMPACT, SPARSE = "dense", "compact", "sparse"


@dataclass(frozen=True)
class Variant:
    """One way to run a trained network.

    Attributes:
        name: ``dense``: every weight, pruned ones are zeros, as quick as before pruning; ``compact``: without units
            that are cut off; ``sparse``: that one's kept weights only.
        kilobytes: memory of its parameters and buffers, indices included; None where another runtime holds them.
        error: test error, in the recipe's unit.
        difference: largest difference of an output from the dense network's.
        milliseconds: by batch size, median of interleaved turns.
        file_kilobytes: of its program; None = there is none.
        error_bfloat16: test error of the whole network in bfloat16; None = it does not run in it.
        milliseconds_bfloat16: by batch size.
    """

    name: str
    kilobytes: float | None
    error: float
    difference: float
    milliseconds: Mapping[int, float]
    file_kilobytes: float | None = None
    error_bfloat16: float | None = None
    milliseconds_bfloat16: Mapping[int, float] = field(default_factory=dict)


def forms(recipe: Recipe, module: nn.Module) -> dict[str, nn.Module]:
    """The dense network and, if its inputs are one tensor, its smaller forms; a sparse one if few weights are left."""
    x = examples_of(recipe, 2)
    made: dict[str, nn.Module] = {DENSE: module}
    if isinstance(x, Tensor):
        made[COMPACT] = compact(module, x)
        sparse = sparse_network(made[COMPACT], x)
        if is_sparse(sparse):
            made[SPARSE] = sparse
    return made


def variants(
    recipe: Recipe,
    made: Mapping[str, nn.Module],
    sizes: Mapping[str, int] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Variant]:
    """Forms of a network, measured on the test set and in turns against each other.

    Args:
        recipe: knows the data.
        made: see `forms`.
        sizes: of their programs, in bytes.
        progress: is given what is being measured.
    """
    x = examples_of(recipe, max(BATCHES))
    with torch.no_grad():
        copies = {name: in_bfloat16(made[name], some(x, 0, 2)) for name in made if name in (DENSE, COMPACT)}
        halved = {name: module for name, module in copies.items() if module is not None}
        seconds = {}
        for batch in BATCHES:
            progress(f"Timing batches of {batch}")
            inputs = some(x, 0, batch)
            calls = {(name, False): calling(module, inputs) for name, module in made.items()}
            calls |= {(name, True): calling(module, halved_inputs(inputs)) for name, module in halved.items()}
            seconds[batch] = {
                key: statistics.median(turns) for key, turns in interleaved(calls, torch.get_num_threads()).items()
            }
        errors, differences = _compared(recipe, made, halved, progress)
    found = []
    for name, module in made.items():
        whole, low = (
            {batch: 1000 * taken[name, how] for batch, taken in seconds.items() if (name, how) in taken}
            for how in (False, True)
        )
        held = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())) / 1000
        kilobytes = held if name in (DENSE, COMPACT, SPARSE) else None
        size, half = (sizes or {}).get(name), errors.get((name, True))
        on_disk = None if size is None else size / 1000
        found.append(Variant(name, kilobytes, errors[name, False], differences[name], whole, on_disk, half, low))
    return found


def in_bfloat16(module: nn.Module, x: Any) -> nn.Module | None:
    """A copy with all its numbers in bfloat16; None if that cannot compute examples."""
    made = copy.deepcopy(module).bfloat16()
    try:
        call(made, halved_inputs(x))
    except Exception:  # whatever a forward may raise
        return None
    return made


def halved_inputs(inputs: Any) -> Any:
    """Inputs with their floating numbers in bfloat16."""
    return mapped(inputs, lambda leaf: leaf.bfloat16() if leaf.is_floating_point() else leaf)


def calling(module: nn.Module, x: Any) -> Callable[[], Any]:
    """A call that can be timed."""
    return lambda: call(module, x)


def _compared(
    recipe: Recipe, made: Mapping[str, nn.Module], halved: Mapping[str, nn.Module], progress: Callable[[str], None]
) -> tuple[dict[tuple[str, bool], float], dict[str, float]]:
    """Test errors by name and whether in bfloat16; the largest differences of an output from the dense network's."""
    tallies = {(name, low): Tally(recipe) for low, forms_ in ((False, made), (True, halved)) for name in forms_}
    differences, seen = dict.fromkeys(made, 0.0), 0
    for x, y in recipe.arrays.evaluation("test", AT_ONCE):
        progress(f"Test errors: {seen:,} examples")
        dense = call(made[DENSE], x)
        for name, module in made.items():
            outputs = dense if name == DENSE else call(module, x)
            tallies[name, False].add(outputs, y)
            pairs = zip(flatten(outputs), flatten(dense), strict=True)
            largest = [float((a - b).abs().max()) for a, b in pairs if isinstance(a, Tensor)]
            differences[name] = max([differences[name], *largest])
        for name, module in halved.items():
            tallies[name, True].add(mapped(call(module, halved_inputs(x)), lambda leaf: leaf.float()), y)
        seen += count(x)
    return {key: tally.metrics().error for key, tally in tallies.items()}, differences
