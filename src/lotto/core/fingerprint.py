"""What makes two runs the same run: a hash of a typed canonical form.

Frozen dataclasses say in their fields' metadata what each field has a part in (`affects`), and `entries` makes the
canonical form of it: nothing lists the fields a second time.

Numbers that are equal hash alike (1 and 1.0), steps are iterations. Functions and classes are their import name,
their source and their compiled code, with the defaults, global values and helpers that they use. What cannot be
identified raises `NotCacheableError`: such a run is trained but not stored.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from lotto.core.moved import former_name

SCHEMA = 1
"""Raised whenever the meaning of a stored run changes; older entries are then simply not found."""

_NOTHING = object()

LIBRARIES = {"torch", "numpy", "lotto", "builtins", "math", "functools", "collections", "typing", "abc", "random"}
"""Code from here is identified by its name only; the versions are in every manifest."""


class NotCacheableError(Exception):
    """What a value computes cannot be fingerprinted; the text says why."""


class Cacheable(ABC):
    """Something that the store can keep: a training or another computation."""

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything the outcome depends on, in canonical form.

        Raises:
            NotCacheableError: if a model or a function of it cannot be fingerprinted.
        """

    @cached_property
    def key(self) -> str | None:
        """Hash of the description; None when there is none, and so nothing is stored."""
        try:
            return digest(self.description)
        except NotCacheableError:
            return None


def affects(
    what: str, *, entry: str | None = "", of: Callable[[Any], Any] | None = None, unless: Any = _NOTHING
) -> dict[str, Any]:
    """Metadata of a dataclass's field: what the field has a part in, and its entry in the canonical form.

    Args:
        what: a word of the dataclass's own, such as ``training`` or ``nothing``.
        entry: the entry's name, by default the field's; None = the field stands in another field's entry.
        of: from the dataclass to the entry's value; by default the field's value.
        unless: a value at which there is no entry, for fields that came later.
    """
    return {"affects": what, "entry": entry, "of": of, "unless": unless}


def entries(value: Any, kinds: Collection[str], default: str = "") -> dict[str, Any]:
    """The entries of a dataclass's fields that have a part in one of ``kinds``, not yet in canonical form.

    Args:
        value: a dataclass.
        kinds: words of `affects`.
        default: the word of fields without metadata.
    """
    found = {}
    for field in dataclasses.fields(value):
        about = field.metadata or affects(default)
        if about["affects"] not in kinds or about["entry"] is None or getattr(value, field.name) == about["unless"]:
            continue
        found[about["entry"] or field.name] = about["of"](value) if about["of"] else getattr(value, field.name)
    return found


def fields_that_affect(kind: type, kinds: Collection[str]) -> set[str]:
    """Names of a dataclass's fields that have a part in one of ``kinds``."""
    return {field.name for field in dataclasses.fields(kind) if field.metadata.get("affects") in kinds}


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
        return function_fingerprint(value)
    raise NotCacheableError(f"a value of type {type(value).__name__} has no canonical form")


def digest(value: Any) -> str:
    """Hash of the canonical form, 32 hexadecimal digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kind(value: object) -> Any:
    """Which class a value is of: the name of one of ours, the whole fingerprint of anyone else's."""
    return type(value).__name__ if _of_library(type(value)) else function_fingerprint(type(value))


def model_fingerprint(builder: Callable[..., Any], module: nn.Module) -> dict[str, Any]:
    """Fingerprint of a user's model: its builder, its printed structure, its shapes, the code of all its parts."""
    classes = {type(part) for part in module.modules() if not _of_library(type(part))}
    return {
        **function_fingerprint(builder),
        "structure": hashlib.blake2b(repr(module).encode(), digest_size=16).hexdigest(),
        "parameters": {n: list(p.shape) for n, p in module.named_parameters()},
        "parts": sorted((function_fingerprint(c) for c in classes), key=lambda part: str(part["name"])),
    }


def function_fingerprint(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> dict[str, Any]:
    """Fingerprint of a function or class and of everything of the user's that it refers to.

    Raises:
        NotCacheableError: for closures over variables, for code without source (typed at a prompt), and for global
            values that are neither plain nor code.
    """
    if isinstance(function, functools.partial):
        return {
            "name": "partial",
            "of": function_fingerprint(function.func, seen),
            "args": canonical(list(function.args)),
            "kwargs": canonical(function.keywords),
        }
    if not (inspect.isclass(function) or inspect.isfunction(function) or inspect.isbuiltin(function)):
        raise NotCacheableError(f"{function!r} is neither a function nor a class")
    name = former_name(function.__module__, function.__qualname__)
    if _of_library(function) or id(function) in seen:
        return {"name": name}
    seen |= {id(function)}
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise NotCacheableError(f"the source of {function.__qualname__} cannot be read") from error
    functions = list(_functions(function))
    result: dict[str, Any] = {
        "name": name,
        "source": hashlib.blake2b(source.encode(), digest_size=16).hexdigest(),
        "code": [_code_digest(f.__code__) for f in functions],
        "uses": _used(functions, seen),
    }
    if inspect.isclass(function):
        result["bases"] = [function_fingerprint(base, seen) for base in function.__bases__]
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
            raise NotCacheableError(f"{function.__qualname__} depends on variables of the scope around it")
        if function.__defaults__ or function.__kwdefaults__:
            used[f"defaults of {function.__qualname__}"] = canonical([function.__defaults__, function.__kwdefaults__])
        for name in _names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
                if isinstance(value, ModuleType):
                    used[name] = value.__name__
                elif inspect.isclass(value) or inspect.isfunction(value):
                    used[name] = function_fingerprint(value, seen)
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
