"""Arguments checked by their annotations: what nobody can mean is refused in one sentence, before any work.

`checked` stands above a public function or a dataclass. Each argument is read as its annotation says: numbers of NumPy
and of torch become Python's, arrays and nested lists become tensors, a list becomes the tuple that is asked for, one
text a list of texts. Bounds are in the annotation (`Count`, `Fraction`), so that they are written once. An annotation
that is not understood checks nothing.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import operator
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from lotto.core.errors import UsageError, nearest, text, unknown

T = TypeVar("T")


class Unfit(Exception):
    """A value is not of the kind that is read."""


@dataclass(frozen=True)
class Kind:
    """What an argument may be.

    Attributes:
        words: in a sentence, ``a whole number from 1``.
        read: from a value to the one that is meant; raises `Unfit`.
        example: what could be typed.
        many: ``words`` for several, without bounds.
        choices: of texts, where only some are known.
    """

    words: str
    read: Callable[[Any], Any]
    example: str = ""
    many: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bounds:
    """Where a number lies; ``open`` leaves both ends out."""

    least: float = -math.inf
    most: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least < value < self.most if self.open else self.least <= value <= self.most

    def __str__(self) -> str:
        least, most = ("" if math.isinf(b) else f"{b:,}" for b in (self.least, self.most))
        if self.open:
            return " and ".join(f"{w} {b}" for w, b in (("greater than", least), ("less than", most)) if b)
        return " ".join(f"{w} {b}" for w, b in (("from", least), ("up to" if not least else "to", most)) if b)


Count = Annotated[int, Bounds(1)]
Few = Annotated[int, Bounds(most=10_000)]
"""Of what takes time or memory each; how many at least is said where they are used."""
Points = Annotated[int, Bounds(most=10_000)]
"""Evenly spaced, both ends among them; how many at least is said where they are used."""
Whole = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, open=True)]
NotNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1, open=True)]
"""Strictly between 0 and 1."""

EXAMPLES = {
    "Recipe": "lotto.Recipe(model=..., data=...)",
    "Engine": "lotto.engine.make()",
    "Store": "lotto.Store('folder')",
    "Optimizer": "lotto.SGD(0.1, momentum=0.9)",
    "Schedule": "lotto.Cosine()",
    "Pruning": "lotto.pruning.Pruning(rate=0.2)",
    "Augment": "lotto.data.Augment(crop=4, flip=True)",
    "Arrays": "lotto.data.Arrays(x_train, y_train, x_test, y_test)",
    "DataSource": "lotto.data.Arrays(x_train, y_train, x_test, y_test)",
    "Ticket": "lotto.Ticket.load('ticket.safetensors')",
    "State": "run.state(step)",
    "Job": "lotto.Job(recipe)",
    "Options": "lotto.papers.Options(recipe)",
    "Experiment": "lotto.papers.get('stabilizing.rewind')",
    "ImpResult": "lotto.imp(recipe)",
    "Permutation": "lotto.landscape.permutation.match_units(recipe, a, b)",
    "Spectrum": "lotto.landscape.curvature.spectrum(recipe, weights, mask)",
    "Module": "MyNet()",
    "Plan": "lotto.Plan(levels=5)",
    "DensitySchedule": "lotto.pruning.Cubic(0.05, levels=8)",
}
"""How values of a class are made, for sentences."""


LISTS = {
    "whole numbers": "[1, 2]",
    "numbers": "[0.5, 0.5]",
    "texts": "['a', 'b']",
    "texts or whole numbers": "['500it', '2ep']",
}
"""How lists are typed."""


def checked(target: T) -> T:
    """Check the arguments of a function, or of the constructor of a class, by their annotations.

    Raises:
        UsageError: from the wrapped function, for a value that is not of its argument's kind, and for arguments that
            are unknown, missing or too many; its text says what to type.
    """
    if isinstance(target, type):
        target.__init__ = _checked(target.__init__, target.__name__)  # type: ignore[misc]
        return target
    return typing.cast(T, _checked(typing.cast(Callable[..., Any], target), getattr(target, "__name__", "")))


def _checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, Kind]:
        found = {a: kind_of(evaluated(p.annotation, function)) for a, p in signature.parameters.items() if _single(p)}
        return {argument: kind for argument, kind in found.items() if kind is not None}

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(*given, **named)
        except TypeError as error:
            raise misused(name, signature, named, error) from None
        for argument, kind in kinds().items():
            if argument in bound.arguments:
                bound.arguments[argument] = read(bound.arguments[argument], kind, argument)
        return function(*bound.args, **bound.kwargs)

    return call


def read_fields(value: Any, names: Mapping[str, Any]) -> None:
    """Check the fields of a frozen dataclass by their annotations, in its ``__post_init__``.

    Args:
        value: what is being made.
        names: those that the annotations use; for a module that imports them only for type checkers.
    """
    for field in dataclasses.fields(value):
        kind = kind_of(eval(field.type, dict(names)) if isinstance(field.type, str) else field.type)
        if kind is not None:
            object.__setattr__(value, field.name, read(getattr(value, field.name), kind, field.name))


def _single(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return not variadic and parameter.annotation is not parameter.empty


def evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """The type that an annotation stands for; `Any` for a name that only type checkers know."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except (NameError, TypeError, AttributeError):
        return Any


