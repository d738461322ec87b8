"""``lotto recipes``: the presets."""

from __future__ import annotations

from rich.table import Table

from lotto.cli.screen import console


def list_recipes() -> None:
    """List the presets."""
    from lotto.recipe import presets

    table = Table("recipe", "what it is")
    for name, preset in presets.PRESETS.items():
        table.add_row(name, (preset.__doc__ or "").splitlines()[0])
    console.print(table)
