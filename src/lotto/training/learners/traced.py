"""Networks of anyone's as descriptions: from the operators that they call, see `operations`.

Each operator is a node of a known kind, or a change of shape that says nothing. What is not understood is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lotto.models.plain import has_separate_parameters, is_unhooked
from lotto.training.learners.activations import RELU, Activation
from lotto.training.learners.batch_innermost import Pair, Pooling
from lotto.training.learners.descriptions import (
    Activate,
    Add,
    Convolve,
    Description,
    Node,
    Normalise,
    Pool,
    channels_and_size,
    is_simple,
)
from lotto.training.learners.operations import (
    RESHAPES,
    Operation,
    Unknown,
    check_mean_over_places,
    is_sum_of_two,
    operations_of,
)

_SHAPE = ("stride", "padding", "dilation")
_RESHAPES = {*RESHAPES, "clone"}
_ACTIVATIONS = {"relu", "hardtanh", "leaky_relu"}
_NODES = {"convolution", "native_batch_norm", "max_pool2d_with_indices", "avg_pool2d"}


def traced(module: nn.Module, shape: Sequence[int]) -> Description:
    """What a module computes of examples of a shape, in training and in evaluation mode alike.

    Args:
        module: on the CPU; its mode is as before afterwards.
        shape: of an example.

    Raises:
        Unknown: if it computes something that no description says, or if it is not known what.
    """
    if not (is_unhooked(module) and has_separate_parameters(module)):
        raise Unknown("hooks, or tensors that share memory")
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
        raise Unknown("tensors that are not float32 on the CPU")
    mode, found = module.training, []
    try:
        for training in (True, False):
            module.train(training)
            found.append(_Reader(module, operations_of(module, shape), shape).description())
    finally:
        module.train(mode)
    if found[0] != found[1]:
        raise Unknown("another network in training than in evaluation")
    used = {*found[0].layers}
    if len(found[0].layers) != len(used):
        raise Unknown("a layer that is used twice")
    owners = {name.rpartition(".")[0] for name in (*dict(module.named_parameters()), *dict(module.named_buffers()))}
    if owners != used:
        raise Unknown(f"parameters or buffers that the outputs do not depend on ({min(owners ^ used)!r})")
    return found[0]


@dataclass(frozen=True)
class _Row:
    """Numbers in a row for each example.

    Attributes:
        mean: whether they are means over places.
        linear: how many linear layers they have gone through.
        activation: what they have gone through since, or None.
    """

    mean: bool
    linear: int = 0
    activation: Activation | None = None


class _Reader:
    """Reads a network from its operations.

    Args:
        module: see `traced`; in the mode the operations are of.
        operations: see `operations_of`.
        shape: of an example.
    """

    def __init__(self, module: nn.Module, operations: Sequence[Operation], shape: Sequence[int]) -> None:
        self.module, self.operations = module, operations
        if len(shape) > 3:
            raise Unknown(f"inputs of shape {list(shape)}")
        self.places = channels_and_size(shape)
        self.nodes: list[Node] = []
        self.linear: list[str] = []
        self.before: list[Activation | None] = []
        self.read: dict[int, int | _Row] = {}
        """What an operation's outcome is: a value of the network, or what linear layers read."""

    def description(self) -> Description:
        """The network."""
        for number, operation in enumerate(self.operations):
            self.read[number] = self._outcome(number, operation)
        end = self.read[len(self.operations) - 1]
        if not any(isinstance(node, Convolve) for node in self.nodes):
            raise Unknown("no convolutions")
        if not isinstance(end, _Row) or not end.linear or end.activation is not None:
            raise Unknown("outputs that no linear layer gives")
        return Description(tuple(self.nodes), not end.mean, tuple(self.linear), tuple(self.before))

    def _outcome(self, number: int, operation: Operation) -> int | _Row:
        if number == 0:
            return 0
        name = operation.name
        if name in _RESHAPES:
            return self._reshaped(operation)
        if name in ("addmm", "mm"):
            return self._through_linear(operation)
        if name in _ACTIVATIONS:
            return self._activated(operation)
        if name == "mean":
            check_mean_over_places(operation, self.operations)
            self._value(operation)
            return _Row(mean=True)
        return self._added(operation)

    def _added(self, operation: Operation) -> int:
        """A value more, or the one that pooling over single places gives again."""
        name = operation.name
        if name == "add":
            if not is_sum_of_two(operation, self.operations) or len({*operation.inputs}) < 2:
                raise Unknown(name)
            return self._node(Add(self._value(operation), self._value(operation, 1)))
        if name not in _NODES:
            raise Unknown(name)
        x = self._value(operation)
        if name == "convolution":
            return self._node(Convolve(x, self._convolution(operation)))
        if name == "native_batch_norm":
            return self._node(Normalise(x, self._norm(operation)))
        return x if self._is_nothing(operation) else self._node(Pool(x, self._pooling(operation)))

    def _node(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes)

    def _value(self, operation: Operation, i: int = 0) -> int:
        """The value that an operation reads, with its channels and places."""
        source = operation.inputs[i]
        found, shape = self.read[source], self.operations[source].shape
        if found == 0 and _places(shape) != self.places:
            raise Unknown(f"inputs reshaped to {list(shape[1:])}")
        if isinstance(found, _Row):
            raise Unknown(f"{operation.name} of what has no places")
        return found

    def _reshaped(self, operation: Operation) -> int | _Row:
        """A change of shape keeps channels and places, or puts an example's numbers in a row."""
        source = operation.inputs[0]
        found, old = self.read[source], self.operations[source].shape
        if found == 0:
            return 0  # its own channels and size are compared, see `_value`
        if not isinstance(found, _Row) and _places(old) is not None and _places(old) == _places(operation.shape):
            return found
        if operation.shape[0] != old[0]:
            raise Unknown(operation.name)
        # Of one place, the mean is that number.
        return found if isinstance(found, _Row) else _Row(mean=math.prod(old[2:]) == 1)

    def _is_nothing(self, operation: Operation) -> bool:
        """Whether pooling is over single places."""
        if operation.name != "avg_pool2d" or operation.shape != self.operations[operation.inputs[0]].shape:
            return False
        given = operation.arguments
        return set(given["kernel_size"]) == {1} and not given.get("divisor_override")

    def _activated(self, operation: Operation) -> int | _Row:
        activation, found = _activation(operation), self.read[operation.inputs[0]]
        if not isinstance(found, _Row):
            return self._node(Activate(self._value(operation), activation))
        if found.activation is not None:
            raise Unknown(f"{operation.name} of what has gone through another function")
        return replace(found, activation=activation)

    def _through_linear(self, operation: Operation) -> _Row:
        found = self.read[operation.inputs[0]]
        if not isinstance(found, _Row) or found.linear != len(self.linear):
            raise Unknown(f"{operation.name} of what has places, or beside another one")
        self.linear.append(self._linear_name(operation))
        self.before.append(found.activation)
        return _Row(found.mean, len(self.linear))

    def _linear_name(self, operation: Operation) -> str:
        given = operation.arguments
        name = str(given["mat2"]).removesuffix(".weight.t")
        layer = self._layer(name, nn.Linear)
        bias = None if layer.bias is None else f"{name}.bias"
        read = given["self"] if operation.name == "addmm" else None
        if (read, given["mat2"]) != (bias, f"{name}.weight.t"):
            raise Unknown(f"{operation.name}: not that of a linear layer")
        if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
            raise Unknown("addmm: scaled")
        return name

    def _convolution(self, operation: Operation) -> str:
        given = operation.arguments
        name = str(given["weight"]).removesuffix(".weight")
        layer = self._layer(name, (nn.Conv1d, nn.Conv2d))
        bias = None if layer.bias is None else f"{name}.bias"
        if (given["weight"], given["bias"]) != (f"{name}.weight", bias):
            raise Unknown("convolution: not that of a layer")
        if not is_simple(layer) or given["transposed"]:
            raise Unknown(f"convolution with other padding than zeros ({name})")
        read = [*(list(given[what]) for what in _SHAPE), given["groups"]]
        if read != [*(list(getattr(layer, what)) for what in _SHAPE), layer.groups]:
            raise Unknown("convolution: not as its layer says")
        return name

    def _norm(self, operation: Operation) -> str:
        given = operation.arguments
        name = str(given["weight"]).removesuffix(".weight")
        layer = self._layer(name, nn.modules.batchnorm._BatchNorm)
        parts = tuple(given[what] for what in ("weight", "bias", "running_mean", "running_var"))
        if parts != tuple(f"{name}.{what}" for what in ("weight", "bias", "running_mean", "running_var")):
            raise Unknown("BatchNorm without weights or running statistics")
        if given["training"] != self.module.training:
            raise Unknown(f"BatchNorm that does not follow the network's mode ({name})")
        if given["eps"] != layer.eps or (given["training"] and given["momentum"] != layer.momentum):
            raise Unknown("BatchNorm: not as its layer says")
        return name

    def _layer(self, name: str, kinds: Any) -> Any:
        """The module that owns parameters of a name."""
        try:
            layer = self.module.get_submodule(name)
        except AttributeError:
            layer = None
        if not isinstance(layer, kinds):
            raise Unknown(f"{name!r} is no parameter of a layer of its kind")
        return layer

    def _pooling(self, operation: Operation) -> Pooling:
        given, places = operation.arguments, _places(self.operations[operation.inputs[0]].shape)
        if set(given.get("dilation") or (1,)) != {1} or given.get("ceil_mode"):
            raise Unknown("pooling with dilation or ceil_mode")
        if given.get("divisor_override") or not given.get("count_include_pad", True):
            raise Unknown("average pooling that divides by another number than that of a block's places")
        if places is None:
            raise Unknown(operation.name)
        kernel = _pair(given["kernel_size"])
        stride, padding = _pair(given.get("stride") or kernel), _pair(given.get("padding") or (0, 0))
        return Pooling(kernel, None if stride == kernel else stride, padding, operation.name == "avg_pool2d")


def _activation(operation: Operation) -> Activation:
    given = operation.arguments
    if operation.name == "relu":
        return RELU
    if operation.name == "hardtanh":
        low, high = float(given.get("min_val", -1.0)), float(given.get("max_val", 1.0))
        if not low < high:
            raise Unknown(f"hardtanh between {low} and {high}")
        return Activation(low, high)
    slope = float(given.get("negative_slope", 0.01))
    if not slope > 0:
        raise Unknown(f"leaky_relu with the slope {slope}")
    return Activation(slope=slope)


def _places(shape: Sequence[int]) -> tuple[int, Pair] | None:
    """Channels and (height, width) of an activation with its batch; None for what has no places."""
    return channels_and_size(shape[1:]) if len(shape) in (3, 4) else None


def _pair(sizes: Sequence[int]) -> Pair:
    """Height and width, which may be given as one number."""
    return sizes[0], sizes[-1]
