"""How values are printed: one or two lines, whatever they hold. Notebooks get a small table."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor

from lotto.core.text import LONGEST, shortened

FEW = 4
"""Numbers or names that are listed one by one."""


def shown(value: Any) -> str:
    """A frozen dataclass in one line: fields that are not at their default, tensors and long lists by their sizes.

    It is what ``__repr__`` of our dataclasses is: ``__repr__ = shown``.
    """
    parts = [
        f"{f.name}={brief(at)}" for f in dataclasses.fields(value) if not _default(f, at := getattr(value, f.name))
    ]
    return shortened(f"{type(value).__name__}({', '.join(parts)})", 2 * LONGEST)


def brief(value: Any) -> str:
    """Any value in a few words."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Tensor | np.ndarray):
        return f"<{'×'.join(map(str, value.shape)) or 'one'} {str(value.dtype).removeprefix('torch.')}>"
    if isinstance(value, Mapping) and type(value).__repr__ is not dict.__repr__ and isinstance(value, dict):
        return repr(value)  # it knows how
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, str | PurePath):
        return repr(shortened(str(value)))
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return _collection(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return str(value.__qualname__)
    return shortened(repr(value))


def number(value: float, unit: str = "") -> str:
    """A measured number for people: ``2.31 %``; what is not a number is a dash."""
    return "–" if math.isnan(value) else f"{value:.4g}{unit}"


def table(titles: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> str:
    """A small HTML table; all texts are escaped."""

    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    head = f"<caption>{html.escape(caption)}</caption><thead>{row(titles, 'th')}</thead>"
    return f"<table>{head}<tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody></table>"


def _default(field: Any, value: Any) -> bool:
    """Whether a field holds its default or an empty mapping; one that is not plain is taken for another value."""
    if isinstance(value, Mapping) and not value:
        return True
    plain = (type(None), bool, int, float, str, tuple)
    return isinstance(value, plain) and type(value) is type(field.default) and bool(value == field.default)


def _mapping(value: Mapping[Any, Any]) -> str:
    held = list(value.values()) if isinstance(value, dict) else []  # others may have to read a disk
    if held and all(isinstance(at, Tensor) for at in held):
        return f"{{{len(held)} tensors, {sum(at.numel() for at in held):,} values}}"
    if held and len(held) <= FEW:
        return "{" + ", ".join(f"{brief(key)}: {brief(at)}" for key, at in value.items()) + "}"
    return f"{{{_listed(value)}}}" if value else "{}"


def _collection(value: Collection[Any]) -> str:
    left, right = "()" if isinstance(value, tuple) else "[]"
    kinds = {type(at) for at in value}
    if len(value) > FEW and len(kinds) == 1 and not kinds & {int, float, str}:
        return f"{left}{len(value)} × {kinds.pop().__name__}{right}"
    return f"{left}{_listed(value)}{right}"


def _listed(value: Collection[Any]) -> str:
    first = [brief(at) for _, at in zip(range(FEW), value, strict=False)]
    return ", ".join(first) + (f", … {len(value)} in all" if len(value) > FEW else "")
