"""``lotto report``: the report of a folder of results, remade."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping


def report(folder: Positional[Path], /) -> None:
    """Make report.html again from a folder of results, and print its table.

    Args:
        folder: what --out named.
    """
    from lotto import papers
    from lotto.report.experiments import write_experiments
    from lotto.report.html import write_report
    from lotto.report.metric import Metric
    from lotto.report.save import load_result
    from lotto.report.table import console_table

    stopping.unwind()
    if not (folder / "result.json").exists() and any(folder.glob("*.csv")):
        say(f"Report  {write_experiments(folder, [*papers.EXPERIMENTS.values()])}")
        return
    result = load_result(folder)
    write_report(result, folder / "report.html")
    console.print(console_table(result["table"], Metric.of_result(result)))
    say(f"Report  {folder / 'report.html'}")
