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
    """A convolution with a bias, BatchNorm or both, and ReLU or not."""

    convolution: Convolution
    bias: Bias | None
    norm: Norm | None
    relu: bool = True

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        return self.convolution.shape.outputs(size)


class Block(NamedTuple):
    """``main(x) + shortcut(x)``, ``main`` units one after another; without ``shortcut`` that is ``x`` itself.

    If the last unit has ReLU, it is of the sum.
    """

    main: Sequence[Unit]
    shortcut: Unit | None

    def outputs(self, size: Pair) -> Pair:
        """Height and width of the outputs for inputs of a height and width."""
        for unit in self.main:
            size = unit.outputs(size)
        return size


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
    """A unit for one size of inputs, its activations, and perhaps a sum before ReLU.

    Args:
        unit: see `Unit`.
        workspace: of all planes.
        x: the inputs.
        reach: the zeros that the outputs need around them.
        back: the inputs' gradient; None = nobody asks for it.
        added: what is added after BatchNorm and before ReLU.
    """

    def __init__(
        self, unit: Unit, workspace: Workspace, x: Plane, reach: Reach, back: Plane | None, added: Plane | None = None
    ) -> None:
        layer = unit.convolution
        size, outputs = unit.outputs(x.size), layer.outputs
        raw = workspace.plane(outputs, size)
        self.out = workspace.plane(outputs, size, reach)
        given = workspace.shared("raw", outputs, size, layer.shape.back_reach(x.size))
        self.after = after_passes(unit, workspace, raw, self.out, given, added)
        self.convolution = ConvolutionPass(layer, workspace, x, raw, given, back)

    def forward(self) -> Instructions:
        """Set the outputs."""
        yield from self.convolution.forward()
        for layer in self.after:
            yield from layer.forward()

    def backward(self, given: Plane, more: bool = False) -> Instructions:
        """Set all gradients, or add to that of the inputs; see `NormPass.backward`."""
        for layer in reversed(self.after):
            yield from layer.backward(given)
            given = layer.back
        yield from self.convolution.weight_gradient()
        if self.convolution.back is not None:
            yield from self.convolution.input_gradient(more)


def after_passes(
    unit: Unit,
    workspace: Workspace,
    raw: Plane,
    out: Plane,
    given: Plane | None,
    added: Plane | None,
    frozen: bool = False,
) -> list[NormPass | BiasPass]:
    """What follows a unit's convolution: a bias, or BatchNorm, or a bias that is added in place and BatchNorm.

    Args:
        unit: see `Unit`.
        workspace: of all planes.
        raw, out: the convolution's outputs and the unit's.
        given: the gradient of ``raw``; None = there is none.
        added: see `UnitPass`.
        frozen: whether BatchNorm is by its running statistics.
    """
    passes: list[NormPass | BiasPass] = []
    if unit.bias is not None:
        last = unit.norm is None
        passes.append(BiasPass(unit.bias, raw, out if last else raw, given, relu=last and unit.relu))
    if unit.norm is not None:
        passes.append(NormPass(unit.norm, workspace, raw, added, out, given, unit.relu, frozen))
    return passes


