"""Convolutions of nonzero weights only, for inference on a CPU: of a network as a whole, or layer by layer."""

from __future__ import annotations

from torch import Tensor, nn

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.jit import can_compile
from lotto.inference.kept_weights import BELOW, sparse_network, with_sparse_layers


@checked
def sparse_convolutions(module: nn.Module, below: float = BELOW, example: Tensor | None = None) -> nn.Module:
    """A copy of a network whose convolutions compute their nonzero weights only.

    Those with a density below ``below`` are replaced, if they pad with zeros; each converts its inputs and
    outputs. With an ``example`` the network is computed as a whole where that is possible, which is quicker:
    `sparse_network`.

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
    ('SparseLayer', True)
    """
    if not can_compile():
        raise UsageError("Sparse convolutions are compiled by numba, which is not installed: pip install numba.")
    if example is not None:
        return sparse_network(module, example, below)
    return with_sparse_layers(module, (nn.Conv1d, nn.Conv2d), below)
