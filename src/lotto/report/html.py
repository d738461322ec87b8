"""The report: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotto.core import files
from lotto.report import plots
from lotto.report.inline import inline
from lotto.report.metric import Metric
from lotto.report.outcome import advice, because, headline
from lotto.report.pages import render
from lotto.report.table import OF_ALL, VERDICT, columns, rule


def write_report(result: Mapping[str, Any], path: Path) -> None:
    """Write the report of a loaded result, atomically, and its first plot as ``error.svg`` beside it.

    >>> from lotto.report.save import load_result, save_result
    >>> result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1)
    >>> save_result(result, Path("results"), command="lotto imp small --levels 1", seconds=2.0)["report"].name
    'report.html'
    >>> write_report(load_result(Path("results")), Path("again.html"))
    """
    with files.reading(path.with_name("result.json"), "Run its command again."):
        page, error_plot = _drawn(result)
    files.write_text(path.with_name("error.svg"), error_plot)
    files.write_text(path, page)


def _drawn(result: Mapping[str, Any]) -> tuple[str, str]:
    """The page, and its first plot."""
    table = result["table"]
    metric = Metric.of_result(result)
    # Results of the time before verdicts name no level: it was the last that matched.
    matching = result.get("matching_level", int(table[table["matching"]]["level"].max()))
    chosen = result.get("chosen_level", matching)
    densities = list(table["density"])
    histories = dict(enumerate(result["histories"]))
    cells = columns(table, metric)
    error_plot = plots.error_against_density(table, metric, plots.method(result["plan"]))
    along = any(len(run) > 1 for runs in histories.values() for run in runs)  # else there is a point for each level
    figures = {
        "error_plot": inline(error_plot, "error", "Error against density"),
        "curves_plot": inline(plots.training_curves(histories, densities, metric), "curves", "Training curves")
        if along
        else None,
        "layers_plot": inline(plots.layer_densities(result["layers"], densities), "layers", "Density of each layer"),
    }
    page = render(
        "levels.html",
        [figure for figure in figures.values() if figure is not None],
        name=result["recipe"]["name"],
        model=result["recipe"]["model"],
        data=result["recipe"]["data"],
        command=result["command"],
        seconds=result["seconds"],
        training_seconds=result["training_seconds"],
        recipe=result["recipe"],
        plan=result["plan"],
        method=plots.method(result["plan"]),
        versions=result["versions"],
        titles=[title for title, _ in cells],
        rows=[list(row) for row in zip(*(values for _, values in cells), strict=True)],
        matching_rows=[i for i, matches in enumerate(table["matching"]) if matches],
        of_all=OF_ALL in table,
        headline=headline(table, matching, chosen, metric),
        because=because(table, matching, chosen, metric),
        advice=advice(table, matching),
        rule=rule(table, metric),
        bounded=VERDICT in table,
        left_out=result.get("left_out", ""),
        diverged=result.get("diverged", ()),
        **figures,
    )
    return page, plots.svg(error_plot)
