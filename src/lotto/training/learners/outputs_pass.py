"""Outputs of a convolutional network over activations with the batch innermost, without what gradients need.

Importing this module needs numba.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.after_layers import Norm, NormPass, PoolingPass, ShiftPass
from lotto.training.learners.batch_innermost import Pair, Plane, Workspace
from lotto.training.learners.conv_layers import ConvolutionPass
from lotto.training.learners.network_pass import Instructions, Network
from lotto.training.learners.planes import Planes
from lotto.training.learners.steps import AfterStep, ConvolutionStep, Step
from lotto.training.learners.team import Team


class OutputsPass:
    """The outputs of a network for up to so many inputs at a time, computed by as many threads as torch has.

    Args:
        network: see `network_pass.Network`.
        channels, size, batch: of the inputs.
        frozen: whether BatchNorm is by its running statistics; else by the batch's, which move the running ones.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int, frozen: bool) -> None:
        self.network, self.frozen, self.space = network, frozen, Workspace(batch)
        self.team = Team(torch.get_num_threads())
        planes = Planes(network.steps, self.space, channels, size)
        values, rows = {0: planes.value(0)}, Instructions()
        first = values[0]
        for i, step in enumerate(network.steps):
            shared = isinstance(step, AfterStep) and step.in_place
            values[step.out] = values.pop(step.x) if shared else planes.value(step.out)
            rows += self._step(step, values)
            still = {value for later in network.steps[i + 1 :] for value in _read(later)} | {step.out}
            for value in [value for value in values if value not in still]:
                planes.give_back(values.pop(value))
        last = values[network.steps[-1].out]
        pooled = self.space.take_means(last.channels * batch)
        if not network.flat:
            rows.append(program.row(program.POOL, *last.size, batch, last.channels, *last.layout, pooled))
        mean = self.space.means[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.inputs, self.features = first.view(), last.view() if network.flat else mean
        self.program = program.rows(rows)
        self.kernels = program.runner(self.program)
        self.memory, self.moments, self.lists, self.places = self.space.tables()

    def _step(self, step: Step, values: dict[int, Plane]) -> Instructions:
        """The instructions of a step; what is added in place lies where the step's outputs do."""
        out = values[step.out]
        x = values.get(step.x, out)
        if isinstance(step, ConvolutionStep):
            return [*ConvolutionPass(step.layer, self.space, x, out, None, None).forward()]
        if not isinstance(step, AfterStep):
            return [*PoolingPass(step.pooling, x, out).forward()]
        added = None if step.added is None else values[step.added]
        if isinstance(step.layer, Norm):
            return [*NormPass(step.layer, self.space, x, added, out, step.activation, self.frozen).forward()]
        return [*ShiftPass(step.layer, x, added, out, step.activation).forward()]

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs, shape (examples, classes), of inputs of shape (examples, ...)."""
        return torch.cat([self._outputs(part) for part in x.flatten(1).split(self.space.batch)])

    def _outputs(self, x: Tensor) -> Tensor:
        """Shape (examples, classes); with running statistics an example's do not depend on the others."""
        channels, height, width, batch = self.inputs.shape
        self.inputs[..., : len(x)].copy_(x.t().reshape(channels, height, width, len(x)))
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.space.packed, self.space.means.numpy())
        program.work_off(self.team, self.kernels, self.program, self.memory, values, gradients, running, *tables)
        return self.network.head.forward(self.features.reshape(-1, batch))[:, : len(x)].t()


def _read(step: Step) -> set[int]:
    """The values that a step reads."""
    return {step.x} | ({step.added} if isinstance(step, AfterStep) and step.added is not None else set())