def misused(name: str, signature: inspect.Signature, named: Mapping[str, Any], error: TypeError) -> UsageError:
    """The error for arguments that a signature does not take."""
    known = [p for p in signature.parameters if p != "self"]
    for argument in named:
        if argument not in known:
            return UsageError(f"{name} has no argument {text(argument)}. {nearest(argument, known)}")
    return UsageError(f"{name}: {error}; its arguments are {', '.join(known)}.")


def read(value: Any, kind: Kind, name: str) -> Any:
    """The value that is meant; raises ``UsageError`` with the argument's name if it is not of the kind."""
    try:
        return kind.read(value)
    except Unfit:
        if kind.choices and isinstance(value, str):
            raise unknown(name, value, kind.choices) from None
        such = f", such as {kind.example}" if kind.example else ""
        raise UsageError(f"{name} is {kind.words}{such}; got {text(value)}{_instead(value, kind, name)}.") from None


def _instead(value: Any, kind: Kind, name: str) -> str:
    """A part of the value that fits: who gives a run for weights means ``run.weights``."""
    if isinstance(value, (type, dict)):
        return ""
    for part in (name, "weights", "state_dict"):
        try:
            inner = getattr(value, part)
            kind.read(inner() if part == "state_dict" else inner)
        except Exception:  # what others' attributes may raise
            continue
        return f": pass its .{part}{'()' if part == 'state_dict' else ''}"
    return ""


def whole_number(value: Any, name: str) -> int:
    """A whole number from 0 in a place that is visited at every step; raises ``UsageError`` for anything else."""
    if type(value) is int and 0 <= value < 2**63:
        return value
    kind = kind_of(Whole)
    assert kind is not None
    return int(read(value, kind, name))


# --- kinds ------------------------------------------------------------------------------------------------


