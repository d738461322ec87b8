"""Names of things: ours, those of installed packages (entry points), and what ``package.module:name`` imports."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lotto.core.errors import LottoError, UsageError, text, unknown


def entries(group: str) -> dict[str, EntryPoint]:
    """The entry points of installed packages by name: ``lotto.scores``, ``lotto.recipes``, ``lotto.engines``, ...

    >>> entries("lotto.scores")
    {}
    """
    return {entry.name: entry for entry in entry_points(group=group)}


def find(kind: str, name: str, ours: Mapping[str, Any], group: str) -> Any:
    """What a name stands for: one of ours first, then what an installed package has declared.

    Args:
        kind: what it is, in an error: ``score``.
        name: its name, or ``package.module:name``.
        ours: what this package has, by name.
        group: entry points of this group are the others'.

    Raises:
        UsageError: if nothing has the name (the choices are listed), or it cannot be imported.
    """
    if name in ours:
        return ours[name]
    if ":" in name:
        return _imported(kind, name)
    others = entries(group)
    if name not in others:
        raise unknown(kind, name, {*ours, *others})
    return _loaded(kind, others[name])


def _imported(kind: str, name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except LottoError:
        raise
    except Exception as error:  # whatever a module of the user's may raise
        raise UsageError(
            f"The {kind} {text(name)} cannot be imported ({type(error).__name__}: {text(str(error))}); it is typed as "
            "package.module:name, of a module that Python finds."
        ) from error
    return found


def _loaded(kind: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever an installed package may raise
        package = entry.dist.name if entry.dist else entry.value
        raise UsageError(
            f"The {kind} {entry.name!r} of {package} cannot be imported "
            f"({type(error).__name__}: {text(str(error))}); repair or remove that package."
        ) from error
