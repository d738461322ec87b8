"""An optimizer's tensors by name, so that they can be kept, masked and restored."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lotto.training.learners.autograd import Autograd
from lotto.training.learners.perceptron import Perceptron


def read(learner: Autograd | Perceptron) -> dict[str, Tensor]:
    """Copies of the state as ``parameter/quantity`` -> tensor on the CPU, in the shape of the weight."""
    return {
        f"{name}/{quantity}": learner.expand(name, value)
        for name, quantities in learner.updates.states.items()
        for quantity, value in quantities.items()
    }


def restore(learner: Autograd | Perceptron, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer the state that `read` returned."""
    for name, tensor in tensors.items():
        parameter, _, quantity = name.rpartition("/")
        learner.updates.states[parameter][quantity] = learner.compress(parameter, tensor)
