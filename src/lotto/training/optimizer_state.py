"""An optimizer's tensors by name, so that they can be kept, masked and restored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lotto.training.autograd import Autograd
from lotto.training.perceptron import Perceptron


def read(optimizer: torch.optim.Optimizer, learner: Autograd | Perceptron) -> dict[str, Tensor]:
    """Copies of the state as ``parameter/quantity`` -> tensor on the CPU, in the shape of the weight."""
    result = {}
    for name, parameter in learner.parameters.items():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                result[f"{name}/{quantity}"] = learner.expand(name, value)
    return result


def restore(optimizer: torch.optim.Optimizer, learner: Autograd | Perceptron, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer the state that `read` returned."""
    for name, tensor in tensors.items():
        parameter, _, quantity = name.rpartition("/")
        optimizer.state[learner.parameters[parameter]][quantity] = learner.compress(parameter, tensor)
