"""Whether a description is what a module computes: outputs, all gradients and statistics against autograd's."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lotto.core.rng import private_rng
from lotto.training.learners.descriptions import Description, channels_and_size
from lotto.training.learners.network_layers import Layers
from lotto.training.learners.operations import Unknown

EXAMPLES, SEED = 4, 1
CLOSE, TINY = 0.02, 1e-4
"""Of a tensor's norm and of the largest of all: a ReLU that rounding turns to the other side shows, another network
is as far away as it is large."""


def check_alike(module: nn.Module, found: Description, shape: Sequence[int]) -> None:
    """Compare kernels with autograd in float64, in training and in evaluation, with weights and examples at random.

    Args:
        module: left as it is.
        found: what it is said to compute.
        shape: of an example.

    Raises:
        Unknown: if they differ.
    """
    from lotto.training.learners.network_pass import NetworkPass
    from lotto.training.learners.outputs_pass import OutputsPass

    with private_rng(SEED), torch.enable_grad():  # an evaluation, which needs none, may be the first to ask
        module = copy.deepcopy(module).train().requires_grad_()  # what is frozen has gradients, too
        with torch.no_grad():
            for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
                noise = torch.randn_like(tensor) * (tensor.abs().mean() + 0.1)
                tensor.add_(0.1 * (noise.abs() if tensor.min() >= 0 else noise))  # a variance stays positive
        x = torch.randn(EXAMPLES, *shape)
        slow = copy.deepcopy(module).double()
        outputs = slow(x.double())
        given = torch.randn_like(outputs)
        outputs.backward(given)

        layers = Layers(module, found, {})
        inputs = channels_and_size(shape)
        passes = NetworkPass(layers.network, *inputs, EXAMPLES)
        ours = passes.forward(x.flatten(1).t()).t()
        passes.backward(given.float().t())
        _compare("outputs", {"": ours}, {"": outputs.detach()})
        _compare("gradients", layers.gradients(), {name: p.grad for name, p in slow.named_parameters()})
        statistics = {name: b for name, b in slow.named_buffers() if b.is_floating_point()}
        _compare("running statistics", layers.statistics, statistics)
        with torch.no_grad():
            expected = slow.eval()(x.double())
        frozen = OutputsPass(layers.network, *inputs, EXAMPLES, frozen=True)(x)
        _compare("outputs in evaluation", {"": frozen}, {"": expected})


def _compare(what: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor | None]) -> None:
    largest = max([float(t.norm()) for t in expected.values() if t is not None], default=0.0)
    for name, tensor in expected.items():
        right = torch.zeros_like(found[name]) if tensor is None else tensor
        distance = float((found[name].double() - right.double()).norm())
        if not distance <= CLOSE * float(right.norm()) + TINY * largest:
            raise Unknown(f"{what} that differ from autograd's {name}".rstrip())
