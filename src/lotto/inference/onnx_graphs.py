"""Networks as ONNX graphs, computed by onnxruntime and compared with the network before they are handed over."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.inference.checks import check_batches, check_readable, first_line
from lotto.inference.kept_weights import SparseNetwork
from lotto.inference.programs import exported
from lotto.inference.rows import SparseLinear

ONNX_NEEDS = "ONNX graphs need onnx, onnxscript and onnxruntime ({}): pip install 'lotto-tickets[onnx]'."


class OnnxNetwork(nn.Module):
    """An ONNX graph as onnxruntime computes it on the CPU: tensors in, tensors out.

    Args:
        graph: the bytes of a file.
        threads: of onnxruntime; 0 = as many as it likes.

    Raises:
        UsageError: if onnxruntime is not installed, or the graph reads other inputs than it is given.
    """

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        super().__init__()
        with _quiet():
            runtime = _imported("onnxruntime")
            options = runtime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, min(threads, 1)
            self.session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.size = len(graph)
        self.inputs = [it.name for it in self.session.get_inputs()]

    def forward(self, *given: Any, **named: Any) -> Any:
        """The outputs: one tensor, or a tuple of them."""
        arrays = [leaf.detach().numpy() for leaf in flatten((given, named)) if isinstance(leaf, Tensor)]
        if len(arrays) != len(self.inputs):
            raise UsageError(
                f"The graph reads {len(self.inputs)} tensors ({', '.join(self.inputs)}), the network is given "
                f"{len(arrays)}: one of them has no part in its outputs. Use the network as it is."
            )
        found = [torch.from_numpy(it) for it in self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))]
        return found[0] if len(found) == 1 else tuple(found)


@checked
def to_onnx(module: nn.Module, example: Any, path: str | Path) -> Path:
    """Write a network as an ONNX graph for batches of any size.

    The file is written once onnxruntime has computed from it what the module computes, for batches of 1, 2 and as many
    as the example has. A compact network gives a small graph.

    Args:
        module: it is exported in evaluation mode, and left in the mode it was in.
        example: a batch of inputs: a tensor, a tuple of them, or a mapping by the names of forward's arguments.
        path: of the file.

    Returns:
        The path.

    Raises:
        UsageError: if a package is not installed, the network cannot be exported or holds its kept weights only (ONNX
            has no operator for these), or the outputs differ.

    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> to_onnx(network, torch.ones(2, 8), "network.onnx").name
    'network.onnx'
    """
    files.write_bytes(Path(path), onnx_of(module, example))
    return Path(path)


def onnx_of(module: nn.Module, example: Any, sizes: tuple[int, ...] = ()) -> bytes:
    """The bytes of that file.

    Args:
        module, example: see `to_onnx`.
        sizes: of the batches for which outputs are compared; default 1, 2 and the example's.
    """
    if any(isinstance(part, SparseNetwork | SparseLinear) for part in module.modules()):
        raise UsageError(
            "A network that holds its kept weights only cannot become an ONNX graph: ONNX has no operator that skips "
            "pruned weights. Export the dense network, or lotto.inference.compact(model, example)."
        )
    training = module.training
    try:
        check_readable(module.eval(), example)
        with torch.no_grad():
            graph = _graph(module, example)
            check_batches(module, OnnxNetwork(graph), example, "an ONNX graph", sizes)
    finally:
        module.train(training)
    return graph


def _graph(module: nn.Module, example: Any) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):  # before the work
        _imported(package)
    program = exported(module, example)
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False)
            assert made is not None
            graph: bytes = made.model_proto.SerializeToString()
    except Exception as error:  # whatever the exporter does not understand
        raise UsageError(f"torch.onnx cannot export this network: {first_line(error)}.") from error
    return graph


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as missing:
        raise UsageError(ONNX_NEEDS.format(missing)) from missing


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own parts, and of packages that it does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
