"""Outputs of a residual network over activations with the batch innermost, without what gradients need.

Importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.batch_innermost import NOWHERE, Pair, Plane, Reach, Workspace
from lotto.training.learners.conv_layers import ConvolutionPass, NormPass
from lotto.training.learners.residual import Network, Unit, reach_of


class OutputsPass:
    """The outputs of a network for up to so many inputs at a time.

    Args:
        network: see `residual.Network`.
        channels, size, batch: of the inputs.
        frozen: whether BatchNorm is by its running statistics; else by the batch's, which move the running ones.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int, frozen: bool) -> None:
        self.network, self.frozen, self.space = network, frozen, Workspace(batch)
        space, first = self.space, network.stem.convolution.shape
        x = space.plane(channels, size, first.reach(size))
        rows: list[np.ndarray] = []
        last = self._unit("out 0", network.stem, x, reach_of(network.blocks[:1], first.outputs(size)), rows)
        for i, block in enumerate(network.blocks):
            inner = block.second.convolution.shape
            middle_size = block.first.convolution.shape.outputs(last.size)
            middle = self._unit("middle", block.first, last, inner.reach(middle_size), rows)
            added = last
            if block.shortcut is not None:
                added = self._unit("shortcut", block.shortcut, last, NOWHERE, rows, relu=False)
            reach = reach_of(network.blocks[i + 1 : i + 2], inner.outputs(middle_size))
            last = self._unit(f"out {(i + 1) % 2}", block.second, middle, reach, rows, added)
        pooled = space.take(last.channels * batch)
        rows.append(program.row(program.POOL, *last.size, batch, last.channels, *last.layout, pooled))
        self.program = program.rows(rows)
        self.inputs = x.view()
        self.pooled = space.memory[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.memory, self.moments, self.lists, self.places = space.tables()

    def _unit(
        self,
        name: str,
        unit: Unit,
        x: Plane,
        reach: Reach,
        rows: list[np.ndarray],
        added: Plane | None = None,
        relu: bool = True,
    ) -> Plane:
        """Add a unit's instructions; returns its outputs, in memory that others of the same name and size share."""
        layer, norm = unit
        size = layer.shape.outputs(x.size)
        raw = self.space.shared("raw", layer.outputs, size)
        out = self.space.shared(name, layer.outputs, size, reach)
        rows += ConvolutionPass(layer, self.space, x, raw, None, None).forward()
        rows += NormPass(norm, self.space, raw, added, out, None, relu, self.frozen).forward()
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs, shape (examples, classes), of inputs of shape (examples, ...)."""
        batch, head = self.space.batch, self.network.head
        parts = [torch.addmm(head.bias, self._pooled(part).t(), head.weight.t()) for part in x.flatten(1).split(batch)]
        return torch.cat(parts)

    def _pooled(self, x: Tensor) -> Tensor:
        """Shape (channels, examples); with running statistics an example's do not depend on the others."""
        channels, height, width, _ = self.inputs.shape
        self.inputs[..., : len(x)].copy_(x.t().reshape(channels, height, width, len(x)))
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.space.packed)
        program.run(self.program, self.memory, values, gradients, running, *tables)
        return self.pooled[:, : len(x)]
