"""The options of `Plan` on the command line: one for each of its fields, read as its annotation says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from enum import Enum
from inspect import Parameter
from typing import Annotated, Any, TypeVar

import tyro

from lotto.cli.common import numbers, replicates_of, whole_numbers
from lotto.lottery.options import ALL, Plan, about

F = TypeVar("F", bound=Callable[..., None])

PLAIN = {"bool": bool, "int": int, "Few": int, "int | None": int | None, "float | None": float | None}
"""Annotations of which tyro reads the values; those of others are texts."""


def _levels(given: str, option: str) -> str | tuple[int, ...]:
    return given if given == ALL else tuple(whole_numbers(given, option))


READERS: dict[str, Callable[[str, str], Any]] = {
    "tuple[int, ...] | None": _levels,
    "tuple[float, ...] | None": lambda given, option: tuple(numbers(given, option)),
    "Few | str | None": lambda given, option: replicates_of(given),
}
"""By annotation, how a text is read; others stay texts."""


def with_plan_options(command: F) -> F:
    """Give a command the options of `Plan` instead of its ``**options``."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    first, rest = own[:1], own[1:]
    hints = {p.name: command.__globals__.get(str(p.annotation), p.annotation) for p in own}
    made = [Parameter(f.name, Parameter.KEYWORD_ONLY, default=_shown(f), annotation=_hint(f)) for f in fields(Plan)]
    command.__signature__ = signature.replace(parameters=[*first, *made, *rest])  # type: ignore[attr-defined]
    command.__annotations__ = {**hints, **{p.name: p.annotation for p in made}, "return": None}
    return command


def plan_of(options: Mapping[str, Any]) -> Plan:
    """The plan that is asked for."""
    return Plan(**{f.name: _read(f, options[f.name]) for f in fields(Plan)})


def _read(field: Field[Any], given: Any) -> Any:
    read = READERS.get(str(field.type))
    return given if read is None or given is None else read(given, f"--{field.name.replace('_', '-')}")


def _shown(field: Field[Any]) -> Any:
    """The default, as it would be typed."""
    value = field.default.value if isinstance(field.default, Enum) else field.default
    return ",".join(value) if isinstance(value, tuple) else value


def _hint(field: Field[Any]) -> Any:
    kind = PLAIN.get(str(field.type), str if _shown(field) is not None else str | None)
    text = about(field).replace("`", "").replace("*", "")
    return Annotated[kind, tyro.conf.arg(help=f"{text}.")]
