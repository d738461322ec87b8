"""Networks of anyone's as descriptions: from the operators that they call, see `operations`.

Operators are merged to layers of known kinds, and these to units and blocks. What is not understood is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lotto.models.plain import has_separate_parameters, is_unhooked
from lotto.training.learners.batch_innermost import Pair, Pooling
from lotto.training.learners.descriptions import (
    BlockNames,
    Description,
    UnitNames,
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
    names = [*(unit.convolution for unit in found[0].units), *found[0].linear]
    if len(names) != len({*names}):
        raise Unknown("a layer that is used twice")
    used = {name for unit in found[0].units for name in (unit.convolution, unit.norm) if name} | {*found[0].linear}
    owners = {name.rpartition(".")[0] for name in (*dict(module.named_parameters()), *dict(module.named_buffers()))}
    if owners != used:
        raise Unknown(f"parameters or buffers that the outputs do not depend on ({min(owners ^ used)!r})")
    return found[0]


class _At(NamedTuple):
    """An activation: the operation that gives it, and those that read it, without changes of shape between."""

    number: int
    readers: list[int]


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

    def description(self) -> Description:
        """The network."""
        parts: list[UnitNames | BlockNames | Pooling] = []
        at = self._from(0)
        self._check_inputs(at)
        while not self._is_end(at):
            part, at = self._part(at)
            parts += part
        if not any(isinstance(part, UnitNames | BlockNames) for part in parts):
            raise Unknown("no convolutions")
        flat, at = self._features(at)
        return Description(parts, flat, self._linear(at))

    def _check_inputs(self, at: _At) -> None:
        """That what the first layers read is the example, with its channels and size."""
        for reader in at.readers:
            source = self.operations[self.operations[reader].inputs[0]]
            if _places(source.shape) != self.places:
                raise Unknown(f"inputs reshaped to {list(source.shape[1:])}")

    def _from(self, number: int) -> _At:
        """An operation's outcome, and who reads it in any shape that keeps channels and places."""
        readers: list[int] = []
        for reader in self.operations[number].readers:
            operation = self.operations[reader]
            kept = self._keeps(number, operation) if operation.name in _RESHAPES else self._is_nothing(operation)
            readers += self._from(reader).readers if kept else [reader]
        return _At(number, readers)

    def _keeps(self, number: int, operation: Operation) -> bool:
        """Whether a change of shape only adds or takes away axes of length 1 behind the channels."""
        if self._is_input(number):
            return True  # its own channels and size are compared, see `_check_inputs`
        old, new = _places(self.operations[number].shape), _places(operation.shape)
        return new is not None and old == new

    def _is_input(self, number: int) -> bool:
        """Whether it is the example in some shape."""
        operation = self.operations[number]
        return number == 0 or (operation.name in _RESHAPES and self._is_input(operation.inputs[0]))

    def _is_nothing(self, operation: Operation) -> bool:
        """Whether pooling is over single places."""
        if operation.name != "avg_pool2d" or operation.shape != self.operations[operation.inputs[0]].shape:
            return False
        given = operation.arguments
        return set(given["kernel_size"]) == {1} and not given.get("divisor_override")

    def _only(self, at: _At, *names: str) -> int | None:
        """The one reader of an activation, if it is of this name."""
        found = set(at.readers)
        return min(found) if len(found) == 1 and self.operations[min(found)].name in names else None

    def _is_end(self, at: _At) -> bool:
        """Whether features follow: the mean over places, or all of them in a row."""
        return self._only(at, "mean", "addmm", "mm", *_RESHAPES) is not None

    def _part(self, at: _At) -> tuple[list[UnitNames | BlockNames | Pooling], _At]:
        """The layers that read an activation."""
        if (pooled := self._only(at, "max_pool2d_with_indices", "avg_pool2d")) is not None:
            return [self._pooling(pooled)], self._from(pooled)
        if self._only(at, "convolution") is not None:
            unit, at = self._unit(at.readers[0])
            if (pooled := self._only(at, "max_pool2d_with_indices")) is not None:
                after = self._from(pooled)
                if (relu := self._only(after, "relu")) is not None:  # the greatest number of what ReLU gives is that
                    return [unit._replace(relu=True), self._pooling(pooled)], self._from(relu)
            at, relu = self._relu(at)
            return [unit._replace(relu=relu)], at
        return self._block(at)

    def _relu(self, at: _At) -> tuple[_At, bool]:
        relu = self._only(at, "relu")
        return (at, False) if relu is None else (self._from(relu), True)

    def _unit(self, number: int) -> tuple[UnitNames, _At]:
        """A convolution, and BatchNorm if it follows."""
        name = self._convolution(self.operations[number])
        at = self._from(number)
        if (norm := self._only(at, "native_batch_norm")) is not None:
            return UnitNames(name, self._norm(self.operations[norm]), False), self._from(norm)
        if self.module.get_submodule(name).bias is None:
            raise Unknown(f"a convolution with neither bias nor BatchNorm ({name})")
        return UnitNames(name, None, False), at

    def _block(self, at: _At) -> tuple[list[UnitNames | BlockNames | Pooling], _At]:
        """Two ways from an activation to a sum."""
        readers = sorted(set(at.readers))
        names = [self.operations[reader].name for reader in readers]
        if sorted(names) not in (["add", "convolution"], ["convolution", "convolution"]):
            raise Unknown(self._what(readers))
        ways = [self._way(reader) for reader, name in zip(readers, names, strict=True) if name == "convolution"]
        ends = {end for _, end in ways} | {r for r, name in zip(readers, names, strict=True) if name == "add"}
        if len(ends) != 1:
            raise Unknown("ways that do not meet in a sum of two")
        (end,) = ends
        if not is_sum_of_two(self.operations[end], self.operations):
            raise Unknown(self._what([end]))
        units = [way for way, _ in ways]
        main, shortcut = (units[0], None) if len(units) == 1 else sorted(units, key=len, reverse=True)
        if shortcut is not None and len(shortcut) != 1:
            raise Unknown("a shortcut of several convolutions")
        if main[-1].norm is None or any(unit.relu for unit in (main[-1], *(shortcut or ()))):
            raise Unknown("a block whose sum is not of a BatchNorm's outputs")
        after, relu = self._relu(self._from(end))
        if shortcut is not None and self._same_size(at, end):
            raise Unknown("a shortcut with a convolution that changes no shape")
        main[-1] = main[-1]._replace(relu=relu)
        return [BlockNames(tuple(main), None if shortcut is None else shortcut[0])], after

    def _same_size(self, at: _At, end: int) -> bool:
        inputs = {self.operations[self.operations[reader].inputs[0]].shape for reader in at.readers}
        return self.operations[end].shape in inputs

    def _way(self, number: int) -> tuple[list[UnitNames], int]:
        """Units one after another up to a sum, and the sum's number."""
        units: list[UnitNames] = []
        while True:
            unit, at = self._unit(number)
            at, relu = self._relu(at)
            units.append(unit._replace(relu=relu))
            if (end := self._only(at, "add")) is not None:
                return units, end
            if self._only(at, "convolution") is None:
                raise Unknown(self._what(at.readers))
            number = at.readers[0]

    def _features(self, at: _At) -> tuple[bool, _At]:
        """Whether linear layers read all places, and what they read."""
        if (mean := self._only(at, "mean")) is not None:
            check_mean_over_places(self.operations[mean], self.operations)
            return False, self._in_a_row(mean)
        shape = self.operations[at.number].shape
        return math.prod(shape[2:]) > 1, self._in_a_row(at.number)

    def _in_a_row(self, number: int) -> _At:
        """An outcome with one row of numbers for each example."""
        operation = self.operations[number]
        found = [self._row(reader, number) for reader in operation.readers]
        return _At(number, [reader for readers in found for reader in readers])

    def _row(self, reader: int, number: int) -> list[int]:
        operation = self.operations[reader]
        if operation.name not in _RESHAPES:
            return [reader]
        if operation.shape[0] != self.operations[number].shape[0]:
            raise Unknown(self._what([reader]))
        return self._in_a_row(reader).readers

    def _linear(self, at: _At) -> list[str]:
        """Linear layers with ReLU between them, to the outputs."""
        names: list[str] = []
        while True:
            number = self._only(at, "addmm", "mm")
            if number is None:
                raise Unknown(self._what(at.readers))
            names.append(self._linear_name(self.operations[number]))
            if number == len(self.operations) - 1:
                return names
            at, relu = self._relu(self._from(number))
            if not relu:
                raise Unknown(self._what(at.readers))

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

    def _pooling(self, number: int) -> Pooling:
        operation = self.operations[number]
        given, places = operation.arguments, _places(self.operations[operation.inputs[0]].shape)
        if set(given.get("dilation") or (1,)) != {1} or given.get("ceil_mode"):
            raise Unknown("pooling with dilation or ceil_mode")
        if given.get("divisor_override") or not given.get("count_include_pad", True):
            raise Unknown("average pooling that divides by another number than that of a block's places")
        if places is None:
            raise Unknown(self._what([number]))
        kernel = _pair(given["kernel_size"])
        stride, padding = _pair(given.get("stride") or kernel), _pair(given.get("padding") or (0, 0))
        return Pooling(kernel, None if stride == kernel else stride, padding, operation.name == "avg_pool2d")

    def _what(self, readers: Sequence[int]) -> str:
        """What stands where something else was expected."""
        names = sorted({self.operations[reader].name for reader in readers})
        return " and ".join(names) if names else "outputs that no linear layer gives"


def _places(shape: Sequence[int]) -> tuple[int, Pair] | None:
    """Channels and (height, width) of an activation with its batch; None for what has no places."""
    return channels_and_size(shape[1:]) if len(shape) in (3, 4) else None


def _pair(sizes: Sequence[int]) -> Pair:
    """Height and width, which may be given as one number."""
    return sizes[0], sizes[-1]
