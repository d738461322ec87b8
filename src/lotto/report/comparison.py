"""Several results side by side: what each has found, on one page with one table and one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lotto.core import files
from lotto.core.check import checked
from lotto.lottery.result import DENSE
from lotto.report import plots
from lotto.report.compared import SAME, Compared, results_of
from lotto.report.inline import inline
from lotto.report.pages import render
from lotto.report.points import NONE
from lotto.report.table import percent

MOST = 6
"""Columns of densities."""


@checked
def write_comparison(folders: Sequence[Path], out: Path = Path("lotto-results/comparison")) -> Path:
    """Write one page that compares the results in several folders, and their levels as a CSV beside it.

    Results whose errors are of another metric have a table and a figure of their own.

    Args:
        folders: as of `results_of`.
        out: a folder, for ``comparison.html`` and ``comparison.csv`` in it, or the page's own name, ``NAME.html``.

    Returns:
        The page.

    Raises:
        UsageError: if a folder holds no result, or none of all has errors at several densities.

    >>> folders = [lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1, seed=seed).save(f"seed-{seed}")
    ...            for seed in (0, 2)]
    >>> write_comparison(folders, "both").name
    'comparison.html'
    """
    results, notes = results_of(folders)
    page = out if out.suffix == ".html" else out / "comparison.html"
    text = page_of(results, notes)
    files.write_text(page.with_suffix(".csv"), rows_of(results).to_csv(index=False))
    files.write_text(page, text)
    return page


def page_of(results: Sequence[Compared], notes: Sequence[str] = ()) -> str:
    """The page that compares results; ``notes`` say what is not among them."""
    sections = []
    for number, group in enumerate(by_metric(results)):
        cells = table(group)
        title = f"{group[0].metric.title} against density"
        sections.append(
            {
                "title": title,
                "answer": answer(group),
                "plot": inline(figure(group), f"figure-{number}", title),
                "titles": list(cells.columns),
                "rows": cells.to_numpy().tolist(),
                "limits": ", ".join(f"{one.name}: {one.metric.margin}" for one in group),
            }
        )
    return render("comparison.html", [s["plot"] for s in sections], sections=sections, notes=notes, count=len(results))


def by_metric(results: Sequence[Compared]) -> list[list[Compared]]:
    """Results whose errors can stand on one axis."""
    groups: dict[tuple[str, str], list[Compared]] = {}
    for result in results:
        groups.setdefault((result.metric.name, result.metric.unit), []).append(result)
    return list(groups.values())


def answer(results: Sequence[Compared]) -> str:
    """Which of the results matches with fewest weights, in a sentence."""
    ends = [(one, one.levels.iloc[one.matching].to_dict()) for one in results if one.matching]
    ends.sort(key=lambda end: end[1]["density"])
    without = [one.name for one in results if not one.matching]
    if not ends:
        return f"No pruned level of {_listed(without)} is shown to match its dense network."
    said = [
        f"{one.name} down to {percent(level['density'])} of the weights (gap {one.gap(level)})" for one, level in ends
    ]
    rest = f" Of {_listed(without)} no pruned level is shown to match." if without else ""
    return f"Subnetworks match the dense network: {_listed(said)}.{rest}"


def common_densities(results: Sequence[Compared]) -> list[float]:
    """Densities that several results have, at most `MOST`, from dense to sparse; of a single result its own."""
    every = [float(density) for one in results for density in one.levels["density"][1:] if density > 0]
    distinct: list[float] = []
    for density in sorted(every, reverse=True):
        if not distinct or density < distinct[-1] * (1 - SAME):
            distinct.append(density)
    needed = min(2, len(results))
    shared = [density for density in distinct if sum(one.at(density) is not None for one in results) >= needed]
    if len(shared) <= MOST:
        return shared
    return [shared[round(i * (len(shared) - 1) / (MOST - 1))] for i in range(MOST)]


def table(results: Sequence[Compared]) -> pd.DataFrame:
    """A row for each result, in words; see `common_densities` for its columns."""
    rows = []
    for one in results:
        dense, end = one.levels.iloc[0].to_dict(), one.levels.iloc[one.matching].to_dict()
        row = {
            "result": one.name,
            "model": one.model,
            "data": one.data,
            "n": str(int(dense["n"])),
            f"dense {one.metric.title}": one.error(dense),
            "sparsest matching": percent(end["density"]) if one.matching else "none",
            "its gap": one.gap(end) if one.matching else NONE,
        }
        for density in common_densities(results):
            level = one.at(density)
            row[f"at {percent(density)}"] = NONE if level is None else one.error(level)
        rows.append(row)
    return pd.DataFrame(rows)


def brief(results: Sequence[Compared]) -> pd.DataFrame:
    """The columns of `table` that fit into eighty: the whole of it is on the page."""
    whole = table(results)
    return whole[["result", f"dense {results[0].metric.title}", "sparsest matching", "its gap"]]


def rows_of(results: Sequence[Compared]) -> pd.DataFrame:
    """All levels of all results as numbers."""
    parts = [
        one.levels.assign(result=one.name, model=one.model, data=one.data, metric=one.metric.name, unit=one.metric.unit)
        for one in results
    ]
    frame = pd.concat(parts, ignore_index=True)
    first = ["result", "model", "data", "metric", "unit"]
    return frame[[*first, *(column for column in frame if column not in first)]]


def figure(results: Sequence[Compared]) -> plots.Drawing:
    """Errors and gaps of all results against density; around a gap its one-sided 95 % bounds."""
    made, (errors, gaps) = plots.panels(2, 4.4)
    notes = {}
    for number, one in enumerate(results):
        colour, dashes = f"C{number % 10}", plots.DASHES[number // 10 % len(plots.DASHES)]
        name, levels = plots.named(one.name), one.levels
        means = levels.rename(columns={"error": "mean", "error_std": "std"})
        plots.line(errors, means, "density", colour, name, ls=dashes)
        gaps.plot(levels["density"], levels["gap"], marker="o", ms=4, lw=1.5, color=colour, ls=dashes, label=name)
        gaps.fill_between(levels["density"], levels["gap_low"], levels["gap_high"], color=colour, alpha=0.15, lw=0)
        notes[one.name] = [
            "" if level["verdict"] == DENSE else f"gap {one.gap(level)}, {level['verdict']}"
            for level in levels.to_dict("records")
        ]
        if one.matching:
            end = levels.iloc[[one.matching]]
            gaps.plot(end["density"], end["gap"], "o", ms=9, mfc="none", mec=colour, label="_")
    made.notes = notes
    metric = results[0].metric
    densities = [density for one in results for density in one.levels["density"]]
    for axis, title in ((errors, metric.axis), (gaps, f"gap to the dense network,{metric.unit or ' ' + metric.name}")):
        plots.density_axis(axis, densities)
        axis.set_title(title, fontsize=10, parse_math=False)
    plots.error_axis(errors, pd.concat([one.levels["error"] for one in results]))
    gaps.axhline(0, color=plots.COLOURS["dense"], lw=1)
    for margin in {one.metric.margin for one in results if not one.metric.margin.relative}:
        gaps.axhline(margin.amount, color=plots.COLOURS["dense"], lw=1, ls=":")
    legend = errors.legend(frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return made


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)
