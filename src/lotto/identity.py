"""What makes two runs the same run: a hash of a typed canonical form.

Numbers that are equal hash alike (1 and 1.0), steps are iterations, functions and classes are their import
name with a hash of their source. What cannot be identified raises `Unidentifiable`: such a run is trained
but not remembered.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

SCHEMA = 1
"""Raised whenever the meaning of a stored run changes; older entries are then simply not found."""


class Unidentifiable(Exception):
    """The identity of a value cannot be told; the text says why."""


def canonical(value: Any) -> Any:
    """Turn a value into JSON whose text is the same whenever the value is."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        return int(value) if value == int(value) else value
    if isinstance(value, Mapping):
        return {str(k): canonical(value[k]) for k in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if callable(value):
        return function_identity(value)
    raise Unidentifiable(f"a value of type {type(value).__name__} has no canonical form")


def digest(value: Any) -> str:
    """Hash of the canonical form, 32 hexadecimal digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and content."""
    result = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        result.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        result.update(tensor.numpy().tobytes())
    return result.hexdigest()


def function_identity(function: Callable[..., Any]) -> dict[str, Any]:
    """Import name and source hash of a function or class; the arguments too of a partial.

    Raises:
        Unidentifiable: for closures over variables and for code without source (typed at a prompt).
    """
    if isinstance(function, functools.partial):
        return {
            "partial": function_identity(function.func),
            "args": canonical(list(function.args)),
            "kwargs": canonical(function.keywords),
        }
    if not (inspect.isclass(function) or inspect.isfunction(function)):
        raise Unidentifiable(f"{function!r} is neither a function nor a class")
    parts = vars(function).values() if inspect.isclass(function) else [function]
    # A method that calls super() closes over its class, which is no dependence on a scope.
    if any(set(part.__code__.co_freevars) - {"__class__"} for part in parts if inspect.isfunction(part)):
        raise Unidentifiable(f"{function.__qualname__} depends on variables of the scope around it")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise Unidentifiable(f"the source of {function.__qualname__} cannot be read") from error
    return {
        "name": f"{function.__module__}.{function.__qualname__}",
        "source": hashlib.blake2b(source.encode(), digest_size=16).hexdigest(),
    }
