"""A residual network over activations with the batch innermost: outputs, and the gradients of all its parameters.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lotto.training.learners import batchnorm_kernels
from lotto.training.learners.batch_innermost import Pair, Plane
from lotto.training.learners.conv_layers import Convolution, ConvolutionPass, Norm, NormPass

Reach = tuple[Pair, Pair]
NOWHERE: Reach = ((0, 0), (0, 0))


class Unit(NamedTuple):
    """A convolution and its BatchNorm."""

    convolution: Convolution
    norm: Norm


class Block(NamedTuple):
    """``relu(second(relu(first(x))) + shortcut(x))``; without ``shortcut`` that is ``x`` itself."""

    first: Unit
    second: Unit
    shortcut: Unit | None


class Head(NamedTuple):
    """A linear layer: weight (classes, channels), bias, and their gradients."""

    weight: Tensor
    bias: Tensor
    by_weight: Tensor
    by_bias: Tensor
    mask: Tensor | None


class Shared:
    """Memory of gradients, which the layers have in turn."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.found: dict[object, Plane] = {}

    def plane(self, what: str, channels: int, size: Pair, reach: Reach = NOWHERE) -> Plane:
        """The same one for the same arguments."""
        key = (what, channels, size, reach)
        if key not in self.found:
            self.found[key] = Plane(channels, size, self.batch, *reach)
        return self.found[key]


class UnitPass:
    """A unit for one size of inputs, its activations, and perhaps a sum and ReLU.

    Args:
        unit: see `Unit`.
        x: the inputs.
        reach: the zeros that the outputs need around them.
        shared: memory of gradients.
        back: the inputs' gradient; None = nobody asks for it.
        added: what is added before ReLU.
        relu: whether ReLU follows.
    """

    def __init__(
        self,
        unit: Unit,
        x: Plane,
        reach: Reach,
        shared: Shared,
        back: Plane | None,
        added: Plane | None = None,
        relu: bool = True,
    ) -> None:
        layer, norm = unit
        size, outputs = layer.shape.outputs(x.size), layer.outputs
        raw = Plane(outputs, size, x.batch)
        self.out = Plane(outputs, size, x.batch, *reach)
        given = shared.plane("raw", outputs, size, layer.shape.back_reach(x.size))
        self.norm = NormPass(norm, raw, added, self.out, given, relu)
        self.convolution = ConvolutionPass(layer, x, raw, given, back)

    def forward(self) -> Plane:
        """Set the outputs, and return them."""
        self.convolution.forward()
        self.norm.forward()
        return self.out

    def backward(self, given: Plane, more: bool = False) -> None:
        """Set all gradients, or add to that of the inputs; see `NormPass.backward`."""
        self.norm.backward(given)
        self.convolution.weight_gradient()
        if self.convolution.back is not None:
            self.convolution.input_gradient(more)


class BlockPass:
    """A block for one size of inputs; see `UnitPass`."""

    def __init__(self, block: Block, x: Plane, reach: Reach, shared: Shared) -> None:
        first, second = block.first.convolution, block.second.convolution
        middle = first.shape.outputs(x.size)
        self.given = shared.plane("out", second.outputs, second.shape.outputs(middle))
        self.middle = shared.plane("middle", first.outputs, middle)
        self.back = self.given if block.shortcut is None else shared.plane("out", x.channels, x.size)
        self.first = UnitPass(block.first, x, second.shape.reach(middle), shared, self.back)
        self.shortcut = None
        if block.shortcut is not None:
            self.shortcut = UnitPass(block.shortcut, x, NOWHERE, shared, self.back, relu=False)
        added = x if self.shortcut is None else self.shortcut.out
        self.second = UnitPass(block.second, self.first.out, reach, shared, self.middle, added)

    def forward(self) -> None:
        """Set the outputs."""
        self.first.forward()
        if self.shortcut is not None:
            self.shortcut.forward()
        self.second.forward()

    def backward(self) -> None:
        """Set all gradients; what stands in ``given`` becomes the gradient of what was added."""
        self.second.backward(self.given)
        self.first.backward(self.middle, more=self.shortcut is None)
        if self.shortcut is not None:
            self.shortcut.backward(self.given, more=True)


class Network(NamedTuple):
    """A stem with ReLU, blocks, the mean over places, and a linear layer."""

    stem: Unit
    blocks: Sequence[Block]
    head: Head


class NetworkPass:
    """A network for one size of inputs.

    Args:
        network: see `Network`.
        channels, size, batch: of the inputs.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int) -> None:
        stem, self.head = network.stem.convolution, network.head
        shared = Shared(batch)
        self.x = Plane(channels, size, batch, *stem.shape.reach(size))
        self.inputs = self.x.view()
        self.stem = UnitPass(network.stem, self.x, _reach(network.blocks[:1], stem.shape.outputs(size)), shared, None)
        self.blocks: list[BlockPass] = []
        x = self.stem.out
        for i, block in enumerate(network.blocks):
            out = block.second.convolution.shape.outputs(block.first.convolution.shape.outputs(x.size))
            self.blocks.append(BlockPass(block, x, _reach(network.blocks[i + 1 : i + 2], out), shared))
            x = self.blocks[-1].second.out
        self.last = x
        self.first_given = shared.plane("out", stem.outputs, stem.shape.outputs(size))
        self.last_given = shared.plane("out", x.channels, x.size)
        self.pooled = torch.zeros(x.channels, batch)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch) of inputs (features, batch)."""
        self.inputs.copy_(x.view(self.inputs.shape))
        self.stem.forward()
        for block in self.blocks:
            block.forward()
        batchnorm_kernels.pool(self.last.memory, self.last.layout, self.last.places, self.pooled.numpy())
        return torch.addmm(self.head.bias[:, None], self.head.weight, self.pooled)

    def backward(self, given: Tensor) -> None:
        """Set all parameters' gradients, from those of the outputs, shape (classes, batch)."""
        head, last = self.head, self.last_given
        torch.mm(given, self.pooled.t(), out=head.by_weight)
        if head.mask is not None:
            head.by_weight.mul_(head.mask)
        torch.sum(given, 1, out=head.by_bias)
        pooled = torch.mm(head.weight.t(), given)
        batchnorm_kernels.pool_back(pooled.numpy(), last.memory, last.layout, last.places)
        for block in reversed(self.blocks):
            block.backward()
        self.stem.backward(self.first_given)


def _reach(consumers: Sequence[Block], size: Pair) -> Reach:
    """The zeros that the inputs of blocks need around them."""
    units = [unit for block in consumers for unit in (block.first, block.shortcut) if unit is not None]
    reaches = [unit.convolution.shape.reach(size) for unit in units] or [NOWHERE]
    before, after = ([max(r[side][d] for r in reaches) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
