"""What was measured, as tables: on the screen and as Markdown, from the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from lotto.benchmarks.gpu.cases import Case
from lotto.benchmarks.gpu.record import Record
from lotto.benchmarks.harness import Row

Column = tuple[str, Callable[[Row], str]]


def _plain(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name, ""))


def _number(name: str, factor: float = 1.0, how: str = ".3g") -> Callable[[Row], str]:
    return lambda row: f"{row[name] * factor:{how}}" if name in row else ""


def _ratio(row: Row) -> str:
    return f"{row['ratio']:.2f}× ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"


def _epoch(row: Row) -> str:
    """Seconds of an epoch, from those of the steps that were measured."""
    return f"{row['seconds'] * row['epoch_steps']:.3g}"


def _same(row: Row) -> str:
    if "problem" in row:
        return f"not computed: {row['problem']}"
    return "the same" if row["same"] else f"differ by up to {row['largest']:.1g}"


TRAINED: list[Column] = [("network", _plain("network")), ("precision", _plain("precision"))]
PAIR: list[Column] = [
    ("what", _plain("what")), ("against", _plain("against")),
    ("ms", _number("seconds", 1e3)), ("ms against", _number("seconds_against", 1e3)), ("faster by", _ratio),
]  # fmt: skip
MEMORY: list[Column] = [
    ("MiB", _number("mebibytes", how=".0f")), ("MiB against", _number("mebibytes_against", how=".0f"))
]  # fmt: skip
EPOCH: list[Column] = [("an epoch, s", _epoch), ("of steps", _plain("turn_steps"))]
FIRST: Column = ("first step after, s", _number("first_seconds"))

GROUPS: Mapping[str, tuple[str, list[Column]]] = {
    "loop": ("lotto against a tight loop, per step", [*TRAINED, *PAIR, *EPOCH, *MEMORY]),
    "stacked": ("Stacks against one network, per step and network", [*TRAINED, *PAIR, *EPOCH, *MEMORY]),
    "processes": (
        "Processes on one card, per step and network",
        [*TRAINED, *PAIR, ("MiB of the card, all that began", _number("card_mebibytes", how=".0f"))],
    ),
    "bits": (
        "Two runs of the same training",
        [*TRAINED, ("in a stack of", _plain("width")), ("deterministic", _plain("deterministic")),
         ("steps", _plain("steps")), ("bits", _same)],
    ),
    "compiled": ("torch.compile, per step", [*TRAINED, *PAIR, FIRST, *MEMORY]),
    "uploads": ("Copies of a batch of images to the card", [("measured", _plain("measured")), *PAIR]),
}  # fmt: skip
"""By group: the title of its table, and its columns."""


def cells(group: str, cases: Sequence[Case], record: Record) -> tuple[list[str], list[list[str]]]:
    """Column names, and the cells of every row; a case that could not be measured has its sentence in one of them."""
    _, columns = GROUPS[group]
    rows: list[list[str]] = []
    for case in cases:
        if case.group == group:
            rows += [[value(row) for _, value in columns] for row in record.rows(case.name)]
            if problem := record.problem(case.name):
                about = case.name.removeprefix(f"{group} ")
                rows.append([about, f"not measured: {problem}", *[""] * (len(columns) - 2)])
    return [name for name, _ in columns], rows


def tables(cases: Sequence[Case], record: Record) -> list[Table]:
    """The readable tables of what is measured so far."""
    found = []
    for group, (title, _) in GROUPS.items():
        names, rows = cells(group, cases, record)
        if not rows:
            continue
        table = Table(title=title)
        for name in names:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        found.append(table)
    return found


def markdown(cases: Sequence[Case], record: Record) -> str:
    """The same as Markdown, with the machine above them."""
    machine: dict[str, Any] = record.machine
    about = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in ("card", "sizes"))
    done = sum(record.is_done(case.name) for case in cases)
    lines = [
        f"# {machine.get('card', '')}", "",
        f"`lotto bench gpu`: {done} of {len(cases)} cases; {about}. Times are medians of turns; random images; an "
        "epoch's seconds are those of so many steps, multiplied; nothing is evaluated within it.",
    ]  # fmt: skip
    for group, (title, _) in GROUPS.items():
        names, rows = cells(group, cases, record)
        if rows:
            lines += ["", f"## {title}", "", _line(names), _line(["---"] * len(names)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
