"""A trained ticket as a file that runs without lotto, and how much smaller and faster it is."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.jit import can_compile
from lotto.core.pytree import flatten
from lotto.data import load as load_data
from lotto.data.batch import call, mapped
from lotto.data.batch import examples as some
from lotto.inference.compaction import compact
from lotto.inference.convolutions import NetworkByKernels, sparse_convolutions
from lotto.inference.rows import sparse_rows
from lotto.recipe.recipe import Recipe
from lotto.training.batch_size import BATCH
from lotto.training.evaluation import Tally

TRAINED, FORMAT = "trained.safetensors", "lotto.trained"
BATCHES = (1, 128)
"""Batch sizes that are timed."""
TURNS = 15
BY_KERNELS = "sparse convolutions"
"""The pruned network by kernels of ours, which need lotto and numba: no program of torch."""


@dataclass(frozen=True)
class Variant:
    """One way to run a trained network.

    Attributes:
        name: ``pruned``, ``compact``, ``compact, compressed rows`` or ``sparse convolutions``.
        kilobytes: memory of its parameters and buffers, indices included.
        error: test error, in the recipe's unit.
        difference: largest difference of an output from the pruned network's.
        milliseconds: by batch size, median of interleaved turns.
    """

    name: str
    kilobytes: float
    error: float
    difference: float
    milliseconds: Mapping[int, float]


def save_trained(path: Path, weights: Mapping[str, Tensor], recipe: Recipe, about: Mapping[str, str]) -> None:
    """Write the weights of a trained network beside what is needed to build it."""
    description = recipe.describe()
    names = {"model": str(description["model"]), "data": str(description["data"])}
    files.save_tensors(path, weights, {"format": FORMAT, "version": "1", **names, **about})


@checked
def load_trained(path: Path, load: Callable[[str], object] = load_data) -> tuple[Recipe, nn.Module, dict[str, str]]:
    """A recipe that knows model and data, the trained network, and the file's other notes.

    Args:
        path: a result folder, its ``ticket.safetensors``, or ``trained.safetensors`` itself.
        load: gets the data set by name, which the network's shapes depend on.

    Raises:
        UsageError: if there is no such file or its model has no name here.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / TRAINED).exists():
        raise UsageError(f"There is no {TRAINED} in {folder}; `lotto imp` writes it beside the ticket.")
    weights, about = files.load_tensors(folder / TRAINED, FORMAT)
    try:
        with files.reading(folder / TRAINED):
            about = {"model": about["model"], "data": about["data"], "density": about["density"], **about}
        load(about["data"])
        recipe = Recipe(about["model"], about["data"])
        module = recipe.build()
    except UsageError as error:
        raise UsageError(
            f"{about['model']!r} on {about['data']!r} cannot be built from its name ({error}) In Python: "
            "lotto.inference.compact(model, example)."
        ) from error
    with files.reading(folder / TRAINED):
        module.load_state_dict(weights)
    return recipe, module.eval(), about


def variants(recipe: Recipe, module: nn.Module) -> tuple[dict[str, nn.Module], list[Variant]]:
    """The pruned network and its smaller forms, measured on the test set and in turns against each other.

    There are none of a network whose inputs are several tensors.
    """
    x = _examples(recipe, max(BATCHES))
    made: dict[str, nn.Module] = {"pruned": module}
    if isinstance(x, Tensor):
        made["compact"] = compact(module, x[:2])
        compressed = sparse_rows(made["compact"])
        if any(p.layout == torch.sparse_csr for p in compressed.buffers()):
            made["compact, compressed rows"] = compressed
        if can_compile() and recipe.precision == "float32":
            by_kernels = sparse_convolutions(module, example=x)
            if isinstance(by_kernels, NetworkByKernels):
                made[BY_KERNELS] = by_kernels
    with torch.no_grad():
        seconds = {batch: _interleaved(made, some(x, 0, batch)) for batch in BATCHES}
        measured = [_measured(recipe, name, made, seconds) for name in made]
    return made, measured


def _measured(
    recipe: Recipe, name: str, made: Mapping[str, nn.Module], seconds: Mapping[int, Mapping[str, float]]
) -> Variant:
    difference, tally = 0.0, Tally(recipe)
    for x, y in recipe.arrays.evaluation("test", BATCH):
        outputs = call(made[name], x)
        tally.add(outputs, y)
        pairs = zip(flatten(outputs), flatten(call(made["pruned"], x)), strict=True)
        difference = max([difference, *(float((a - b).abs().max()) for a, b in pairs if isinstance(a, Tensor))])
    tensors = [*made[name].parameters(), *made[name].buffers()]
    times = {batch: 1000 * found[name] for batch, found in seconds.items()}
    return Variant(name, sum(map(_bytes, tensors)) / 1000, tally.metrics().error, difference, times)


def _bytes(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_csr:
        return sum(part.nbytes for part in (tensor.crow_indices(), tensor.col_indices(), tensor.values()))
    return tensor.nbytes


def _interleaved(made: Mapping[str, nn.Module], x: Any) -> dict[str, float]:
    """Seconds of a call, median over turns; each turn calls every network often enough to last a few milliseconds."""
    calls = {}
    for name, module in made.items():
        began = time.perf_counter()
        for _ in range(3):
            call(module, x)
        calls[name] = max(1, math.ceil(0.005 / max(1e-7, (time.perf_counter() - began) / 3)))
    found: dict[str, list[float]] = {name: [] for name in made}
    names = list(made)
    for turn in range(TURNS):
        at = turn % len(names)  # no network always comes after the same neighbour
        for name in names[at:] + names[:at]:
            began = time.perf_counter()
            for _ in range(calls[name]):
                call(made[name], x)
            found[name].append((time.perf_counter() - began) / calls[name])
    return {name: statistics.median(times) for name, times in found.items()}


@checked
def save_program(module: nn.Module, recipe: Recipe, path: Path) -> Path:
    """Write a network as a program of `torch.export` for batches of any size; it runs with torch only.

    Raises:
        UsageError: if the network cannot be exported.
    """
    x, batch = _examples(recipe, 2), torch.export.Dim("batch")
    named = dict(x) if isinstance(x, Mapping) else {}
    inputs = () if named else tuple(x) if isinstance(x, tuple | list) else (x,)
    shapes = mapped(named or inputs, lambda leaf: {0: batch} if leaf.dim() else None)
    try:
        program = torch.export.export(module, inputs, named, dynamic_shapes=shapes)
    except Exception as error:  # whatever the compiler does not understand
        raise UsageError(f"torch.export cannot export this network: {str(error).splitlines()[0]}") from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    files.write_bytes(path, buffer.getvalue())
    return path


def _examples(recipe: Recipe, count: int) -> Any:
    x, _ = next(iter(recipe.arrays.evaluation("test", count)))
    return some(x, 0, count)
