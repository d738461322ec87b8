"""Where two records of plain values differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ABSENT = "(absent)"


def differences(a: Any, b: Any, path: str = "") -> list[tuple[str, str, str]]:
    """Where two records of plain values differ: path, value in ``a``, value in ``b``.

    Lists of records that have names are compared by name, other lists place by place.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = sorted({*a, *b}, key=str)
        parts = [(f"{path}.{k}" if path else str(k), a.get(k, _Absent), b.get(k, _Absent)) for k in keys]
    elif isinstance(a, list) and isinstance(b, list):
        if (by_name := _by_name(a)) is not None and (others := _by_name(b)) is not None:
            return differences(by_name, others, path)
        longest = max(len(a), len(b))
        parts = [(f"{path}[{i}]", _at(a, i), _at(b, i)) for i in range(longest)]
    else:
        return [] if a == b and isinstance(a, bool) == isinstance(b, bool) else [(path, _text(a), _text(b))]
    return [found for inner, x, y in parts for found in differences(x, y, inner)]


class _Absent:
    """Stands for what is not there."""


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else _Absent


def _by_name(values: list[Any]) -> dict[str, Any] | None:
    if not values or not all(isinstance(v, Mapping) and isinstance(v.get("name"), str) for v in values):
        return None
    named = {v["name"]: v for v in values}
    return named if len(named) == len(values) else None


def _text(value: Any) -> str:
    if value is _Absent:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}…"
