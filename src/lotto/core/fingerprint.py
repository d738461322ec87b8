"""What makes two runs the same run: a hash of a typed canonical form.

Numbers that are equal hash alike (1 and 1.0), steps are iterations. Functions and classes are their import name,
their source and their compiled code, with the defaults, global values and helpers that they use. What cannot be
identified raises `Unidentifiable`: such a run is trained but not remembered.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from lotto.core.moved import former_name

SCHEMA = 1
"""Raised whenever the meaning of a stored run changes; older entries are then simply not found."""

LIBRARIES = {"torch", "numpy", "lotto", "builtins", "math", "functools", "collections", "typing", "abc", "random"}
"""Code from here is identified by its name only; the versions are in every manifest."""


class Unidentifiable(Exception):
    """A value has no identity; the text says why."""


class Identified(ABC):
    """Something the store can remember: a training or another computation."""

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything the outcome depends on, in canonical form.

        Raises:
            Unidentifiable: if a model or a function of it cannot be identified.
        """

    @cached_property
    def key(self) -> str | None:
        """Hash of the description; None where there is none, and so nothing is remembered."""
        try:
            return digest(self.description)
        except Unidentifiable:
            return None


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


def kind(value: object) -> Any:
    """Which class a value is of: the name of one of ours, the full identity of anyone else's."""
    return type(value).__name__ if _of_library(type(value)) else function_identity(type(value))


def model_identity(builder: Callable[..., Any], module: nn.Module) -> dict[str, Any]:
    """Identity of a user's model: its builder, its printed structure, its shapes, the code of all its parts."""
    classes = {type(part) for part in module.modules() if not _of_library(type(part))}
    return {
        **function_identity(builder),
        "structure": hashlib.blake2b(repr(module).encode(), digest_size=16).hexdigest(),
        "parameters": {n: list(p.shape) for n, p in module.named_parameters()},
        "parts": sorted((function_identity(c) for c in classes), key=lambda part: str(part["name"])),
    }


def function_identity(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> dict[str, Any]:
    """Identity of a function or class and of everything of the user's that it refers to.

    Raises:
        Unidentifiable: for closures over variables, for code without source (typed at a prompt), and for global
            values that are neither plain nor code.
    """
    if isinstance(function, functools.partial):
        return {
            "name": "partial",
            "of": function_identity(function.func, seen),
            "args": canonical(list(function.args)),
            "kwargs": canonical(function.keywords),
        }
    if not (inspect.isclass(function) or inspect.isfunction(function) or inspect.isbuiltin(function)):
        raise Unidentifiable(f"{function!r} is neither a function nor a class")
    name = former_name(function.__module__, function.__qualname__)
    if _of_library(function) or id(function) in seen:
        return {"name": name}
    seen |= {id(function)}
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise Unidentifiable(f"the source of {function.__qualname__} cannot be read") from error
    functions = list(_functions(function))
    result: dict[str, Any] = {
        "name": name,
        "source": hashlib.blake2b(source.encode(), digest_size=16).hexdigest(),
        "code": [_code_digest(f.__code__) for f in functions],
        "uses": _used(functions, seen),
    }
    if inspect.isclass(function):
        result["bases"] = [function_identity(base, seen) for base in function.__bases__]
    return result


def _functions(value: Callable[..., Any]) -> Iterator[FunctionType]:
    """The function itself, or the methods of a class."""
    if inspect.isfunction(value):
        yield value
        return
    for part in vars(value).values():
        if isinstance(part, property):
            yield from (f for f in (part.fget, part.fset) if inspect.isfunction(f))
        elif inspect.isfunction(part := getattr(part, "__func__", part)):
            yield part


def _used(functions: list[FunctionType], seen: frozenset[int]) -> dict[str, Any]:
    """Defaults and global values that the functions refer to."""
    used: dict[str, Any] = {}
    for function in functions:
        # A method that calls super() closes over its class, which is no dependence on a scope.
        if set(function.__code__.co_freevars) - {"__class__"}:
            raise Unidentifiable(f"{function.__qualname__} depends on variables of the scope around it")
        if function.__defaults__ or function.__kwdefaults__:
            used[f"defaults of {function.__qualname__}"] = canonical([function.__defaults__, function.__kwdefaults__])
        for name in _names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
                if isinstance(value, ModuleType):
                    used[name] = value.__name__
                elif inspect.isclass(value) or inspect.isfunction(value):
                    used[name] = function_identity(value, seen)
                else:
                    used[name] = canonical(value)
    return used


def _names(code: CodeType) -> set[str]:
    nested = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, nested))


def _code_digest(code: CodeType) -> str:
    constants = [_code_digest(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    text = f"{code.co_code.hex()}:{constants}:{code.co_names}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _of_library(value: Callable[..., Any]) -> bool:
    return (value.__module__ or "").split(".")[0] in LIBRARIES
