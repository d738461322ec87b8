"""A convolutional network over activations with the batch innermost: outputs, and the gradients of all its parameters.

Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.training.learners import program
from lotto.training.learners.after_layers import Bias, Norm, NormPass, PoolingPass, ShiftPass
from lotto.training.learners.batch_innermost import Pair, Plane, Workspace
from lotto.training.learners.conv_layers import ConvolutionPass
from lotto.training.learners.linear_head import Head
from lotto.training.learners.planes import Planes
from lotto.training.learners.steps import AfterStep, ConvolutionStep, PoolingStep, Step
from lotto.training.learners.team import Team

Instructions = list[np.ndarray]


class Vectors(NamedTuple):
    """All parameters, their gradients, running statistics, and BatchNorms' (momentum, eps)."""

    values: np.ndarray
    gradients: np.ndarray
    running: np.ndarray
    constants: np.ndarray


class Network(NamedTuple):
    """Steps one after another, then linear layers over all places (``flat``) or the mean over them.

    ``trained`` are the values whose gradients are asked for.
    """

    steps: Sequence[Step]
    trained: Collection[int]
    flat: bool
    head: Head
    vectors: Vectors


class StepsPass:
    """Steps for one size of inputs, forward and backward.

    Args:
        steps: see `Network`.
        trained: the values whose gradients are asked for.
        workspace: of all planes.
        channels, size: of the inputs.

    Attributes:
        x, out: inputs and outputs.
        given: the outputs' gradient, which `backward` overwrites.
        forward, backward: instructions.
    """

    def __init__(
        self, steps: Sequence[Step], trained: Collection[int], workspace: Workspace, channels: int, size: Pair
    ) -> None:
        self.workspace, self._trained = workspace, {*trained, *(step.out for step in steps if _has_layer(step))}
        self._planes = Planes(steps, workspace, channels, size)
        self._values = {0: self._planes.value(0)}
        for step in steps:
            shared = isinstance(step, AfterStep) and step.in_place
            self._values[step.out] = self._values[step.x] if shared else self._planes.value(step.out)
        last = steps[-1].out
        self.x, self.out, self.given = self._values[0], self._values[last], self._planes.gradient(last)
        self._gradients = {self._planes.same[last]: self.given}
        self.backward: Instructions = []
        parts = [self._step(step) for step in reversed(steps)]
        self.forward = [row for part in reversed(parts) for row in part]

    def _step(self, step: Step) -> Instructions:
        """Add a step's instructions backward; returns those forward."""
        given = self._gradients.pop(self._planes.same[step.out], None)
        if isinstance(step, ConvolutionStep):
            assert given is not None  # it has parameters
            return self._convolution(step, given)
        if isinstance(step, PoolingStep):
            return self._pooling(step, given)
        if isinstance(step.layer, Norm):
            assert given is not None
            return self._norm(step, given)
        return self._shift(step, given)

    def _pooling(self, step: PoolingStep, given: Plane | None) -> Instructions:
        made = PoolingPass(step.pooling, self._values[step.x], self._values[step.out])
        if given is not None:
            self.backward += made.backward(given, *self._written(step.x))
            self._planes.give_back(given)
        return [*made.forward()]

    def _written(self, value: int) -> tuple[Plane, bool]:
        """Where a value's gradient is written, and whether something is there that is added to."""
        at = self._planes.same[value]
        more = at in self._gradients
        if not more:
            self._gradients[at] = self._planes.gradient(value)
        return self._gradients[at], more

    def _convolution(self, step: ConvolutionStep, given: Plane) -> Instructions:
        back, more = self._written(step.x) if step.x in self._trained else (None, False)
        made = ConvolutionPass(step.layer, self.workspace, self._values[step.x], self._values[step.out], given, back)
        self.backward += made.weight_gradient()
        if back is not None:
            self.backward += made.input_gradient(more)
        self._planes.give_back(given)
        return [*made.forward()]

    def _norm(self, step: AfterStep, given: Plane) -> Instructions:
        assert isinstance(step.layer, Norm)
        x, out = self._values[step.x], self._values[step.out]
        added = None if step.added is None else self._values[step.added]
        made = NormPass(step.layer, self.workspace, x, added, out, step.activation)
        rest = [step.added] if step.added in self._trained else []
        left = self._handed_on(given, rest)  # the kernel has made the sum's of it before it writes anything
        if step.x in self._trained and not rest and self._can_take(given, step.x):
            self.backward += made.backward(given, given)
            self._gradients[self._planes.same[step.x]] = given
            return [*made.forward()]
        if step.x in self._trained:
            self.backward += made.backward(given, *self._written(step.x))
        else:  # of parameters alone
            unread = self._planes.gradient(step.x)
            self.backward += made.backward(given, unread)
            self._planes.give_back(unread)
        self._copied(given, left)
        if len(left) == len(rest):
            self._planes.give_back(given)
        return [*made.forward()]

    def _shift(self, step: AfterStep, given: Plane | None) -> Instructions:
        assert step.layer is None or isinstance(step.layer, Bias)
        x, out = self._values[step.x], self._values[step.out]
        added = None if step.added is None else self._values[step.added]
        made = ShiftPass(step.layer, x, added, out, step.activation)
        forward = [*made.forward()]
        if given is None:  # of inputs alone
            return forward
        asked = [value for value in (step.x, step.added) if value in self._trained]
        if len(asked) == 1 and (
            self._planes.same[asked[0]] in self._gradients or not self._planes.can_be(given, asked[0])
        ):
            self.backward += made.backward(given, *self._written(asked[0]))
            self._planes.give_back(given)
            return forward
        if step.layer is not None or step.activation is not None:
            self.backward += made.backward(given, given)
        left = self._handed_on(given, asked)
        self._copied(given, left)
        if len(left) == len(asked):
            self._planes.give_back(given)
        return forward

    def _handed_on(self, given: Plane, values: Sequence[int]) -> list[int]:
        """Let the memory of a gradient be that of the first of some values that has none; returns the others."""
        for value in values:
            if self._can_take(given, value):
                self._gradients[self._planes.same[value]] = given
                return [other for other in values if other != value]
        return [*values]

    def _can_take(self, given: Plane, value: int) -> bool:
        """Whether nothing has been written to a value's gradient, which can lie where another does."""
        return self._planes.same[value] not in self._gradients and self._planes.can_be(given, value)

    def _copied(self, given: Plane, values: Sequence[int]) -> None:
        """Add a gradient to those of some values."""
        for value in values:
            self.backward += ShiftPass(None, given, None, given, None).backward(given, *self._written(value))


