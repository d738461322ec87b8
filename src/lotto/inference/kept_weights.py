"""A trained network that holds its kept weights only: small on disk, and quick on a CPU where few are left."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.check import checked
from lotto.inference import sparse_operator as sparse_operator  # makes the operator known to torch
from lotto.inference.checks import check_equal_outputs, check_readable
from lotto.inference.steps import LAYER, Step, to_text
from lotto.inference.traced_steps import Traced, traced_steps
from lotto.models.plain import is_plain
from lotto.training.learners.operations import Unknown

BELOW = 0.1
"""Density below which a single layer is replaced: above it the dense one is quicker."""


class SparseNetwork(nn.Module):
    """A network as one operator over its kept weights, for inference; see `lotto.inference.sparse_operator`.

    Args:
        traced: its steps and weights.
    """

    values: Tensor
    places: Tensor
    biases: Tensor

    def __init__(self, traced: Traced) -> None:
        super().__init__()
        self.description = to_text(traced.steps)
        self.register_buffer("values", traced.values)
        self.register_buffer("places", traced.places)
        self.register_buffer("biases", traced.biases)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, as those of the network that was given."""
        found: Tensor = torch.ops.lotto.sparse_network(x, self.values, self.places, self.biases, self.description)
        return found


class SparseLayer(SparseNetwork):
    """A linear layer or convolution that holds its nonzero weights only.

    Args:
        layer: a convolution pads with zeros.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        self.shape = layer.weight.shape
        geometry: Any = [] if isinstance(layer, nn.Linear) else [layer.stride, layer.padding, layer.dilation]
        weight: Tensor = layer.weight.detach().flatten()
        places = weight.nonzero().squeeze(1)
        step = Step(LAYER, 0, tuple(self.shape), *geometry)._replace(
            kept=len(places), groups=getattr(layer, "groups", 1)
        )
        bias = weight.new_zeros(self.shape[0]) if layer.bias is None else layer.bias.detach().clone()
        super().__init__(Traced([step], weight[places], places.int(), bias))

    @property
    def weight(self) -> Tensor:
        """The whole weight, made anew, for modules that read their layers' weights themselves."""
        return (
            self.values.new_zeros(math.prod(self.shape)).index_put((self.places.long(),), self.values).view(self.shape)
        )

    @property
    def bias(self) -> Tensor:
        """One number for each output."""
        return self.biases

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, ...) to (batch, outputs, ...); of a linear layer (..., inputs) to (..., outputs)."""
        if len(self.shape) > 2:
            return super().forward(x)
        return super().forward(x.reshape(-1, self.shape[1])).reshape(*x.shape[:-1], self.shape[0])


@checked
def sparse_network(module: nn.Module, example: Tensor, below: float = BELOW) -> nn.Module:
    """A copy of a trained, pruned network that holds its nonzero weights only.

    Convolutions of one and two dimensions, linear layers, BatchNorm after these, ReLU, sums, greatest numbers, means
    over all places and views are computed as one operator. Of a network that does anything else, single layers of a
    density below ``below`` are replaced. Both can be given to `torch.export`.

    Args:
        module: its pruned weights are 0.
        example: a batch of inputs.
        below: see there.

    Returns:
        A network in evaluation mode, without gradients, whose outputs equal those of ``module.eval()`` up to rounding;
        on the example they have been compared. Kernels compute it on a CPU, in float32 and where numba is installed,
        torch's dense layers anywhere else.

    Raises:
        UsageError: if the outputs differ.

    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> network[0].weight.data[:, 2:] = 0
    >>> sparse = sparse_network(network, torch.ones(1, 8))
    >>> type(sparse).__name__, len(sparse.values)
    ('SparseNetwork', 32)
    """
    training = module.training
    try:
        check_readable(module.eval(), example)
        with torch.no_grad():
            made = _made(module, example, below)
            check_equal_outputs(module, made, example, "sparse")
    finally:
        module.train(training)
    return made.eval()


def _made(module: nn.Module, example: Tensor, below: float) -> nn.Module:
    with suppress(Unknown):
        return SparseNetwork(traced_steps(module, example.shape[1:]))
    return with_sparse_layers(module, (nn.Linear, nn.Conv1d, nn.Conv2d), below)


def with_sparse_layers(module: nn.Module, kinds: Collection[type[nn.Module]], below: float) -> nn.Module:
    """A copy in evaluation mode whose plain layers of these kinds and of a density below ``below`` are replaced."""
    made = copy.deepcopy(module).eval()
    for name, layer in list(made.named_modules()):
        if name and is_plain(layer, kinds) and _can_be_sparse(layer) and _density(layer) < below:
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, SparseLayer(layer))
    return made


def is_sparse(module: nn.Module) -> bool:
    """Whether any part of a network holds nonzero weights only."""
    return any(isinstance(part, SparseNetwork) and len(part.places) for part in module.modules())


def _can_be_sparse(layer: Any) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _density(layer: Any) -> float:
    return float((layer.weight != 0).double().mean())
