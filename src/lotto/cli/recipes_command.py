"""``lotto recipes``: the presets, and the recipes of installed packages."""

from __future__ import annotations

from rich.table import Table

from lotto.cli.screen import console


def list_recipes() -> None:
    """List the presets, and the recipes of installed packages."""
    from lotto.core import registry
    from lotto.recipe import presets

    table = Table("recipe", "what it is")
    for name, preset in presets.PRESETS.items():
        table.add_row(name, (preset.__doc__ or "").splitlines()[0])
    for name, entry in registry.entries(presets.ENTRY_POINTS).items():
        if name not in presets.PRESETS:
            table.add_row(name, f"of the package {entry.dist.name if entry.dist else entry.value}")
    console.print(table)
