"""Packages whose names are imported at their first use, so that a module in them costs only what it needs itself."""

from __future__ import annotations

from importlib import import_module

from lotto.core.moved import renamed_name

TYPE_CHECKING = False  # without `typing`, as `lotto` itself
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def lazy_face(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package; names of the first edition are found as well, with a warning.

    Args:
        package: its ``__name__``.
        homes: the names that it offers, by the module in it where they are defined.

    >>> __getattr__, __dir__ = lazy_face("lotto.recipe", {"recipe": ["Recipe"]})
    >>> __dir__(), __getattr__("Recipe").__module__
    (['Recipe'], 'lotto.recipe.recipe')
    """
    modules = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def found(name: str) -> Any:
        return getattr(import_module(modules[name]), name) if name in modules else renamed_name(package, name)

    return found, lambda: sorted(modules)
