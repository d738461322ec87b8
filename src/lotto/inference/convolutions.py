"""Convolutions of nonzero weights only, for inference on a CPU: a network of ours as a whole, others layer by layer.

Activations of a network of ours lie with the batch innermost from its inputs to its outputs; a single layer of any
other module converts at its borders.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.jit import can_compile
from lotto.models.plain import is_plain
from lotto.training.learners.conv_networks import described
from lotto.training.learners.descriptions import Description, channels_and_size, is_simple, shape_of
from lotto.training.learners.network_layers import Layers
from lotto.training.learners.operations import Unknown
from lotto.training.learners.own_networks import own_description

BELOW = 0.1
"""Density below which a single layer is replaced: above it the dense one is quicker."""
FEWEST, BATCH = 2, 128
"""Examples at once: fewer are computed by the dense network, as each costs as much as a vector of sixteen; of more the
activations do not fit into a processor's own memory."""


class NetworkByKernels(nn.Module):
    """A network of ours whose convolutions are lists of nonzero weights where these are few.

    Args:
        module: it is copied, and computes a single example.
        found: what it computes.
        shape: of an example that this is known of; the module computes others. None = of all.
    """

    values: Tensor
    running: Tensor

    def __init__(self, module: nn.Module, found: Description, shape: torch.Size | None = None) -> None:
        super().__init__()
        self.dense, self.shape = copy.deepcopy(module).eval(), shape
        self.layers = Layers(module, found, {name: p.detach() != 0 for name, p in module.named_parameters()})
        self.register_buffer("values", self.layers.flat.detach())
        self.register_buffer("running", self.layers.running)
        self._passes: dict[Any, Any] = {}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Class scores, shape (batch, classes)."""
        from lotto.training.learners.outputs_pass import OutputsPass

        if len(x) < FEWEST or (self.shape is not None and x.shape[1:] != self.shape):
            return self.dense(x)
        key = (x.shape[1:], min(BATCH, len(x)))
        if key not in self._passes:
            shape, batch = key
            made = OutputsPass(self.layers.network, *channels_and_size(shape), batch, frozen=True)
            self._passes = {key: made}  # their memory is that of a batch
        found: Tensor = self._passes[key](x)
        return found


class SparseConvolution(nn.Module):
    """A convolution of one or two dimensions that holds its nonzero weights only.

    Args:
        layer: with zeros as padding.
    """

    nonzero: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.shape, self.dims = shape_of(layer), layer.weight.dim() - 2
        weight = layer.weight.detach().float()
        self.mask = (weight != 0).reshape(*weight.shape[:2], *self.shape.kernel).numpy()
        self.groups = layer.groups
        self.register_buffer("nonzero", weight.flatten().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self._passes: dict[Any, Any] = {}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, ...) to (batch, outputs, ...)."""
        if x.shape not in self._passes:
            self._passes = {x.shape: self._pass(x)}
        inputs, outputs, run = self._passes[x.shape]
        inputs.copy_(x.reshape(len(x), x.shape[1], -1, x.shape[-1]).permute(1, 2, 3, 0))
        run()
        found: Tensor = outputs.permute(3, 0, 1, 2).contiguous()
        found = found if self.dims == 2 else found.squeeze(2)
        return found if self.bias is None else found.add_(self.bias.view(-1, *[1] * self.dims))

    def _pass(self, x: Tensor) -> Any:
        """Views of inputs and outputs, and what computes these."""
        from lotto.training.learners import program
        from lotto.training.learners.batch_innermost import Workspace
        from lotto.training.learners.conv_layers import SPARSE, Convolution, ConvolutionPass

        space, (channels, size) = Workspace(len(x)), channels_and_size(x.shape[1:])
        plane = space.plane(channels, size, self.shape.reach(size))
        out = space.plane(len(self.mask), self.shape.outputs(size))
        made = ConvolutionPass(
            Convolution(self.shape, 0, self.mask, SPARSE, self.groups), space, plane, out, None, None
        )
        rows = program.rows(made.forward())
        memory, *tables = space.tables()
        values, nothing = self.nonzero.numpy(), np.zeros(0, np.float32)
        vectors, constants = (values, nothing, nothing), np.zeros((0, 2))
        return plane.view(), out.view(), lambda: program.run(rows, memory, *vectors, *tables, constants, space.packed)


@checked
def sparse_convolutions(module: nn.Module, below: float = BELOW, example: Tensor | None = None) -> nn.Module:
    """A copy of a network whose convolutions compute their nonzero weights only.

    A ResNet, VGG or conv net of lotto is computed by kernels as a whole, and with an ``example`` any network of
    convolutions, BatchNorm, ReLU, sums, pooling and linear layers, if its outputs and gradients are those of the
    module. Of others the convolutions with a density below ``below`` are replaced, if they pad with zeros.

    Args:
        module: on the CPU, in float32; its pruned weights are 0.
        below: see there.
        example: a batch of inputs.

    Returns:
        A network in evaluation mode with the same outputs up to rounding, without gradients.

    Raises:
        UsageError: if numba is not installed.

    >>> network = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU())
    >>> network[0].weight.data[:, 1:] = 0
    >>> sparse, inputs = sparse_convolutions(network, below=0.2), torch.ones(2, 8, 5, 5)
    >>> type(sparse[0]).__name__, torch.allclose(sparse(inputs), network(inputs), atol=1e-5)
    ('SparseConvolution', True)
    """
    if not can_compile():
        raise UsageError("Sparse convolutions are compiled by numba, which is not installed: pip install numba.")
    if (found := own_description(module)) is not None:
        return NetworkByKernels(module, found).eval()
    if example is not None:
        with suppress(Unknown):
            shape = example.shape[1:]
            return NetworkByKernels(module, described(module, shape), shape).eval()
    made = copy.deepcopy(module).eval()
    for name, layer in list(made.named_modules()):
        if name and _can_be_sparse(layer) and float((layer.weight != 0).double().mean()) < below:
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, SparseConvolution(layer))
    return made


def _can_be_sparse(layer: Any) -> bool:
    if not is_plain(layer, (nn.Conv1d, nn.Conv2d)):
        return False
    return bool(is_simple(layer) and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu")
