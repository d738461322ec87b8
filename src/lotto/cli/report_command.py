"""``lotto report``: the report of a folder of results, remade, several on one page, or their tables as texts."""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError
from lotto.core.result_files import RESULT, no_result


def report(folders: Positional[tuple[Path, ...]], /, *, out: Path | None = None, format: str | None = None) -> None:
    """Make report.html again from a folder of results, or one page that compares several; print the table.

    Args:
        folders: what --out named; of several, a page that compares them is made.
        out: of several, the folder of comparison.html, or a name NAME.html (default: lotto-results/comparison).
        format: print the table alone as markdown, latex (for the package booktabs) or csv, and make nothing.
    """
    if not folders:
        raise UsageError("lotto report takes a folder of results, or several to compare; `lotto ls` lists them.")
    for folder in folders:
        if not (folder / RESULT).exists() and not any(folder.glob("*.csv")):
            raise no_result(folder)
    stopping.unwind()
    if len(folders) > 1:
        _compare(folders, out, format)
    elif out is not None:
        raise UsageError("--out is for several folders; the report of one lies in it.")
    elif (folders[0] / RESULT).exists():
        _search(folders[0], format)
    else:
        _experiments(folders[0], format)


def _search(folder: Path, format: str | None) -> None:
    """The report of ``lotto imp``."""
    from lotto.core import files
    from lotto.report.html import write_report
    from lotto.report.metric import Metric
    from lotto.report.save import load_result
    from lotto.report.table import console_table
    from lotto.report.texts import levels_text

    result = load_result(folder)
    with files.reading(folder / RESULT, "Run its command again."):
        metric = Metric.of_result(result)
        shown = console_table(result["table"], metric)
        text = None if format is None else levels_text(result["table"], metric, format)
    if text is not None:
        sys.stdout.write(text)
        return
    write_report(result, folder / "report.html")
    console.print(shown)
    say(f"Report  {folder / 'report.html'}")


def _experiments(folder: Path, format: str | None) -> None:
    """The report of ``lotto run``."""
    from lotto import papers
    from lotto.report.experiments import write_experiments
    from lotto.report.texts import experiments_text

    if format is not None:
        sys.stdout.write(experiments_text(folder, format))
        return
    page = write_experiments(folder, [*papers.EXPERIMENTS.values()], claims=papers.CLAIMS)
    say(f"Report  {page}")


def _compare(folders: tuple[Path, ...], out: Path | None, format: str | None) -> None:
    """The page of several results."""
    from lotto.report import comparison
    from lotto.report.table import frame_table
    from lotto.report.texts import frame_text

    results, notes = comparison.results_of(folders)
    groups = comparison.by_metric(results)
    if format is not None:
        title = "At a density: error, and in brackets the gap with its one-sided 95 % bound"
        parts = [comparison.rows_of(results)] if format == "csv" else map(comparison.table, groups)
        sys.stdout.write("\n".join(frame_text(part, title, format) for part in parts))
        return
    page = comparison.write_comparison(folders, *([] if out is None else [out]))
    for group in groups:
        console.print(frame_table(comparison.brief(group), group[0].metric.title))
        say(comparison.answer(group), "bold")
    for note in notes:
        say(note)
    say(f"Levels  {page.with_suffix('.csv')}\nReport  {page}")
