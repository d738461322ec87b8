"""Linear layers as compressed rows for inference: few weights, few operations."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from lotto.core.check import checked
from lotto.models.plain import is_plain

BELOW = 0.15
"""Density below which a layer is replaced: above it the dense product is faster."""


class SparseLinear(nn.Module):
    """A linear layer that holds its nonzero weights only; for inference on a CPU."""

    rows: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            rows = layer.weight.detach().to_sparse_csr()
            ends, columns = (t.int() for t in (rows.crow_indices(), rows.col_indices()))  # half the memory
            compressed = torch.sparse_csr_tensor(ends, columns, rows.values(), rows.shape, check_invariants=True)
        self.register_buffer("rows", compressed)
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The whole matrix, made anew, for modules that read their layers' weights themselves."""
        return self.rows.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        flat = x.reshape(-1, self.in_features)
        outputs = torch.addmm(self.bias[:, None].expand(-1, flat.shape[0]), self.rows, flat.t()).t()
        return outputs.reshape(*x.shape[:-1], self.out_features)


@checked
def sparse_rows(module: nn.Module, below: float = BELOW) -> nn.Module:
    """A copy of a network whose linear layers of a density below ``below`` multiply their nonzero weights only.

    Args:
        module: its pruned weights are 0.
        below: see there.

    Returns:
        A network in evaluation mode with the same outputs up to rounding.

    >>> network = torch.nn.Sequential(torch.nn.Linear(100, 100))
    >>> network[0].weight.data[:, 1:] = 0
    >>> sparse, inputs = sparse_rows(network), torch.ones(2, 100)
    >>> type(sparse[0]).__name__, torch.allclose(sparse(inputs), network(inputs), atol=1e-5)
    ('SparseLinear', True)
    """
    made = copy.deepcopy(module).eval()
    for name, layer in list(made.named_modules()):
        if is_plain(layer, (nn.Linear,)) and float((layer.weight != 0).double().mean()) < below:
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, SparseLinear(layer))
    return made