def _has_layer(step: Step) -> bool:
    return isinstance(step, ConvolutionStep) or (isinstance(step, AfterStep) and step.layer is not None)


class NetworkPass:
    """A network for one size of inputs, computed by as many threads as torch has.

    Args:
        network: see `Network`.
        channels, size, batch: of the inputs.
        half: whether activations and their gradients are kept as bfloat16.
    """

    def __init__(self, network: Network, channels: int, size: Pair, batch: int, half: bool = False) -> None:
        self.network, self.workspace, self.team = network, Workspace(batch, half), Team(torch.get_num_threads())
        space = self.workspace
        made = StepsPass(network.steps, network.trained, space, channels, size)
        last, given = made.out, made.given
        pooled = space.take_means(last.channels * batch)

        def pool(what: int, plane: Plane) -> Instructions:
            numbers = (*plane.size, batch, plane.channels, *plane.layout, pooled)
            return [] if network.flat else [program.row(what, *numbers)]

        self.forward_program = program.rows([*made.forward, *pool(program.POOL, last)])
        self.backward_program = program.rows([*pool(program.POOL_BACK, given), *made.backward])
        self.kernels = program.runner(np.concatenate([self.forward_program, self.backward_program]))
        self.inputs = made.x.view()
        mean = space.means[pooled : pooled + last.channels * batch].view(last.channels, batch)
        self.features, self.by_features = (last.view(), given.view()) if network.flat else (mean, mean)
        self.memory, self.moments, self.lists, self.places = space.tables()

    def run(self, instructions: np.ndarray) -> None:
        """Work off instructions."""
        values, gradients, running, constants = self.network.vectors
        tables = (self.moments, self.lists, self.places, constants, self.workspace.packed, self.workspace.means.numpy())
        program.work_off(self.team, self.kernels, instructions, self.memory, values, gradients, running, *tables)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (classes, batch) of inputs (features, batch)."""
        self.inputs.copy_(x.view(self.inputs.shape))
        self.run(self.forward_program)
        return self.network.head.forward(self.features.float().reshape(-1, x.shape[1]))

    def backward(self, given: Tensor) -> None:
        """Set all parameters' gradients, from those of the outputs, shape (classes, batch)."""
        by_features = self.network.head.backward(given)
        self.by_features.copy_(by_features.view(self.by_features.shape))
        self.run(self.backward_program)
