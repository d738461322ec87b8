"""A recipe's fields as readable values, for reports and files."""

from __future__ import annotations

import dataclasses
from typing import Any

from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.source import Adapted


def readable(value: Any) -> Any:
    """A field's value as a number or a text."""
    if isinstance(value, Arrays | ImageFolder | Adapted):
        return f"{type(value).__name__}({value.name}, {value.size()} training examples)"
    if callable(value) and not dataclasses.is_dataclass(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', value)}"
    return value if isinstance(value, (int, float)) else str(value)


def described_defaults(kind: type) -> dict[str, Any]:
    """What `Recipe.describe` says of fields that nobody has set: what a description made before them leaves unsaid.

    Args:
        kind: `Recipe`.

    >>> described_defaults(lotto.Recipe)["loop"]
    'None'
    """
    found = {}
    for f in dataclasses.fields(kind):
        if f.default is not dataclasses.MISSING:
            found[f.name] = readable(f.default)
        elif f.default_factory is not dataclasses.MISSING:
            found[f.name] = readable(f.default_factory())
    return found