def kind_of(hint: Any) -> Kind | None:
    """What an annotation asks for; None for anything at all."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (Any, object, inspect.Parameter.empty) or isinstance(hint, TypeVar):
        return None
    if origin is Annotated:
        return next((mark for mark in inner[1:] if isinstance(mark, Kind)), None) or _bounded(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        paths = {part for part in inner if part is Path or get_origin(part) is os.PathLike}
        parts = [part for part in inner if part is not str or not paths]  # a path may be given as text
        return _any_of([PATH if part in paths and str in inner else kind_of(part) for part in parts])
    if origin is Literal:
        return _literal(inner)
    if origin is not None:
        return _container(origin, inner)
    if hint is None or hint is type(None):
        return Kind("None", _none)
    return PLAIN.get(hint) or (_instance(hint) if isinstance(hint, type) else None)


def _fits(value: Any, good: bool) -> Any:
    if not good:
        raise Unfit
    return value


def _none(value: Any) -> None:
    _fits(value, value is None)


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (torch.bool, np.dtype(bool))


def whole(value: Any) -> int:
    """A whole number of any library as Python's; raises `Unfit` for anything else, True and False too."""
    try:
        number = operator.index(_fits(value, not _is_bool(value)))
    except Exception:  # what is no number may raise anything
        raise Unfit from None
    return _fits(number, -(2**63) <= number < 2**63)


def _number(value: Any) -> float | int:
    if type(value) is float or (type(value) is int and abs(value) < 2**53):
        number: float | int = value
    else:
        single = isinstance(value, (int, float, np.number)) or getattr(value, "ndim", None) == 0
        try:
            number = float(_fits(value, single and not _is_bool(value)))
        except Exception:  # of objects that say they are numbers
            raise Unfit from None
    return _fits(number, math.isfinite(number))


def _truth(value: Any) -> bool:
    return bool(_fits(value, isinstance(value, (bool, np.bool_))))


def _text(value: Any) -> str:
    return str(value) if isinstance(value, np.str_) else _fits(value, isinstance(value, str))


def _path(value: Any) -> Path:
    found = Path(_fits(value, isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)))
    return _fits(found, "\0" not in str(found) and len(str(found)) < 4096 and all(len(p) < 256 for p in found.parts))


def _array(value: Any) -> np.ndarray:
    try:
        found = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except Exception:  # ragged lists, tensors without content
        raise Unfit from None
    return _fits(found, found.dtype.kind in "biuf")


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = _array(_fits(value, isinstance(value, (np.ndarray, list))))
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        raise Unfit from None


PLAIN: dict[Any, Kind] = {
    int: Kind("a whole number", whole, "", "whole numbers"),
    float: Kind("a number", _number, "", "numbers"),
    bool: Kind("True or False", _truth),
    str: Kind("text", _text, "", "texts"),
    Path: Kind("a path", _path, "'folder/file'", "paths"),
    Tensor: Kind("a tensor", _tensor, "torch.zeros(2, 3)", "tensors"),
    np.ndarray: Kind("an array of numbers", _array, "numpy.zeros(3)", "arrays"),
}


PATH = Kind("a path", lambda value: _path(value) and value, "'folder/file'", "paths")
"""Of text or `Path`, as it was given."""


def _bounded(hint: Any, marks: Iterable[Any]) -> Kind | None:
    kind = kind_of(hint)
    bounds = next((mark for mark in marks if isinstance(mark, Bounds)), None)
    if kind is None or bounds is None:
        return kind

    def inside(value: Any) -> Any:
        number = kind.read(value)
        return _fits(number, number in bounds)

    return dataclasses.replace(kind, words=f"{kind.words} {bounds}", read=inside)


def _any_of(parts: list[Kind | None]) -> Kind | None:
    kinds = [part for part in parts if part is not None]
    if len(kinds) < len(parts):
        return None

    def first(value: Any) -> Any:
        for kind in kinds:
            try:
                return kind.read(value)
            except Unfit:
                continue
        raise Unfit

    return Kind(
        " or ".join(dict.fromkeys(kind.words for kind in kinds)), first,
        next((kind.example for kind in kinds if kind.example), ""),
        " or ".join(kind.many or kind.words for kind in kinds),
        tuple(choice for kind in kinds for choice in kind.choices),
    )  # fmt: skip


def _literal(choices: tuple[Any, ...]) -> Kind:
    def one_of(value: Any) -> Any:
        value = _text(value) if isinstance(value, str) else value
        return _fits(value, any(type(value) is type(c) and value == c for c in choices))

    texts = tuple(c for c in choices if isinstance(c, str))
    return Kind(f"one of {', '.join(map(repr, choices))}", one_of, choices=texts)


