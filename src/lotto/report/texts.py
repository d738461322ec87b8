"""Tables as texts for papers, pages and other programs: Markdown, LaTeX, CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lotto.core.errors import UsageError, unknown
from lotto.core.text import printable
from lotto.experiments.results import read
from lotto.lottery.result import ImpResult
from lotto.report.experiments import readable
from lotto.report.metric import Metric
from lotto.report.table import columns, rule

Rows = Sequence[Sequence[str]]

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "—": "---", "×": r"$\times$",
    "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "−": r"$-$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
"""Signs that mean something else in LaTeX, or that its fonts may not have."""


def of_result(result: ImpResult, form: str) -> str:
    """The table of a result; see `ImpResult.table_as`."""
    return levels_text(result.table(), Metric.of(result.plan.recipe), form)


def levels_text(table: pd.DataFrame, metric: Metric, form: str) -> str:
    """A table of levels with what decides: for people the readable columns, as CSV all of them.

    Args:
        table: see `ImpResult.table`.
        metric: of its errors.
        form: a name of `FORMS`.
    """
    _check(form)
    if form == "csv":
        return table.to_csv(index=False)
    found = columns(table, metric)
    rows = [list(row) for row in zip(*(values for _, values in found), strict=True)]
    return FORMS[form]([title for title, _ in found], rows, rule(table, metric))


def frame_text(frame: pd.DataFrame, title: str, form: str) -> str:
    """A frame of texts and numbers; ``title`` says what it is, and CSV has no place for it."""
    _check(form)
    if form == "csv":
        return frame.to_csv(index=False)
    return FORMS[form]([*map(str, frame.columns)], frame.astype(str).to_numpy().tolist(), title)


def experiments_text(folder: Path, form: str) -> str:
    """The tables of all experiments in a folder; as CSV the rows of the only one.

    Raises:
        UsageError: if the folder holds none, or rows of several are asked for.
    """
    _check(form)
    found = read(folder)
    if not found:
        raise UsageError(f"{folder} holds no experiment.")
    if form != "csv":
        titles = [f"{result.about['title']} ({result.about['source']})" for result in found]
        return "\n".join(
            frame_text(readable(result.frame), title, form) for result, title in zip(found, titles, strict=True)
        )
    if len(found) > 1:
        names = ", ".join(str(result.path) for result in found)
        raise UsageError(f"Rows of several experiments are no single table; each has a file: {names}.")
    return frame_text(found[0].frame, "", form)


def _check(form: str) -> None:
    if form not in (*FORMS, "csv"):
        raise unknown("format of a table", form, (*FORMS, "csv"))


def _markdown(titles: Sequence[str], rows: Rows, note: str) -> str:
    """A table with right-aligned columns and a line below it."""
    lines = [titles, ["--:"] * len(titles), *rows]
    return "\n".join([*("| " + " | ".join(map(_in_pipes, line)) + " |" for line in lines), "", _in_pipes(note), ""])


def _in_pipes(cell: str) -> str:
    return _one_line(cell).replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _latex(titles: Sequence[str], rows: Rows, note: str) -> str:
    """A table for the package booktabs."""
    lines = [" & ".join(map(_in_latex, line)) + r" \\" for line in (titles, *rows)]
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'r' * len(titles)}}}", r"\toprule", lines[0],
            r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}", rf"\caption{{{_in_latex(note)}}}",
            r"\end{table}", "",
        ]
    )  # fmt: skip


def _in_latex(cell: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in _one_line(cell))


def _one_line(cell: str) -> str:
    return " ".join(printable(cell).split("\n"))


FORMS: dict[str, Callable[[Sequence[str], Rows, str], Any]] = {"markdown": _markdown, "latex": _latex}
"""By name, how titles, rows and a note become a text; the third is ``csv``."""
