"""``lotto recipes``: the presets, and the recipes of installed packages."""

from __future__ import annotations

from rich.table import Table

from lotto.cli.screen import console


def recipes() -> None:
    """List the presets, and the recipes of installed packages."""
    from lotto.core import registry
    from lotto.recipe.titles import ENTRY_POINTS, preset_titles

    titles = preset_titles()
    table = Table("recipe", "what it is")
    for name, title in titles.items():
        table.add_row(name, title)
    for name, entry in registry.entries(ENTRY_POINTS).items():
        if name not in titles:
            table.add_row(name, f"of the package {entry.dist.name if entry.dist else entry.value}")
    console.print(table)
