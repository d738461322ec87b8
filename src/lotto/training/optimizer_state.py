"""An optimizer's tensors by name, so that they can be kept, masked and restored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lotto.training.network import Network


def read(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the state as ``parameter/quantity`` -> tensor on the CPU."""
    result = {}
    for name, parameter in parameters.items():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                copy = value.detach().to("cpu", copy=True)
                result[f"{name}/{quantity}"] = copy.contiguous()
    return result


def restore(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    network: Network,
) -> None:
    """Give the optimizer the state that `read` returned."""
    for name, tensor in tensors.items():
        parameter_name, _, quantity = name.rpartition("/")
        parameter = parameters[parameter_name]
        whole = tensor.shape == parameter.shape
        value = network.like(tensor, parameter) if whole else tensor.clone().to(parameter.device)
        optimizer.state[parameter][quantity] = value
