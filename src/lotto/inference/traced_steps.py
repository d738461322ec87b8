"""A module as steps over kept weights, from the operators that it calls on an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lotto.inference.steps import AVERAGE, GREATEST, LAYER, MEAN, SUM, VIEW, Step
from lotto.training.learners.operations import (
    RESHAPES,
    Operation,
    Unknown,
    check_mean_over_places,
    is_sum_of_two,
    operations_of,
)

WHOLE = 0.5
"""Density from which all weights of a layer are stored: a place takes as much as a weight."""


class Layer(NamedTuple):
    """Weight and bias of a layer, in float64."""

    weight: Tensor
    bias: Tensor


class Traced(NamedTuple):
    """A network of kept weights; see `steps.by_torch`."""

    steps: list[Step]
    values: Tensor
    places: Tensor
    biases: Tensor


def traced_steps(module: nn.Module, shape: Sequence[int]) -> Traced:
    """A module in evaluation mode as steps, BatchNorm folded into the layers before it.

    Args:
        module: see there.
        shape: of an example.

    Raises:
        Unknown: if it does what no step computes.
    """
    reader = _Reader(module, operations_of(module, shape))
    return reader.traced(next((p.dtype for p in module.parameters()), torch.float32))


class _Reader:
    """Follows operations, of which each becomes a step or a part of one."""

    def __init__(self, module: nn.Module, operations: Sequence[Operation]) -> None:
        self.tensors = dict((*module.named_parameters(), *module.named_buffers()))
        self.operations = operations
        self.steps: list[Step] = []
        self.layers: dict[int, Layer] = {}
        self.registers: list[int] = [0]
        if len(operations[0].shape) < 2:
            raise Unknown("examples without axes")
        for operation in operations[1:]:
            if operation.name not in _READERS:
                raise Unknown(operation.name)
            self.registers.append(_READERS[operation.name](self, operation))
        if self.registers[-1] != len(self.steps):
            raise Unknown("what is computed last is not what is returned")

    def traced(self, dtype: torch.dtype) -> Traced:
        """All steps with the weights that they keep."""
        vectors: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for number, layer in self.layers.items():
            weight = layer.weight.flatten().to(dtype)
            kept = weight.nonzero().squeeze(1)
            if len(kept) < WHOLE * len(weight):
                self.steps[number - 1] = self.steps[number - 1]._replace(kept=len(kept))
                weight = weight[kept]
                vectors[1].append(kept.int())
            vectors[0].append(weight)
            vectors[2].append(layer.bias.to(dtype))
        kinds = (dtype, torch.int32, dtype)
        found = [torch.cat([torch.zeros(0, dtype=k), *v]) for k, v in zip(kinds, vectors, strict=True)]
        return Traced(self.steps, *found)

    def add(self, step: Step) -> int:
        """The number of a new step."""
        self.steps.append(step)
        return len(self.steps)

    def source(self, operation: Operation) -> int:
        """Whose outputs it reads."""
        return self.registers[operation.inputs[0]]

    def tensor(self, name: Any) -> Tensor | None:
        """A parameter or buffer."""
        if name is None:
            return None
        if not isinstance(name, str) or name not in self.tensors:
            raise Unknown("a weight that is computed")
        return self.tensors[name].detach().double()

    def open_step(self, operation: int) -> int | None:
        """The step that gives an operation's outcome, if it is a layer or sum that nothing else reads or ends."""
        number = self.registers[operation]
        aliases = [i for i, found in enumerate(self.registers) if found == number]
        if not number or any(len(self.operations[i].readers) > 1 for i in aliases):
            return None
        step = self.steps[number - 1]
        return number if step.kind in (LAYER, SUM) and not step.relu else None

    def change(self, number: int, **changes: Any) -> int:
        """Say more of a step."""
        self.steps[number - 1] = self.steps[number - 1]._replace(**changes)
        return number


def _convolution(reader: _Reader, operation: Operation) -> int:
    given, dims = operation.arguments, len(operation.shape) - 2
    weight = reader.tensor(given["weight"])
    if weight is None or dims not in (1, 2) or given["transposed"]:
        raise Unknown("a transposed convolution, or one of other than one or two dimensions")
    geometry = [_numbers(given[what], dims) for what in ("stride", "padding", "dilation")]
    number = _layer(reader, operation, weight, reader.tensor(given["bias"]), geometry)
    return reader.change(number, groups=given["groups"])


