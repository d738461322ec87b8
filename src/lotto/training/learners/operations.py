"""What a network computes, as a list of torch's operators: written down while it computes an example.

Inputs are a subclass of tensors that torch hands every operator to. What is written in place, what is a view of
something and what a layer's own code calls are thus seen as they happen, whoever wrote the network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.rng import host_state, private_rng

RESHAPES = ("view", "_unsafe_view", "unsqueeze", "squeeze", "_reshape_alias")
"""Operators that give the same numbers in another shape."""
SAME = {"detach", "alias"}
"""Operators whose outcome is their input; autograd calls `detach` for what it keeps."""


class Unknown(Exception):
    """What cannot be written down, or is not understood; the text says what."""


@dataclass
class Operation:
    """One operator.

    Attributes:
        name: without its library and overload, and without the underscore of those that work in place.
        inputs: numbers of the operations that it reads, in the order of its arguments.
        arguments: all that are given, by name: numbers, lists of them, a parameter's or buffer's name; ``...`` for
            those in ``inputs``.
        shape: of its outcome.
        readers: numbers of the operations that read it.
    """

    name: str
    inputs: tuple[int, ...]
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    readers: list[int] = field(default_factory=list)


class _Observed(Tensor):
    """A tensor in the place of another one, whose operators are written down."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    plain: Tensor
    number: int
    version: int
    record: _Record

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        found = next(_observed([*args, *(kwargs or {}).values()]))
        return found.record.called(operator, args, kwargs or {})


def _observed(values: Any) -> Iterator[_Observed]:
    for value in values:
        if isinstance(value, _Observed):
            yield value
        elif isinstance(value, list | tuple):
            yield from _observed(value)


class _Record:
    """The operators that were called so far.

    Args:
        tensors: parameters and buffers by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.named = tensors
        self.operations: list[Operation] = []
        self.versions: dict[int, int] = {}
        self.kept: list[Tensor] = []  # so that no other tensor comes to lie where they do

    def observe(self, plain: Tensor, operation: Operation) -> _Observed:
        """A tensor as the outcome of an operation."""
        made = torch.Tensor._make_wrapper_subclass(
            _Observed, plain.shape, strides=plain.stride(), dtype=plain.dtype, device=plain.device
        )
        self.kept.append(plain)
        self.operations.append(operation)
        made.plain, made.record = plain, self
        self._set(made)
        found: _Observed = made
        return found

    def _set(self, tensor: _Observed) -> None:
        """It has the value of the last operation."""
        memory = tensor.plain.untyped_storage().data_ptr()
        tensor.number, tensor.version = len(self.operations) - 1, self.versions.setdefault(memory, 0)

    def called(self, operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call an operator, and write it down."""
        schema = operator._schema
        name, in_place = schema.name.split("::")[1], bool(args) and _writes_first(schema)
        arguments = {a.name: self._argument(v) for a, v in zip(schema.arguments, args, strict=False)}
        arguments |= {key: self._argument(value) for key, value in kwargs.items()}
        if torch.Tag.nondeterministic_seeded in operator.tags:
            raise Unknown(f"{name}: random numbers are drawn")
        inputs = tuple(found.number for found in _observed([*args, *kwargs.values()]))
        outcome = operator(*_plain(args), **{key: _plain(value) for key, value in kwargs.items()})
        first = outcome[0] if isinstance(outcome, tuple | list) else outcome
        if not isinstance(first, Tensor):
            raise Unknown(f"{name}: a number is read out of a tensor")
        operation = Operation(name.removesuffix("_") if in_place else name, inputs, arguments, tuple(first.shape))
        if in_place:
            if not isinstance(args[0], _Observed):
                raise Unknown(f"{name}: writes to a tensor of the network")
            self.operations.append(operation)
            self.versions[args[0].plain.untyped_storage().data_ptr()] += 1
            self._set(args[0])
            return args[0]
        observed = self.observe(first, operation)
        return (observed, *outcome[1:]) if isinstance(outcome, tuple | list) else observed

    def check(self, value: Any) -> None:
        """Raise `Unknown` if something is no outcome of an operation, or one that has been overwritten since."""
        if not isinstance(value, _Observed):
            raise Unknown("its outputs are not one tensor that depends on the inputs")
        if value.version != self.versions[value.plain.untyped_storage().data_ptr()]:
            raise Unknown("something is read that was overwritten in place under another name")

    def _argument(self, value: Any) -> Any:
        """An argument as it is written down."""
        if isinstance(value, _Observed):
            self.check(value)
            return ...
        return self._name(value) if isinstance(value, Tensor) else value

    def _name(self, tensor: Tensor) -> str:
        """Of a parameter or buffer, or of its transposed one with ``.t`` after it."""
        for name, known in self.named.items():
            if tensor.data_ptr() == known.data_ptr() and known.numel():
                if (tensor.shape, tensor.stride()) == (known.shape, known.stride()):
                    return name
                if known.dim() == 2 and (tensor.shape, tensor.stride()) == (known.t().shape, known.t().stride()):
                    return f"{name}.t"
        raise Unknown("a tensor is read that is no parameter, buffer or input")