class BlockPass:
    """A block for one size of inputs; see `UnitPass`. Its gradients are in memory called ``name`` that others share."""

    def __init__(self, block: Block, workspace: Workspace, x: Plane, reach: Reach, name: str) -> None:
        *inner, last = block.main
        self.given = workspace.shared(name, last.convolution.outputs, block.outputs(x.size))
        back = self.given if block.shortcut is None else workspace.shared(name, x.channels, x.size)
        self.shortcut = None
        self.main: list[UnitPass] = []
        self.middles: list[Plane] = []
        now, now_back = x, back
        for i, unit in enumerate(inner):
            size = unit.outputs(now.size)
            self.middles.append(workspace.shared(f"middle {i}", unit.convolution.outputs, size))
            after = block.main[i + 1].convolution.shape.reach(size)
            self.main.append(UnitPass(unit, workspace, now, after, now_back))
            now, now_back = self.main[-1].out, self.middles[-1]
        if block.shortcut is not None:
            self.shortcut = UnitPass(block.shortcut, workspace, x, NOWHERE, back)
        added = x if self.shortcut is None else self.shortcut.out
        self.main.append(UnitPass(last, workspace, now, reach, now_back, added))
        self.out = self.main[-1].out

    def forward(self) -> Instructions:
        """Set the outputs."""
        *inner, last = self.main
        for unit in inner:
            yield from unit.forward()
        if self.shortcut is not None:
            yield from self.shortcut.forward()
        yield from last.forward()

    def backward(self) -> Instructions:
        """Set all gradients; what stands in ``given`` becomes the gradient of what was added."""
        for i, given in reversed([*enumerate([*self.middles, self.given])]):
            yield from self.main[i].backward(given, more=i == 0 and self.shortcut is None)
        if self.shortcut is not None:
            yield from self.shortcut.backward(self.given, more=True)


class PartPass:
    """A unit or pooling in a row of parts, for one size of inputs: its gradients are in memory that others share.

    Args:
        part: see there.
        workspace: of all planes.
        x: the inputs.
        reach: the zeros that the outputs need around them.
        asked: whether the inputs' gradient is asked for.
        names: of the memory of the inputs' gradient and of the outputs'.
    """

    def __init__(
        self,
        part: Unit | Pooling,
        workspace: Workspace,
        x: Plane,
        reach: Reach,
        asked: bool,
        names: tuple[str, str] = ("out", "out"),
    ) -> None:
        back = workspace.shared(names[0], x.channels, x.size) if asked else None
        self.inner: UnitPass | PoolingPass
        if isinstance(part, Pooling):
            self.out = workspace.plane(x.channels, part.outputs(x.size), reach)
            self.given = workspace.shared(names[1], self.out.channels, self.out.size)
            self.inner = PoolingPass(part, x, self.out, self.given, back)
        else:
            self.inner = UnitPass(part, workspace, x, reach, back)
            self.out = self.inner.out
            self.given = workspace.shared(names[1], self.out.channels, self.out.size)

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
        name = "out"
        for i, part in enumerate(parts):
            size = part.outputs(last.size)
            reach = reach_of(parts[i + 1 : i + 2], size)
            if isinstance(part, Block):
                passes.append(BlockPass(part, space, last, reach, name))
            else:
                # Pooling reads a gradient all the while that it writes the other.
                after = name + "'" if isinstance(part, Pooling) and size == last.size else name
                passes.append(PartPass(part, space, last, reach, i > 0, (name, after)))
                name = after
            last = passes[-1].out
        given = space.shared(name, last.channels, last.size)
        pooled = space.take(last.channels * batch)

        def pool(what: int, plane: Plane) -> list[np.ndarray]:
            numbers = (*plane.size, batch, plane.channels, *plane.layout, pooled)
            return [] if network.flat else [program.row(what, *numbers)]

        forward = [row for part in passes for row in part.forward()]
        backward = [row for part in reversed(passes) for row in part.backward()]
        self.forward_program = program.rows([*forward, *pool(program.POOL, last)])
        self.backward_program = program.rows([*pool(program.POOL_BACK, given), *backward])
        self.work_off = program.runner(np.concatenate([self.forward_program, self.backward_program]))
        self.inputs = first.view()
        mean = space.memory[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.features, self.by_features = (last.view(), given.view()) if network.flat else (mean, mean)
        self.memory, self.moments, self.lists, self.places = space.tables()

    def run(self, instructions: np.ndarray) -> None:
        """Work off instructions."""
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.workspace.packed)
        self.work_off(instructions, self.memory, values, gradients, running, *tables)

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
        units += [part.main[0], part.shortcut] if isinstance(part, Block) else [part] if isinstance(part, Unit) else []
    reaches = [unit.convolution.shape.reach(size) for unit in units if unit is not None] or [NOWHERE]
    before, after = ([max(r[side][d] for r in reaches) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
