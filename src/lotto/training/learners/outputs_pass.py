"""Outputs of a convolutional network over activations with the batch innermost, without what gradients need.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.after_layers import PoolingPass
from lotto.training.learners.batch_innermost import NOWHERE, Pair, Plane, Pooling, Reach, Workspace
from lotto.training.learners.conv_layers import ConvolutionPass
from lotto.training.learners.network_pass import Block, Network, Unit, after_passes, reach_of


class OutputsPass:
    """The outputs of a network for up to so many inputs at a time.

    Args:
        network: see `network_pass.Network`.
        channels, size, batch: of the inputs.
        frozen: whether BatchNorm is by its running statistics; else by the batch's, which move the running ones.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int, frozen: bool) -> None:
        self.network, self.frozen, self.space = network, frozen, Workspace(batch)
        space, parts, self._rows = self.space, network.parts, list[np.ndarray]()
        last = first = space.plane(channels, size, reach_of(parts[:1], size))
        for i, part in enumerate(parts):
            reach = reach_of(parts[i + 1 : i + 2], part.outputs(last.size))
            last = self._part(f"out {i % 2}", part, last, reach)
        pooled = space.take(last.channels * batch)
        if not network.flat:
            self._rows.append(program.row(program.POOL, *last.size, batch, last.channels, *last.layout, pooled))
        mean = space.memory[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.inputs, self.features = first.view(), last.view() if network.flat else mean
        self.program = program.rows(self._rows)
        self.work_off = program.runner(self.program)
        self.memory, self.moments, self.lists, self.places = space.tables()

    def _part(self, name: str, part: Unit | Block | Pooling, x: Plane, reach: Reach) -> Plane:
        """Add a part's instructions; returns its outputs, see `_unit`."""
        if isinstance(part, Unit):
            return self._unit(name, part, x, reach)
        if isinstance(part, Pooling):
            out = self.space.shared(name, x.channels, part.outputs(x.size), reach)
            self._rows += PoolingPass(part, x, out).forward()
            return out
        *inner, last = part.main
        now = x
        for i, unit in enumerate(inner):
            after = part.main[i + 1].convolution.shape.reach(unit.outputs(now.size))
            now = self._unit(f"middle {i % 2}", unit, now, after)
        added = x if part.shortcut is None else self._unit("shortcut", part.shortcut, x, NOWHERE)
        return self._unit(name, last, now, reach, added)

    def _unit(self, name: str, unit: Unit, x: Plane, reach: Reach, added: Plane | None = None) -> Plane:
        """Add a unit's instructions; returns its outputs, in memory that others of the same name and size share."""
        layer, size = unit.convolution, unit.outputs(x.size)
        raw = self.space.shared("raw", layer.outputs, size)
        out = self.space.shared(name, layer.outputs, size, reach)
        self._rows += ConvolutionPass(layer, self.space, x, raw, None, None).forward()
        for after in after_passes(unit, self.space, raw, out, None, added, self.frozen):
            self._rows += after.forward()
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs, shape (examples, classes), of inputs of shape (examples, ...)."""
        return torch.cat([self._outputs(part) for part in x.flatten(1).split(self.space.batch)])

    def _outputs(self, x: Tensor) -> Tensor:
        """Shape (examples, classes); with running statistics an example's do not depend on the others."""
        channels, height, width, batch = self.inputs.shape
        self.inputs[..., : len(x)].copy_(x.t().reshape(channels, height, width, len(x)))
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.space.packed)
        self.work_off(self.program, self.memory, values, gradients, running, *tables)
        return self.network.head.forward(self.features.reshape(-1, batch))[:, : len(x)].t()
