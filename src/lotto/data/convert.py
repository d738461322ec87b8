"""What users have as inputs and targets, as tensors: what can be meant is converted, the rest is refused in a sentence.

Inputs: ``uint8`` stays (images), other integers become int64 (tokens), True and False 1 and 0, floating numbers of any
width float32. Targets: integers of any width and booleans become int64, floating numbers float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.errors import UsageError, text

ENCODE = "numbers are needed: classes, y = numpy.unique(labels, return_inverse=True)"


def inputs_from(value: Any, name: str) -> Tensor:
    """Inputs of shape (examples, ...) on the CPU, in memory of their own.

    Raises:
        UsageError: for what is no array of real, finite numbers; ``name`` is what the sentence calls it.
    """
    tensor = own_tensor(value, name)
    if tensor.dtype == torch.uint8:
        return tensor.contiguous()
    if not tensor.is_floating_point() and tensor.dtype != torch.bool:
        return tensor.long().contiguous()
    return _finite(tensor.float(), tensor, name)


def targets_from(value: Any, name: str) -> Tensor:
    """Targets likewise."""
    tensor = own_tensor(value, name)
    if not tensor.is_floating_point():
        return tensor.long().contiguous()
    return _finite(tensor.float(), tensor, name)


def _finite(tensor: Tensor, given: Tensor, name: str) -> Tensor:
    wrong = (
        ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1) if tensor.numel() else torch.zeros(0, dtype=torch.bool)
    )
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        what = "NaN or infinity" if not bool(torch.isfinite(given).all()) else "numbers too large for float32"
        raise UsageError(
            f"{name} holds {what} in {int(wrong.sum())} of {len(wrong)} examples, the first at {first}; leave them out "
            f"or fill them in before training."
        )
    return tensor.contiguous()


def own_tensor(value: Any, name: str) -> Tensor:
    """A tensor on the CPU of at least one dimension, whose memory is not the user's, who may change it later."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Tensor) for v in value):
        value = _stacked(value, name)
    tensor = _of_tensor(value, name) if isinstance(value, Tensor) else _of_array(_array(value, name), name)
    if not tensor.dim():
        raise UsageError(f"{name} is an array of shape (examples, ...); got one number, {text(value)}.")
    return tensor


def _of_tensor(value: Tensor, name: str) -> Tensor:
    if value.is_complex() or value.is_meta or value.is_quantized or value.is_nested:
        kind = "has no content" if value.is_meta else "is complex" if value.is_complex() else "is quantized or nested"
        raise UsageError(f"{name} is an array of real numbers; the tensor that was given {kind}.")
    return (value.to_dense() if value.layout != torch.strided else value).detach().to("cpu", copy=True)


def _stacked(values: Any, name: str) -> Tensor:
    if isinstance(values, tuple) and values[0].dim():
        raise _several(values, name)
    try:
        return torch.stack([v.detach().cpu() for v in values])
    except RuntimeError as error:
        raise UsageError(f"The examples of {name} differ in shape or type; one array needs all alike.") from error


def _several(values: Any, name: str) -> UsageError:
    return UsageError(
        f"{name} is one array; got a tuple of {len(values)}. Join them, such as numpy.stack([a, b], 1), and take them "
        "apart in the model or the loss."
    )


def _array(value: Any, name: str) -> np.ndarray:
    if value is None or isinstance(value, (Mapping, set, frozenset)) or not _has_items(value):
        part = f"; pass one of its entries, {text(list(value))}" if isinstance(value, Mapping) and value else ""
        raise UsageError(
            f"{name} is an array, a tensor or a list of numbers; got {text(value)}{part}."
            + (" Without a test set, hold examples out: Arrays(x[:-100], y[:-100], x[-100:], y[-100:])."
               if value is None and "test" in name else "")
        )  # fmt: skip
    if isinstance(value, tuple) and any(getattr(v, "ndim", 0) or isinstance(v, (list, tuple)) for v in value):
        raise _several(value, name)
    try:
        return np.array(value)
    except Exception as error:  # ragged lists, objects with an __array__ of their own
        raise UsageError(f"{name} cannot be made one array: {text(str(error))[1:-1]}") from error


def _has_items(value: Any) -> bool:
    return isinstance(value, (list, tuple, range, str, bytes, int, float, complex, np.generic)) or (
        hasattr(value, "__array__") and not isinstance(value, type)
    )


def _of_array(array: np.ndarray, name: str) -> Tensor:
    kind, first = array.dtype.kind, text(array.reshape(-1)[0]) if array.size else ""
    if kind in "US" or (kind == "O" and first[:1] in "'\""):
        needed = ENCODE if name.startswith("y") else "encode it as numbers"
        raise UsageError(f"{name} holds text such as {first}; {needed}.")
    if kind not in "biuf":
        raise UsageError(f"{name} is an array of real numbers; got values of type {array.dtype} such as {first}.")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise UsageError(f"{name} holds integers that do not fit into int64, such as {array.max()}.")
    wide = {"u": np.int64, "f": np.float64}.get(kind) if array.dtype.itemsize > 1 else None
    native = array.dtype.newbyteorder("=")
    known = np.dtype(native) in (np.float16, np.float32, np.float64, np.int16, np.int32, np.int64)
    return torch.from_numpy(np.ascontiguousarray(array, native if known or wide is None else wide))


def check_splits(inputs: Mapping[str, int], targets: Mapping[str, int]) -> None:
    """Raise ``UsageError`` unless every split has as many inputs as targets, and some.

    Args:
        inputs, targets: how many, by split.
    """
    for split, count in inputs.items():
        if count != targets[split] or not count:
            raise UsageError(
                f"x_{split} has {count} examples and y_{split} has {targets[split]}; they must be equal and not 0."
            )


def check_examples(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> None:
    """Raise ``UsageError`` unless training and test examples are of one shape and type.

    Args:
        x, y: inputs and targets of ``train`` and ``test``, some examples at least.
    """
    one, two = x["train"], x["test"]
    if one.shape[1:] != two.shape[1:]:
        raise UsageError(
            f"Training inputs have shape {tuple(one.shape[1:])}, test inputs {tuple(two.shape[1:])}; they must be "
            "equal."
        )
    if one.dtype != two.dtype:
        raise UsageError(f"Training inputs are {one.dtype}, test inputs {two.dtype}; both are floating, or both uint8.")
    one, two = y["train"], y["test"]
    if one.shape[1:] != two.shape[1:] or one.dtype != two.dtype:
        raise UsageError(
            f"Training targets have shape {tuple(one.shape[1:])} and type {one.dtype}, test targets "
            f"{tuple(two.shape[1:])} and {two.dtype}; they must be equal."
        )
