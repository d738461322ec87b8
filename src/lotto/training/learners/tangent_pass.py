"""How the gradients of a convolutional network move as its weights move in a direction, by kernels.

In evaluation mode BatchNorm is a multiplication and a sum, which go into the convolutions before it; what is left is
piecewise linear. So its activations move by convolutions of the activations with the direction and of their own
movements with the weights (Pearlmutter, Neural Computation 6, 1994: the R operator), ReLU lets movements through where
it lets activations through, and gradients move alike on the way back.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners import program, tangent_program
from lotto.training.learners.after_layers import PoolingPass
from lotto.training.learners.batch_innermost import LANES, Plane, Pooling, Reach, Workspace
from lotto.training.learners.conv_layers import ConvolutionPass
from lotto.training.learners.tangent_nodes import Activation, Way

Instructions = Iterator[np.ndarray]


@dataclass
class _WayPass:
    """A convolution of activations and of what moves; None = that does not move.

    Attributes:
        source: the number of the activation that it reads.
        still: activations with the weights.
        moved: movements with the weights.
        directed, moved_directed: activations and movements with the direction.
    """

    source: int
    still: ConvolutionPass
    moved: ConvolutionPass | None = None
    directed: ConvolutionPass | None = None
    moved_directed: ConvolutionPass | None = None


class TangentPass:
    """Activations, gradients and how both move, for one size of batch.

    Activations and gradients are those of a *slot*: with one for each batch they are computed once only. What moves has
    memory that all slots share.

    Args:
        nodes: see `tangent_nodes.activations`.
        batch: its size, a multiple of `LANES`; what it is filled up with is to have gradients of 0.
        slots: how many batches are kept.
        flat: whether features are all places of the last activation; else the mean over them.
        values: the weights with what BatchNorm multiplies them by, the direction alike, and the biases.
    """

    def __init__(self, nodes: Sequence[Activation], batch: int, slots: int, flat: bool, values: np.ndarray) -> None:
        assert batch % LANES == 0
        self.nodes, self.batch, self.slots, self.flat, self.values = nodes, batch, slots, flat, values
        self.gradients = np.zeros_like(values)
        held, space = Workspace(batch), Workspace(batch)
        read = [[way.weights.shape.reach(n.size) for m in nodes for way in m.ways if way.source == i]
                for i, n in enumerate(nodes)]  # fmt: skip
        back = [[way.weights.shape.back_reach(nodes[way.source].size) for way in node.ways] for node in nodes]
        self.held = [held.plane(n.channels, n.size, widest(r)) for n, r in zip(nodes, read, strict=True)]
        self.given = self._planes(held, back)
        self.moved = self._planes(space, read)
        self.moved_given = self._in_turns(space, [widest(r) for r in back])
        self.ways = [[self._way_pass(space, way, i) for way in node.ways] for i, node in enumerate(nodes)]
        self.pooled = space.take(nodes[-1].channels * batch)
        self.slot, self.working = held.size, space.size
        self._shift(self.working)
        self.programs = self._programs()
        self._shift(self.slot)
        self.steps = [later - first for first, later in zip(self.programs, self._programs(), strict=True)]
        self._shift(-self.slot)
        space.size += slots * self.slot
        self.packed = space.packed
        self.memory, _, self.lists, self.places = space.tables()
        self.numbers = space.memory

    def _planes(self, space: Workspace, reaches: Sequence[Sequence[Reach]]) -> list[Plane | None]:
        """One for each activation that moves."""
        return [
            space.plane(node.channels, node.size, widest(r)) if node.moves else None
            for node, r in zip(self.nodes, reaches, strict=True)
        ]

    def _in_turns(self, space: Workspace, reach: Sequence[Reach]) -> list[Plane | None]:
        """Planes of how gradients move: others have them after the activations that they are of."""
        found: list[Plane | None] = [None] * len(self.nodes)
        free: dict[object, list[Plane]] = {}

        def take(i: int) -> None:
            node = self.nodes[i]
            if node.moves and found[i] is None:
                known = free.get((node.channels, node.size, reach[i]))
                found[i] = known.pop() if known else space.plane(node.channels, node.size, reach[i])

        def give(i: int) -> None:
            if (plane := found[i]) is not None:
                free.setdefault((plane.channels, plane.size, reach[i]), []).append(plane)

        take(len(self.nodes) - 1)
        for i in range(len(self.nodes) - 1, -1, -1):
            for source in self.nodes[i].sources:
                take(source)
            if (later := self._added_to(i)) is not None:
                give(later)
            if self.nodes[i].added is None:
                give(i)
        return found

    def _added_to(self, i: int) -> int | None:
        """The activation that one is added to."""
        return next((j for j, node in enumerate(self.nodes) if node.added == i), None)

    def _way_pass(self, space: Workspace, way: Way, i: int) -> _WayPass:
        x, out, given, back = self.held[way.source], self.held[i], self.given[i], self.given[way.source]
        made = _WayPass(way.source, ConvolutionPass(way.weights, space, x, out, given, back))
        if (moved_out := self.moved[i]) is None:
            return made
        moved, moved_given, moved_back = self.moved[way.source], self.moved_given[i], self.moved_given[way.source]
        if way.is_directed:
            made.directed = ConvolutionPass(way.direction, space, x, moved_out, moved_given, None)
        if moved is not None:
            made.moved = ConvolutionPass(way.weights, space, moved, moved_out, moved_given, moved_back)
        if way.is_directed and moved is not None:
            made.moved_directed = ConvolutionPass(way.direction, space, moved, moved_out, given, moved_back)
        return made

    def _shift(self, by: int) -> None:
        """Move what a slot holds."""
        for plane in (*self.held, *self.given):
            if plane is not None:
                plane.start += by

    def _programs(self) -> list[np.ndarray]:
        """Forward and backward, and how both move, with the slot where it is now."""
        parts = (self._forward(), self._backward(self.given), self._forward_moves(), self._backward(self.moved_given))
        return [program.rows(part) for part in parts]

    def _forward(self) -> Instructions:
        """Set the activations."""
        for node, ways, out in zip(self.nodes, self.ways, self.held, strict=True):
            for k, way in enumerate(ways):
                yield from way.still.forward(more=k > 0)
            if node.pooling is not None:
                yield from PoolingPass(node.pooling[0], self.held[node.pooling[1]], out).forward()
            elif ways:
                added = out if node.added is None else self.held[node.added]
                layouts = [number for plane in (out, added, out) for number in plane.layout]
                flags = (node.added is not None, node.relu)
                yield program.row(tangent_program.SETTLE, *out.runs, node.channels, *layouts, node.bias, *flags)
        yield from self._mean(program.POOL, self.held[-1])

    def _forward_moves(self) -> Instructions:
        """Set how the activations move."""
        for node, ways, held, out in zip(self.nodes, self.ways, self.held, self.moved, strict=True):
            if out is None:
                continue
            more = False
            for way in ways:
                for part in (way.directed, way.moved):
                    if part is not None:
                        yield from part.forward(more)
                        more = True
            if node.pooling is not None:
                yield from self._pool_moves(*node.pooling, held, out)
            else:
                yield from self._gate(node, out, None if node.added is None else self.moved[node.added], held)
        yield from self._mean(program.POOL, self.moved[-1])

    def _pool_moves(self, pooling: Pooling, source: int, held: Plane, out: Plane) -> Instructions:
        x, moved = self.held[source], self.moved[source]
        assert moved is not None
        if pooling.average:
            yield from PoolingPass(pooling, moved, out).forward()
            return
        layouts = [number for plane in (x, held, moved, out) for number in plane.layout]
        block = (*pooling.size, *pooling.step, *pooling.padding)
        yield program.row(tangent_program.PICK, *out.places, x.channels, *layouts, *x.size, *block)

    def _backward(self, gradients: Sequence[Plane | None]) -> Instructions:
        """Set the gradients before ReLU from that of the last activation, or how they and the weights' move."""
        moves, written = gradients is self.moved_given, set[int]()
        yield from self._mean(program.POOL_BACK, gradients[-1])
        for i, node in reversed([*enumerate(self.nodes)]):
            if (given := gradients[i]) is None:
                continue
            later = self._added_to(i)
            yield from self._gate(node, given, None if later is None else gradients[later], self.held[i])
            if node.pooling is not None:
                pooling, source = node.pooling
                yield from self._pool_back(pooling, self.held[source], self.held[i], given, gradients[source])
            for way in self.ways[i]:
                for part in (way.moved, way.moved_directed) if moves else (way.still,):
                    if part is not None and part.back is not None:
                        yield from part.input_gradient(more=way.source in written)
                        written.add(way.source)
                if moves and way.directed is not None:
                    yield from way.directed.weight_gradient()
                    if way.moved_directed is not None:
                        yield from way.moved_directed.weight_gradient(more=True)

    def _pool_back(self, pooling: Pooling, x: Plane, out: Plane, given: Plane, back: Plane | None) -> Instructions:
        if back is not None:
            yield from PoolingPass(pooling, x, out).backward(given, back)

    def _gate(self, node: Activation, out: Plane, added: Plane | None, held: Plane) -> Instructions:
        if added is not None or node.relu:
            layouts = [number for plane in (out, added or out, held) for number in plane.layout]
            yield program.row(tangent_program.GATE, *out.runs, node.channels, *layouts, 0, added is not None, node.relu)

    def _mean(self, what: int, plane: Plane | None) -> Instructions:
        """From or to the mean over places."""
        if plane is not None and not self.flat:
            yield program.row(what, *plane.size, self.batch, plane.channels, *plane.layout, self.pooled)

    def _run(self, part: int, slot: int) -> None:
        instructions = self.programs[part] + slot * self.steps[part]
        tables = (self.lists, self.places, self.packed)
        tangent_program.run(instructions, self.memory, self.values, self.gradients, *tables)

    def _view(self, plane: Plane, slot: int) -> Tensor:
        """An activation, shape (channels, height, width, batch)."""
        size = (plane.channels, *plane.size, self.batch)
        start = plane.start + slot * self.slot
        return self.numbers.as_strided(size, (plane.channel, plane.row, plane.column, 1), start)

    def _features(self, plane: Plane, slot: int) -> Tensor:
        """What linear layers read of an activation, shape (features, batch), in memory of its own if it is to stay."""
        if self.flat:
            return self._view(plane, slot).reshape(-1, self.batch)
        return self._mean_memory

    @property
    def _mean_memory(self) -> Tensor:
        channels = self.nodes[-1].channels
        return self.numbers[self.pooled : self.pooled + channels * self.batch].view(channels, self.batch)

    def _set_last(self, plane: Plane, slot: int, gradient: Tensor) -> None:
        """Hand over the gradient of features."""
        if self.flat:
            view = self._view(plane, slot)
            view.copy_(gradient.view(view.shape))
        else:
            self._mean_memory.copy_(gradient)

    def forward(self, x: Tensor, slot: int) -> Tensor:
        """Set the activations of examples (batch, ...); returns their features, shape (features, batch)."""
        inputs = self._view(self.held[0], slot)
        inputs.zero_()
        inputs[..., : len(x)] = x.flatten(1).t().reshape(*inputs.shape[:3], len(x))
        self._run(0, slot)
        return self._features(self.held[-1], slot).clone()

    def backward(self, gradient: Tensor, slot: int) -> None:
        """Set the gradients, from that of the features."""
        if (last := self.given[-1]) is not None:
            self._set_last(last, slot, gradient)
            self._run(1, slot)

    def forward_moves(self, slot: int) -> Tensor:
        """How the features move, shape (features, batch); to be read before the next call."""
        if (last := self.moved[-1]) is None:
            node = self.nodes[-1]
            return torch.zeros(node.channels * (node.size[0] * node.size[1] if self.flat else 1), self.batch)
        self._run(2, slot)
        return self._features(last, 0)

    def backward_moves(self, gradient: Tensor, slot: int) -> None:
        """Set how the weights' gradients move, where those of the direction stand in ``gradients``."""
        if (last := self.moved_given[-1]) is not None:
            self._set_last(last, 0, gradient)
            self._run(3, slot)


def widest(reaches: Sequence[Reach]) -> Reach:
    """The rows and columns that all of several need."""
    before, after = ([max([r[side][d] for r in reaches], default=0) for d in range(2)] for side in range(2))
    return (before[0], before[1]), (after[0], after[1])
