"""Trees of values in plain containers: dicts, lists and tuples, nested in any way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any


def flatten(tree: Any) -> list[Any]:
    """The leaves of a tree from left to right; whatever is no dict, list or tuple is a leaf, also ``tree`` itself.

    >>> flatten({"a": [1, (2, 3)], "b": {}, "c": 4})
    [1, 2, 3, 4]
    """
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in flatten(part)]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in flatten(part)]
    return [tree]


def unflatten(tree: Any, leaves: Iterable[Any]) -> Any:
    """A tree of the same shape with other leaves, in the order of `flatten`; named tuples and kinds of dict stay such.

    >>> unflatten({"a": [1, (2, 3)], "b": {}, "c": 4}, "wxyz")
    {'a': ['w', ('x', 'y')], 'b': {}, 'c': 'z'}

    Raises:
        ValueError: if there are more or fewer leaves than places.
    """
    left = iter(leaves)
    try:
        made = _filled(tree, left)
    except StopIteration:
        raise ValueError(f"The tree has {len(flatten(tree))} leaves; fewer were given.") from None
    if next(left, end := object()) is not end:
        raise ValueError(f"The tree has {len(flatten(tree))} leaves; more were given.")
    return made


def _filled(tree: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(tree, dict):
        parts_of = {name: _filled(part, leaves) for name, part in tree.items()}
        if type(tree) is dict:
            return parts_of
        made = copy.copy(tree)  # whose entries may be attributes as well
        for name, part in parts_of.items():
            made[name] = part
        return made
    if isinstance(tree, list | tuple):
        parts = [_filled(part, leaves) for part in tree]
        return parts if isinstance(tree, list) else type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return next(leaves)
