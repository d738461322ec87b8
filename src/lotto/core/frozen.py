"""A dict that does not change: a field of frozen data, compared and hashed by what it holds, in its order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class FrozenDict(Mapping[str, T]):
    """A mapping that nobody changes; mappings among its values become such, too.

    >>> FrozenDict({"a": {"b": 1}}) == {"a": {"b": 1}}, FrozenDict(a=1)
    (True, {'a': 1})
    """

    def __init__(self, values: Mapping[str, Any] | None = None, **named: Any) -> None:
        found = {**(values or {}), **named}
        self._values: dict[str, T] = {
            name: FrozenDict(value) if isinstance(value, Mapping) else value for name, value in found.items()
        }

    def __getitem__(self, name: str) -> T:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        """Equal to any mapping with the same entries in the same order."""
        return isinstance(other, Mapping) and [*self.items()] == [*other.items()]

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)
