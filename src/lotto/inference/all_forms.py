"""One network in every form that it can run in, what each takes on disk, and why a form is missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.rng import private_rng
from lotto.inference.checks import check_equal_outputs, resized
from lotto.inference.compaction import compact
from lotto.inference.kept_weights import SparseNetwork, is_sparse, sparse_network
from lotto.inference.onnx_graphs import OnnxNetwork, onnx_of
from lotto.inference.torchscript import loaded, torchscript_of
from lotto.inference.variants import COMPACT, DENSE, SPARSE, in_bfloat16

BFLOAT16, ONNX, TORCHSCRIPT = "bfloat16", "onnx", "torchscript"
FORMS = (DENSE, COMPACT, SPARSE, BFLOAT16, ONNX, TORCHSCRIPT)
"""Names of forms: every weight, pruned ones are zeros; without units that are cut off; that one's kept weights only;
the compact one in bfloat16, in onnxruntime and as TorchScript."""
USUAL = FORMS[:4]
SEVERAL = "its inputs are several tensors"
ALL_LEFT = "no part of it has few enough weights left, or its kind is not understood"


@dataclass(frozen=True)
class Forms:
    """The forms of a network.

    Attributes:
        modules: by name; in evaluation mode, their outputs compared with those of the dense one, but for bfloat16.
        bytes: of its weights as safetensors, or of its file where the form is one.
        missing: why there is no such form.
    """

    modules: Mapping[str, nn.Module]
    bytes: Mapping[str, int]
    missing: Mapping[str, str]


@torch.no_grad()
def forms_of(
    module: nn.Module, inputs: Any, wanted: Collection[str], sizes: tuple[int, ...], threads: int = 1
) -> Forms:
    """The wanted forms of a trained network.

    Args:
        module: in evaluation mode, on the CPU.
        inputs: a batch.
        wanted: names of `FORMS`; the dense one is always there.
        sizes: of the batches for which outputs are compared.
        threads: of onnxruntime.
    """
    made: dict[str, nn.Module] = {DENSE: module}
    sizes_of, missing = {DENSE: stored_bytes(module)}, dict[str, str]()
    if isinstance(inputs, Tensor):
        # The sparse one holds what is left of the compact one, which the others are made of, too.
        _attempt(COMPACT, lambda: compact(module, inputs), made, missing)
        _attempt(SPARSE, lambda: _sparse(made.get(COMPACT, module), inputs), made, missing)
    else:
        missing |= {COMPACT: SEVERAL, SPARSE: SEVERAL}
    base = made.get(COMPACT, module)
    if BFLOAT16 in wanted:
        _attempt(BFLOAT16, lambda: _low(base, inputs), made, missing)
    if ONNX in wanted:
        _attempt(ONNX, lambda: OnnxNetwork(onnx_of(base, inputs, sizes), threads), made, missing)
    if TORCHSCRIPT in wanted:
        script = b""

        def traced() -> nn.Module:
            nonlocal script
            script = torchscript_of(base, inputs, sizes)
            return loaded(script)

        _attempt(TORCHSCRIPT, traced, made, missing)
        sizes_of[TORCHSCRIPT] = len(script)
    for name in [*made]:
        if name not in wanted and name != DENSE:
            del made[name]
        elif name not in sizes_of:
            own = made[name]
            sizes_of[name] = own.size if isinstance(own, OnnxNetwork) else stored_bytes(own)
        if name in made and name not in (DENSE, BFLOAT16):
            with private_rng():
                for size in sizes:
                    check_equal_outputs(module, made[name], resized(inputs, size), name)
    return Forms(made, {n: sizes_of[n] for n in made}, {n: why for n, why in missing.items() if n in wanted})


def _attempt(name: str, make: Callable[[], nn.Module], made: dict[str, nn.Module], missing: dict[str, str]) -> None:
    try:
        made[name] = make()
    except UsageError as error:
        missing[name] = str(error).rstrip(".")


def _sparse(module: nn.Module, inputs: Tensor) -> nn.Module:
    made = sparse_network(module, inputs)
    if not is_sparse(made):
        raise UsageError(ALL_LEFT)
    return made


def _low(module: nn.Module, inputs: Any) -> nn.Module:
    made = in_bfloat16(module, inputs)
    if made is None:
        raise UsageError("it does not run in bfloat16")
    return made


def stored_bytes(module: nn.Module) -> int:
    """What the weights of a network take as a safetensors file; of a sparse one also what it computes with them."""
    tensors, seen = {}, set()
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and id(value) not in seen:  # tied weights are one tensor
            seen.add(id(value))
            tensors[name] = value.detach().clone().contiguous()
    described = {
        name or "network": part.description for name, part in module.named_modules() if isinstance(part, SparseNetwork)
    }
    return len(save(tensors, described or None))
