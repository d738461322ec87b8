"""Networks as programs of `torch.export`, compared with the network before they are handed over."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.data.batch import mapped
from lotto.inference.checks import check_batches, first_line, resized
from lotto.recipe.recipe import Recipe

SIZES = (1, 2, 5)
"""Batches for which a program's outputs are compared."""


def exported(module: nn.Module, inputs: Any) -> torch.export.ExportedProgram:
    """What `torch.export` traces, for batches of any size.

    Args:
        module: in evaluation mode.
        inputs: a batch, see `lotto.data.Batch`.

    Raises:
        UsageError: if it cannot.
    """
    inputs = resized(inputs, 2)  # of one example the compiler would make a program for one
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    given = () if named else tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    batch = torch.export.Dim("batch")
    shapes = mapped(named or given, lambda leaf: {0: batch} if leaf.dim() else None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's about its own parts
            return torch.export.export(module, given, named, dynamic_shapes=shapes)
    except Exception as error:  # whatever the compiler does not understand
        raise UsageError(f"torch.export cannot export this network: {first_line(error)}.") from error


@checked
def program_of(module: nn.Module, recipe: Recipe) -> bytes:
    """A network as a program for batches of any size: the bytes of its file.

    What these bytes compute has been compared with the network on examples of the test set.

    Raises:
        UsageError: if the network cannot be exported, or the program's outputs differ.
    """
    x = examples_of(recipe, max(SIZES))
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        program = exported(module, x)
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
        check_batches(module, loaded, x, "a program", SIZES)
    return buffer.getvalue()


def save_program(module: nn.Module, recipe: Recipe, path: Path) -> Path:
    """Write a network as a program of `torch.export`; see `program_of`.

    Raises:
        UsageError: see there.
    """
    files.write_bytes(path, program_of(module, recipe))
    return path


def examples_of(recipe: Recipe, count: int) -> Any:
    """So many inputs of the test set, the first ones again where it has fewer."""
    x, _ = next(iter(recipe.arrays.evaluation("test", count)))
    return resized(x, count)
