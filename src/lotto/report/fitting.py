"""Tables for terminals of any width: what does not fit is written tighter, then left out by name, and never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lotto.core.text import printable

Columns = Sequence[tuple[str, Sequence[str]]]
"""Titles and cells."""

GAP = 2
KEPT = ("level", "left", "of all", "error")
"""How the titles begin of columns that stay however narrow the terminal is."""
FIRST_LEFT_OUT = "vs dense"
SHORT = {
    "verdict": "match",
    "matching": "yes",
    "failing": "no",
    "borderline": "open",
    "not decided (n = 1)": "n = 1",
    "random mask": "random",
}
"""Titles and whole cells where room is short."""


def cell(text: object) -> Text:
    """A cell that shows a text as it is: brackets in it are no markup."""
    return Text(printable(str(text)))


@dataclass
class FittedTable:
    """A table of numbers that is as wide as its terminal allows.

    Attributes:
        columns: titles and cells.
        caption: a text below it.
        styles: of the rows.
        more: where all columns can be found.
    """

    columns: Columns
    caption: str
    styles: Sequence[str | None]
    more: str = "table.csv"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, left_out = fitting(self.columns, options.max_width)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        for title, _ in shown:
            table.add_column(cell(title), justify="right", overflow="fold")
        for style, *cells in zip(self.styles, *(values for _, values in shown), strict=True):
            table.add_row(*map(cell, cells), style=style)
        yield table
        yield cell(self.caption)
        if left_out:
            yield cell(f"For lack of room without: {', '.join(left_out)}; see {self.more}.")


def fitting(columns: Columns, width: int) -> tuple[Columns, list[str]]:
    """Columns that fit into so many signs, and the titles of those that do not."""
    if needed(columns) <= width:
        return columns, []
    shown = [(title.split(" (")[0], [value.replace(" ± ", "±") for value in values]) for title, values in columns]
    if needed(shown) > width:
        shown = [(SHORT.get(title, title), [SHORT.get(value, value) for value in values]) for title, values in shown]
    rest = [title for title, _ in reversed(shown) if not title.startswith(KEPT)]
    left_out: list[str] = []
    for title in sorted(rest, key=lambda title: title != FIRST_LEFT_OUT):
        if needed(shown) <= width:
            return shown, left_out
        shown = [column for column in shown if column[0] != title]
        left_out.append(title)
    if needed(shown) > width:
        shown = [(title, [value.split("±")[0] for value in values]) for title, values in shown]
        left_out.append("spread")
    return shown, left_out


def needed(columns: Columns) -> int:
    """How many signs columns take side by side."""
    return sum(max(map(len, (title, *values))) for title, values in columns) + GAP * len(columns)