def _instance(kind: type) -> Kind:
    words = f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"

    def of_kind(value: Any) -> Any:
        try:
            return _fits(value, isinstance(value, kind))
        except TypeError:  # a protocol that only type checkers read
            return value

    return Kind(words, of_kind, EXAMPLES.get(kind.__name__, ""), f"{kind.__name__}s")


def _container(origin: Any, inner: tuple[Any, ...]) -> Kind | None:
    if origin is collections.abc.Callable:
        return _function(inner[0] if inner else ...)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(*map(kind_of, inner or (Any, Any)))
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return _fixed([kind_of(part) for part in inner])
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _listed(origin, kind_of(inner[0]) if inner else None)
    return _instance(origin) if isinstance(origin, type) else None


def _function(arguments: Any) -> Kind:
    count = len(arguments) if isinstance(arguments, list) else None

    def taking(value: Any) -> Any:
        _fits(value, callable(value))
        try:
            bound = inspect.signature(value).bind
        except (TypeError, ValueError):  # of some built-in functions nothing is known
            return value
        try:
            return value if count is None else bound(*[None] * count) and value
        except TypeError:
            raise Unfit from None

    words = "a function" if count is None else f"a function of {count} argument{'s' * (count != 1)}"
    return Kind(words, taking, "", "functions")


def _mapping(key: Kind | None, value: Kind | None) -> Kind:
    def entries(given: Any) -> Any:
        _fits(given, isinstance(given, Mapping))
        names = [name if key is None else key.read(name) for name in given]
        values = [given[name] if value is None else value.read(given[name]) for name in given]
        same = all(a is b for a, b in zip(given, names, strict=True)) and all(
            given[name] is v for name, v in zip(given, values, strict=True)
        )
        return given if same else dict(zip(names, values, strict=True))

    many = "values" if value is None else value.many or value.words
    return Kind(f"a dict of {many} by name", entries, "run.weights" if many == "tensors" else "", "dicts")


def _items(given: Any, item: Kind | None) -> list[Any]:
    """The items of a list, a tuple, a range, an array or a dict's names; one text alone counts as a list of it."""
    if isinstance(given, (np.ndarray, Tensor)):
        try:
            given = given.tolist()
        except Exception:  # tensors without content
            raise Unfit from None
    if isinstance(given, (str, int)) and item is not None and "text" in item.words.split():
        given = [given]
    _fits(given, isinstance(given, collections.abc.Iterable) and not isinstance(given, (str, bytes)))
    return [one if item is None else item.read(one) for one in given]


def _listed(origin: Any, item: Kind | None) -> Kind:
    def items(given: Any) -> Any:
        ordered = origin is tuple or issubclass(origin, collections.abc.Sequence)
        sized = isinstance(given, (collections.abc.Sequence, np.ndarray, Tensor, int))
        _fits(given, sized or (not ordered and isinstance(given, collections.abc.Iterable)))
        found = _items(given, item)
        if origin is tuple:
            return tuple(found)
        same = isinstance(given, collections.abc.Collection) and not isinstance(given, (str, np.ndarray, Tensor))
        return given if same and all(a is b for a, b in zip(given, found, strict=True)) else found

    many = "values" if item is None else item.many or item.words
    return Kind(f"a list of {many}", items, LISTS.get(many, ""), "lists")


def _fixed(parts: list[Kind | None]) -> Kind:
    def exactly(given: Any) -> Any:
        found = _items(given, None)
        _fits(found, len(found) == len(parts))
        return tuple(v if kind is None else kind.read(v) for v, kind in zip(found, parts, strict=True))

    words = " and ".join("any value" if kind is None else kind.words for kind in parts)
    return Kind(f"{len(parts)} values ({words})", exactly, "", "tuples")
