"""``lotto report``: the report of a folder of results, remade, or its tables as texts."""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping
from lotto.core.result_files import RESULT, no_result


def report(folder: Positional[Path], /, *, format: str | None = None) -> None:
    """Make report.html again from a folder of results, and print its table.

    Args:
        folder: what --out named.
        format: print the table alone as markdown, latex (for the package booktabs) or csv, and make nothing.
    """
    if not (is_search := (folder / RESULT).exists()) and not any(folder.glob("*.csv")):
        raise no_result(folder)
    from lotto import papers
    from lotto.core import files
    from lotto.report.experiments import write_experiments
    from lotto.report.html import write_report
    from lotto.report.metric import Metric
    from lotto.report.save import load_result
    from lotto.report.table import console_table
    from lotto.report.texts import experiments_text, levels_text

    stopping.unwind()
    if not is_search and format is not None:
        sys.stdout.write(experiments_text(folder, format))
        return
    if not is_search:
        say(f"Report  {write_experiments(folder, [*papers.EXPERIMENTS.values()])}")
        return
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