def _writes_first(schema: Any) -> bool:
    """Whether an operator writes to its first argument and gives it back."""
    alias = schema.arguments[0].alias_info if schema.arguments else None
    return bool(alias is not None and alias.is_write)


def _plain(value: Any) -> Any:
    if isinstance(value, _Observed):
        return value.plain
    return type(value)(map(_plain, value)) if isinstance(value, list | tuple) else value


def operations_of(module: nn.Module, shape: Sequence[int]) -> list[Operation]:
    """What a module computes of two examples, in the mode it is in; it is a copy that computes them.

    Args:
        module: on the CPU.
        shape: of an example.

    Returns:
        The operations; the first is ``input``, the last gives the outputs. What nobody reads is left out.

    Raises:
        Unknown: if something happens that cannot be written down, or that changes the network.
    """
    module = copy.deepcopy(module)
    state = [{**vars(part)} for part in module.modules()]
    tensors = dict((*module.named_parameters(), *module.named_buffers()))
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    record = _Record(tensors)
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    x = record.observe(torch.zeros(2, *shape, dtype=dtype), Operation("input", (), {}, (2, *shape)))
    with private_rng(0), torch.enable_grad():
        drawn = host_state()
        try:
            outputs = module(x)
            record.check(outputs)
        except Unknown:
            raise
        except Exception as error:
            raise Unknown(f"{type(error).__name__} while an example is computed") from error
        if host_state() != drawn:
            raise Unknown("random numbers are drawn")
    _check_unchanged(module, before, tensors)
    if [vars(part) for part in module.modules()] != state:
        raise Unknown("a module changes what it knows")
    return _read_ones(record.operations, outputs.number)


def _check_unchanged(module: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Raise `Unknown` if more than BatchNorm's own statistics has changed."""
    for name, tensor in after.items():
        owner = module.get_submodule(name.rpartition(".")[0])
        if not (isinstance(owner, nn.modules.batchnorm._BatchNorm) or torch.equal(tensor, before[name])):
            raise Unknown(f"{name!r} is changed by computing outputs")


def _read_ones(operations: Sequence[Operation], last: int) -> list[Operation]:
    """Those that the last one depends on, numbered anew, with their readers; what only passes on is left out."""
    needed = {last}
    for number in range(last, -1, -1):
        if number in needed:
            needed.update(operations[number].inputs)
    new: dict[int, int] = {}
    found: list[Operation] = []
    for number in sorted(needed):
        old = operations[number]
        if old.name in SAME:
            raise Unknown(f"{old.name}: no gradient goes through it")
        inputs = tuple(new[i] for i in old.inputs)
        new[number] = len(found)
        found.append(Operation(old.name, inputs, old.arguments, old.shape))
        for i in inputs:
            found[i].readers.append(new[number])
    return found


def is_sum_of_two(operation: Operation, operations: Sequence[Operation]) -> bool:
    """Whether it is the sum of two activations of one shape, neither of them scaled."""
    shapes = {operations[i].shape for i in operation.inputs}
    plain = operation.arguments.get("alpha", 1) == 1
    return operation.name == "add" and len(operation.inputs) == 2 and len(shapes) == 1 and plain


def check_mean_over_places(operation: Operation, operations: Sequence[Operation]) -> None:
    """Raise `Unknown` unless a mean is over all places of an activation."""
    axes = len(operations[operation.inputs[0]].shape)
    over = {axis % axes for axis in operation.arguments.get("dim") or ()}
    if axes < 3 or over != {*range(2, axes)} or operation.arguments.get("dtype") is not None:
        raise Unknown("a mean over something else than all places")