def _linear(reader: _Reader, operation: Operation) -> int:
    given = operation.arguments
    name = given.get("mat2")
    if not isinstance(name, str) or not name.endswith(".t") or {given.get("beta", 1), given.get("alpha", 1)} != {1}:
        raise Unknown(operation.name)
    weight = reader.tensor(name.removesuffix(".t"))
    assert weight is not None
    return _layer(
        reader, operation, weight, reader.tensor(given.get("self")) if operation.name == "addmm" else None, ()
    )


def _layer(reader: _Reader, operation: Operation, weight: Tensor, bias: Tensor | None, geometry: Any) -> int:
    number = reader.add(Step(LAYER, reader.source(operation), tuple(weight.shape), *geometry))
    reader.layers[number] = Layer(weight, weight.new_zeros(len(weight)) if bias is None else bias)
    return number


def _norm(reader: _Reader, operation: Operation) -> int:
    given, number = operation.arguments, reader.open_step(operation.inputs[0])
    if number not in reader.layers or reader.steps[number - 1].added is not None or given["training"]:
        raise Unknown("BatchNorm that follows no layer, or by a batch's own statistics")
    weight, bias, mean, variance = (reader.tensor(given[w]) for w in ("weight", "bias", "running_mean", "running_var"))
    if mean is None or variance is None:
        raise Unknown("BatchNorm without statistics")
    layer = reader.layers[number]
    scale = (variance + given["eps"]).rsqrt() * (1.0 if weight is None else weight)
    scaled = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    reader.layers[number] = Layer(scaled, (layer.bias - mean) * scale + (0.0 if bias is None else bias))
    return number


def _relu(reader: _Reader, operation: Operation) -> int:
    number = reader.open_step(operation.inputs[0])
    return (
        reader.add(Step(SUM, reader.source(operation), relu=True))
        if number is None
        else reader.change(number, relu=True)
    )


def _add(reader: _Reader, operation: Operation) -> int:
    if not is_sum_of_two(operation, reader.operations):
        raise Unknown("a sum of other things than two activations of one shape")
    earlier, later = sorted(operation.inputs, key=lambda i: reader.registers[i])
    number = reader.open_step(later) if reader.registers[earlier] != reader.registers[later] else None
    if number is None or reader.steps[number - 1].added is not None:
        return reader.add(Step(SUM, reader.registers[earlier], added=reader.registers[later]))
    return reader.change(number, added=reader.registers[earlier])


def _view(reader: _Reader, operation: Operation) -> int:
    batch, *shape = operation.shape
    if batch != reader.operations[0].shape[0] or not shape:
        raise Unknown("a view that moves numbers between examples")
    return reader.add(Step(VIEW, reader.source(operation), tuple(shape)))


def _mean(reader: _Reader, operation: Operation) -> int:
    check_mean_over_places(operation, reader.operations)
    number = reader.add(Step(MEAN, reader.source(operation)))
    shape = operation.shape[1:]
    return number if len(shape) == 1 else reader.add(Step(VIEW, number, shape))


def _pooling(reader: _Reader, operation: Operation) -> int:
    given, dims = operation.arguments, len(operation.shape) - 2
    kind = AVERAGE if operation.name == "avg_pool2d" else GREATEST
    if given.get("ceil_mode") or given.get("divisor_override") is not None:
        raise Unknown("pooling that rounds up, or divides by another number")
    if kind == AVERAGE and any(_numbers(given.get("padding", 0), dims)):
        raise Unknown("means of blocks with padding")
    block = _numbers(given["kernel_size"], dims)
    usual = (("stride", block), ("padding", [0]), ("dilation", [1]))
    geometry: Any = [_numbers(given.get(what) or fill, dims) for what, fill in usual]
    return reader.add(Step(kind, reader.source(operation), block, *geometry))


def _numbers(given: Any, dims: int) -> tuple[int, ...]:
    """One for each dimension."""
    numbers: Sequence[int] = [given] if isinstance(given, int) else [*given]
    return tuple(numbers) if len(numbers) == dims else tuple(numbers) * dims


_READERS: Mapping[str, Callable[[_Reader, Operation], int]] = {
    "convolution": _convolution,
    "addmm": _linear,
    "mm": _linear,
    "native_batch_norm": _norm,
    "relu": _relu,
    "add": _add,
    **dict.fromkeys(RESHAPES, _view),
    "clone": lambda reader, operation: reader.source(operation),
    "mean": _mean,
    "max_pool2d_with_indices": _pooling,
    "avg_pool2d": _pooling,
}
