"""Which networks kernels of ours compute: those of ours that nobody has changed, and others that are proved alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lotto.training.learners.descriptions import Description
from lotto.training.learners.operations import Unknown
from lotto.training.learners.own_networks import own_description
from lotto.training.learners.proof import check_alike
from lotto.training.learners.traced import traced
from lotto.training.network import Network


def described(module: nn.Module, shape: Sequence[int]) -> Description:
    """What a network computes of examples of a shape.

    Args:
        module: one of ours, or any other, of which the outputs, gradients and statistics are compared with autograd's.
        shape: of an example.

    Raises:
        Unknown: if kernels do not compute it; the text says what is in the way.
    """
    found = own_description(module)
    if found is None:
        if not has_convolutions(module):
            raise Unknown("no convolutions")
        found = traced(module, shape)
        check_alike(module, found, shape)
    return found


def has_convolutions(module: nn.Module) -> bool:
    """Of one or two dimensions."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d) for part in module.modules())


def description_of(network: Network, shape: Sequence[int]) -> Description | None:
    """What a network computes, see `described`; looked up once for a network. None = kernels do not compute it."""
    if network.described is None:
        network.described = _description_or_reason(network, shape)
    return None if isinstance(network.described, str) else network.described


def _description_or_reason(network: Network, shape: Sequence[int]) -> Description | str:
    of_ours = network.device.type == "cpu" and network.dtype in (torch.float32, torch.bfloat16)
    if not of_ours or not has_convolutions(network.module):
        return ""  # nobody expects it
    try:
        return described(network.module, shape)
    except Unknown as unknown:
        return str(unknown)
