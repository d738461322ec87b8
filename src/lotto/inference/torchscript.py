"""Networks as TorchScript, for runtimes that read nothing else: traced, frozen and compared with the network.

torch calls TorchScript deprecated in favour of `torch.export`; a program of that is what `lotto export` writes unless
it is asked for another.
"""

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
from lotto.inference.checks import check_batches, check_readable, first_line, resized


@checked
def to_torchscript(module: nn.Module, example: Any, path: str | Path) -> Path:
    """Write a network as TorchScript for ``torch.jit.load``, also that of C++ and of telephones.

    Deprecated by torch, which still reads and writes it; `torch.export` has taken its place. The file is written once
    it has been loaded and its outputs are the module's, for batches of 1, 2 and as many as the example has. A sparse
    network needs lotto where it runs.

    Args:
        module: it is traced in evaluation mode, and left in the mode it was in.
        example: a batch of inputs: a tensor, a tuple of them, or a mapping by the names of forward's arguments.
        path: of the file.

    Returns:
        The path.

    Raises:
        UsageError: if the network cannot be traced, or the outputs differ, as they do where forward decides by values.

    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> to_torchscript(network, torch.ones(2, 8), "network.ts").name  # torch.jit.load(path)
    'network.ts'
    """
    files.write_bytes(Path(path), torchscript_of(module, example))
    return Path(path)


def torchscript_of(module: nn.Module, example: Any, sizes: tuple[int, ...] = ()) -> bytes:
    """The bytes of that file; see `onnx_of` for the arguments."""
    training = module.training
    try:
        check_readable(module.eval(), example)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            script = _traced(module, example)
            check_batches(module, loaded(script), example, "TorchScript", sizes)
    finally:
        module.train(training)
    return script


def loaded(script: bytes) -> nn.Module:
    """The network of such a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: nn.Module = torch.jit.load(io.BytesIO(script))
    return found


def _traced(module: nn.Module, example: Any) -> bytes:
    inputs, buffer = resized(example, 2), io.BytesIO()
    named = isinstance(inputs, Mapping)
    how = {"example_kwarg_inputs": dict(inputs)} if named else {"example_inputs": _given(inputs)}
    try:
        torch.jit.save(torch.jit.freeze(torch.jit.trace(module, check_trace=False, **how)), buffer)
    except Exception as error:  # whatever the tracer does not understand
        raise UsageError(f"torch.jit cannot trace this network: {first_line(error)}.") from error
    return buffer.getvalue()


def _given(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
