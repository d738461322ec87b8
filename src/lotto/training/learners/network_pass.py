"""A convolutional network over activations with the batch innermost: outputs, and the gradients of all its parameters.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.after_layers import Bias, BiasPass, Norm, NormPass, PoolingPass
from lotto.training.learners.batch_innermost import NOWHERE, Pair, Plane, Pooling, Reach, Workspace
from lotto.training.learners.conv_layers import Convolution, ConvolutionPass
from lotto.training.learners.linear_head import Head

Instructions = Iterator[np.ndarray]


class Unit(NamedTuple):
    """A convolution and its BatchNorm or bias, with ReLU."""

    convolution: Convolution
    after: Norm | Bias

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        return self.convolution.shape.outputs(size)


class Block(NamedTuple):
    """``relu(second(relu(first(x))) + shortcut(x))``; without ``shortcut`` that is ``x`` itself."""

    first: Unit
    second: Unit
    shortcut: Unit | None

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        return self.second.outputs(self.first.outputs(size))


class Vectors(NamedTuple):
    """All parameters, their gradients, running statistics, and BatchNorms' (momentum, eps)."""

    values: np.ndarray
    gradients: np.ndarray
    running: np.ndarray
    constants: np.ndarray


class Network(NamedTuple):
    """Parts one after another, then linear layers over all places (``flat``) or the mean over them."""

    parts: Sequence[Unit | Block | Pooling]
    flat: bool
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
        layer, after = unit
        size, outputs = unit.outputs(x.size), layer.outputs
        raw = workspace.plane(outputs, size)
        self.out = workspace.plane(outputs, size, reach)
        given = workspace.shared("raw", outputs, size, layer.shape.back_reach(x.size))
        self.after: NormPass | BiasPass
        if isinstance(after, Norm):
            self.after = NormPass(after, workspace, raw, added, self.out, given, relu)
        else:
            self.after = BiasPass(after, raw, self.out, given)
        self.convolution = ConvolutionPass(layer, workspace, x, raw, given, back)

    def forward(self) -> Instructions:
        """Set the outputs."""
        yield from self.convolution.forward()
        yield from self.after.forward()

    def backward(self, given: Plane, more: bool = False) -> Instructions:
        """Set all gradients, or add to that of the inputs; see `NormPass.backward`."""
        yield from self.after.backward(given)
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
        self.out = self.second.out

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


class PartPass:
    """A unit or pooling in a row of parts, for one size of inputs: its gradients are in memory that others share."""

    def __init__(self, part: Unit | Pooling, workspace: Workspace, x: Plane, reach: Reach, asked: bool) -> None:
        back = workspace.shared("out", x.channels, x.size) if asked else None
        self.inner: UnitPass | PoolingPass
        if isinstance(part, Pooling):
            self.out = workspace.plane(x.channels, part.outputs(x.size), reach)
            self.given = workspace.shared("out", self.out.channels, self.out.size)
            self.inner = PoolingPass(part, x, self.out, self.given, back)
        else:
            self.inner = UnitPass(part, workspace, x, reach, back)
            self.out = self.inner.out
            self.given = workspace.shared("out", self.out.channels, self.out.size)

    def forward(self) -> Instructions:
        """Set the outputs."""
        return self.inner.forward()

    def backward(self) -> Instructions:
        """Set all gradients, from ``given``."""
        return self.inner.backward() if isinstance(self.inner, PoolingPass) else self.inner.backward(self.given)


class NetworkPass:
    """A network for one size of inputs.

    Args:
        network: see `Network`.
        channels, size, batch: of the inputs.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int) -> None:
        parts, space = network.parts, Workspace(batch)
        self.network, self.workspace = network, space
        last = first = space.plane(channels, size, reach_of(parts[:1], size))
        passes: list[PartPass | BlockPass] = []
        for i, part in enumerate(parts):
            reach = reach_of(parts[i + 1 : i + 2], part.outputs(last.size))
            made = BlockPass(part, space, last, reach) if isinstance(part, Block) else None
            passes.append(made or PartPass(part, space, last, reach, asked=i > 0))  # type: ignore[arg-type]
            last = passes[-1].out
        given = space.shared("out", last.channels, last.size)
        pooled = space.take(last.channels * batch)

        def pool(what: int, plane: Plane) -> list[np.ndarray]:
            numbers = (*plane.size, batch, plane.channels, *plane.layout, pooled)
            return [] if network.flat else [program.row(what, *numbers)]

        forward = [row for part in passes for row in part.forward()]
        backward = [row for part in reversed(passes) for row in part.backward()]
        self.forward_program = program.rows([*forward, *pool(program.POOL, last)])
        self.backward_program = program.rows([*pool(program.POOL_BACK, given), *backward])
        self.inputs = first.view()
        mean = space.memory[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.features, self.by_features = (last.view(), given.view()) if network.flat else (mean, mean)
        self.memory, self.moments, self.lists, self.places = space.tables()

    def run(self, instructions: np.ndarray) -> None:
        """Work off instructions."""
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.workspace.packed)
        program.run(instructions, self.memory, values, gradients, running, *tables)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch) of inputs (features, batch)."""
        self.inputs.copy_(x.view(self.inputs.shape))
        self.run(self.forward_program)
        return self.network.head.forward(self.features.reshape(-1, x.shape[1]))

    def backward(self, given: Tensor) -> None:
        """Set all parameters' gradients, from those of the outputs, shape (classes, batch)."""
        by_features = self.network.head.backward(given)
        self.by_features.copy_(by_features.view(self.by_features.shape))
        self.run(self.backward_program)


def reach_of(consumers: Sequence[Unit | Block | Pooling], size: Pair) -> Reach:
    """The zeros that the inputs of parts need around them."""
    units: list[Unit | None] = []
    for part in consumers:
        units += [part.first, part.shortcut] if isinstance(part, Block) else [part] if isinstance(part, Unit) else []
    reaches = [unit.convolution.shape.reach(size) for unit in units if unit is not None] or [NOWHERE]
    before, after = ([max(r[side][d] for r in reaches) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
