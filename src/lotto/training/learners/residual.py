"""A residual network over activations with the batch innermost: outputs, and the gradients of all its parameters.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.batch_innermost import NOWHERE, Pair, Plane, Reach, Workspace
from lotto.training.learners.conv_layers import Convolution, ConvolutionPass, Norm, NormPass

Instructions = Iterator[np.ndarray]


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


class Vectors(NamedTuple):
    """All parameters, their gradients, running statistics, and BatchNorms' (momentum, eps)."""

    values: np.ndarray
    gradients: np.ndarray
    running: np.ndarray
    constants: np.ndarray


class Network(NamedTuple):
    """A stem with ReLU, blocks, the mean over places, and a linear layer."""

    stem: Unit
    blocks: Sequence[Block]
    head: Head
    vectors: Vectors


class UnitPass:
    """A unit for one size of inputs, its activations, and perhaps a sum and ReLU.

    Args:
        unit: see `Unit`.
        workspace: of all planes.
        x: the inputs.
        reach: the zeros that the outputs need around them.
        back: the inputs' gradient; None = nobody asks for it.
        added: what is added before ReLU.
        relu: whether ReLU follows.
    """

    def __init__(
        self,
        unit: Unit,
        workspace: Workspace,
        x: Plane,
        reach: Reach,
        back: Plane | None,
        added: Plane | None = None,
        relu: bool = True,
    ) -> None:
        layer, norm = unit
        size, outputs = layer.shape.outputs(x.size), layer.outputs
        raw = workspace.plane(outputs, size)
        self.out = workspace.plane(outputs, size, reach)
        given = workspace.shared("raw", outputs, size, layer.shape.back_reach(x.size))
        self.norm = NormPass(norm, workspace, raw, added, self.out, given, relu)
        self.convolution = ConvolutionPass(layer, workspace, x, raw, given, back)

    def forward(self) -> Instructions:
        """Set the outputs."""
        yield from self.convolution.forward()
        yield from self.norm.forward()

    def backward(self, given: Plane, more: bool = False) -> Instructions:
        """Set all gradients, or add to that of the inputs; see `NormPass.backward`."""
        yield from self.norm.backward(given)
        yield from self.convolution.weight_gradient()
        if self.convolution.back is not None:
            yield from self.convolution.input_gradient(more)


class BlockPass:
    """A block for one size of inputs; see `UnitPass`."""

    def __init__(self, block: Block, workspace: Workspace, x: Plane, reach: Reach) -> None:
        first, second = block.first.convolution, block.second.convolution
        middle = first.shape.outputs(x.size)
        self.given = workspace.shared("out", second.outputs, second.shape.outputs(middle))
        self.middle = workspace.shared("middle", first.outputs, middle)
        back = self.given if block.shortcut is None else workspace.shared("out", x.channels, x.size)
        self.first = UnitPass(block.first, workspace, x, second.shape.reach(middle), back)
        self.shortcut = None
        if block.shortcut is not None:
            self.shortcut = UnitPass(block.shortcut, workspace, x, NOWHERE, back, relu=False)
        added = x if self.shortcut is None else self.shortcut.out
        self.second = UnitPass(block.second, workspace, self.first.out, reach, self.middle, added)

    def forward(self) -> Instructions:
        """Set the outputs."""
        yield from self.first.forward()
        if self.shortcut is not None:
            yield from self.shortcut.forward()
        yield from self.second.forward()

    def backward(self) -> Instructions:
        """Set all gradients; what stands in ``given`` becomes the gradient of what was added."""
        yield from self.second.backward(self.given)
        yield from self.first.backward(self.middle, more=self.shortcut is None)
        if self.shortcut is not None:
            yield from self.shortcut.backward(self.given, more=True)


class NetworkPass:
    """A network for one size of inputs.

    Args:
        network: see `Network`.
        channels, size, batch: of the inputs.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int) -> None:
        stem, self.head, self.vectors = network.stem.convolution, network.head, network.vectors
        space, first = Workspace(batch), stem.shape.outputs(size)
        x = space.plane(channels, size, stem.shape.reach(size))
        begin = UnitPass(network.stem, space, x, reach_of(network.blocks[:1], first), None)
        blocks, last = [], begin.out
        for i, block in enumerate(network.blocks):
            out = block.second.convolution.shape.outputs(block.first.convolution.shape.outputs(last.size))
            blocks.append(BlockPass(block, space, last, reach_of(network.blocks[i + 1 : i + 2], out)))
            last = blocks[-1].second.out
        given, first_given = (space.shared("out", plane.channels, plane.size) for plane in (last, begin.out))
        pooled = space.take(last.channels * batch)

        def pool(what: int, plane: Plane) -> np.ndarray:
            return program.row(what, *plane.size, batch, plane.channels, *plane.layout, pooled)

        forward = [*begin.forward(), *(row for block in blocks for row in block.forward())]
        backward = [row for block in reversed(blocks) for row in block.backward()]
        self.forward_program = program.rows([*forward, pool(program.POOL, last)])
        self.backward_program = program.rows([pool(program.POOL_BACK, given), *backward, *begin.backward(first_given)])
        self.inputs = x.view()
        self.pooled = space.memory[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.workspace = space
        self.memory, self.moments, self.lists, self.places = space.tables()

    def run(self, instructions: np.ndarray) -> None:
        """Work off instructions."""
        values, gradients, running, constants = self.vectors
        tables = (self.moments, self.lists, self.places, constants, self.workspace.packed)
        program.run(instructions, self.memory, values, gradients, running, *tables)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch) of inputs (features, batch)."""
        self.inputs.copy_(x.view(self.inputs.shape))
        self.run(self.forward_program)
        return torch.addmm(self.head.bias[:, None], self.head.weight, self.pooled)

    def backward(self, given: Tensor) -> None:
        """Set all parameters' gradients, from those of the outputs, shape (classes, batch)."""
        head = self.head
        torch.mm(given, self.pooled.t(), out=head.by_weight)
        if head.mask is not None:
            head.by_weight.mul_(head.mask)
        torch.sum(given, 1, out=head.by_bias)
        torch.mm(head.weight.t(), given, out=self.pooled)
        self.run(self.backward_program)


def reach_of(consumers: Sequence[Block], size: Pair) -> Reach:
    """The zeros that the inputs of blocks need around them."""
    units = [unit for block in consumers for unit in (block.first, block.shortcut) if unit is not None]
    reaches = [unit.convolution.shape.reach(size) for unit in units] or [NOWHERE]
    before, after = ([max(r[side][d] for r in reaches) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
