"""Parameter groups: which parameters an optimizer moves by other numbers, by patterns over their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from lotto.core.errors import UsageError, text, unknown
from lotto.core.frozen import FrozenDict

if TYPE_CHECKING:
    from lotto.recipe.optimizers import Optimizer

Kind = TypeVar("Kind", bound="Optimizer")
Groups = Mapping[str, Mapping[str, Any]]
"""From a pattern, or several with ``|`` between them, to the fields of the optimizer that are others there."""


def checked_groups(optimizer: Optimizer, groups: object) -> FrozenDict[Any]:
    """Groups as frozen data; raises ``UsageError`` for what is none, or no field of the optimizer."""
    if not isinstance(groups, Mapping) or not all(
        isinstance(pattern, str) and pattern and isinstance(changes, Mapping) for pattern, changes in groups.items()
    ):
        raise UsageError(
            "groups are patterns over parameter names with what is different there, such as "
            f"groups={{'*.bias|*norm*': {{'weight_decay': 0}}}}; got {text(groups)}."
        )
    known = [f.name for f in fields(optimizer) if f.name != "groups"]
    for pattern, changes in groups.items():
        for name in changes:
            if name not in known:
                raise unknown(f"field of {type(optimizer).__name__} in the group {pattern!r}", str(name), known)
        replace(optimizer, groups=None, **changes)  # which checks the numbers
    return FrozenDict(groups)


def grouped(optimizer: Kind, names: Iterable[str]) -> list[tuple[Kind, list[str]]]:
    """The optimizer of each group with the names of its parameters; of those in none the optimizer itself.

    A parameter belongs to the first pattern that matches its name.

    Raises:
        UsageError: if a pattern matches none, or none that is left by the patterns before it.

    >>> groups = {"*.bias": {"weight_decay": 0}}
    >>> found = grouped(lotto.SGD(0.1, weight_decay=1e-4, groups=groups), ["fc.weight", "fc.bias"])
    >>> [(it.weight_decay, names) for it, names in found]
    [(0.0001, ['fc.weight']), (0, ['fc.bias'])]
    """
    if optimizer.groups is None:
        return [(optimizer, [*names])]
    left, found = [*names], []
    every = list(left)
    for pattern, changes in optimizer.groups.items():
        mine = [name for name in left if _matches(name, pattern)]
        if not mine:
            taken = any(_matches(name, pattern) for name in every)
            why = (
                "patterns before it take all that it matches"
                if taken
                else f"they are {', '.join(every[:8])}" + (", ..." if len(every) > 8 else "")
            )
            raise UsageError(f"groups: {pattern!r} matches no parameter that is trained; {why}.")
        found.append((replace(optimizer, groups=None, **changes), mine))
        left = [name for name in left if name not in mine]
    return [(replace(optimizer, groups=None), left), *found]


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(name, part) for part in pattern.split("|"))
