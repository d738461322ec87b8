"""Results of experiments: a tidy CSV and a JSON for each, and one report of all that a folder holds."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.result_files import RESULT
from lotto.execution.entries import versions
from lotto.experiments.claims import Claim, Decision
from lotto.experiments.experiment import Experiment, Plot, summary
from lotto.experiments.gaps import gap_table
from lotto.experiments.measures import BARRIER, ERROR, IMP, NOT_CONVERGED, ONLY_DRAWN, RANDOM, UNITS
from lotto.experiments.options import Options
from lotto.experiments.results import FORMAT, StoredResult, read
from lotto.recipe.tolerance import Tolerance
from lotto.report import findings, plots
from lotto.report.against_dense import readable_gaps, sentences
from lotto.report.folders import MADE_BY, OTHERS, PAGE, Place, made_by, saving
from lotto.report.inline import Inline, inline
from lotto.report.metric import Metric
from lotto.report.pages import render
from lotto.report.table import OF_ALL, measured, percent

LARGEST = 1_000_000
"""Bytes of a report, which is sent around as a file."""
RATIO = "ratio"
"""Column of the ratio of a random mask's distance to that of IMP's."""


class Figures:
    """Figures that have been drawn, as a file and for a page: of the same rows each is drawn once."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[Path, bytes], tuple[str, Inline]] = {}

    def of(self, result: StoredResult, draw: Plot) -> tuple[str, Inline]:
        """The figure of a result's rows, as SVG and as pages have it."""
        rows = result.path, hashlib.sha256(result.path.read_bytes()).digest()
        if rows not in self._drawn:
            means, gaps = summary(result.frame), gaps_of(result)
            if gaps is not None and len(gaps):
                gaps = gaps[["kind", "rewind_step", "level", "gap", "gap_low", "gap_high", "verdict"]]
                means = means.merge(gaps, how="left", on=["kind", "rewind_step", "level"])
            figure = draw(means, result.tolerance)
            self._drawn[rows] = plots.svg(figure), inline(figure, place_of(result), str(result.about["title"]))
        return self._drawn[rows]


def place_of(result: StoredResult) -> str:
    """Where a result is on its folder's page."""
    return re.sub(r"\W+", "-", f"{result.about['paper']}-{result.about['name']}")


def gaps_of(result: StoredResult) -> pd.DataFrame | None:
    """The gaps of a result's levels, if its experiment compares them with the dense network."""
    if not result.about.get("compares"):
        return None
    return gap_table(result.frame, margin_of(result))


def margin_of(result: StoredResult) -> Tolerance:
    """The tolerance of a result's recipe."""
    return Tolerance.of(result.about["recipe"]["tolerance"])


@checked
def save_experiment(
    experiment: Experiment,
    options: Options,
    frame: pd.DataFrame,
    folder: Path,
    command: str,
    seconds: float,
    known: Sequence[Experiment] = (),
    figures: Figures | None = None,
    claims: Mapping[str, Sequence[Claim]] = MappingProxyType({}),
) -> Path:
    """Write ``NAME.csv`` and ``NAME.json``, draw ``NAME.svg`` and the folder's report; returns the report's path.

    If another result of this experiment is there, the folder is ``folder-2``, ``folder-3``, ...

    ``known`` are the experiments whose results the folder may hold beside this one's, to be drawn with it, and
    ``figures`` what calls for other experiments have drawn, which is not drawn again. Of ``claims``, by paper, those
    that this folder's rows say something about are decided in the report.

    >>> from lotto import papers
    >>> distances = papers.get("stabilizing.distances")
    >>> options = distances.options(recipe, {"replicates": 1, "levels": 1})
    >>> frame = distances.run(options, lotto.engine.make(jobs=1))
    >>> report = save_experiment(distances, options, frame, Path("saved"), "lotto run stabilizing.distances small", 2.0)
    >>> report.name, sorted(path.suffix for path in report.parent.glob("*distances.*"))
    ('report.html', ['.csv', '.json', '.svg'])
    """
    table = frame.to_csv(index=False)
    places = places_of(experiment, options, table)
    about = {
        "format": FORMAT,
        "name": experiment.name,
        "paper": experiment.paper,
        "title": experiment.title,
        "source": experiment.source,
        "compares": experiment.compares,
        "command": command,
        "seconds": seconds,
        "recipe": options.recipe.describe(),
        "training": options.training(),
        "options": experiment.describe(options),
        "versions": versions(),
        MADE_BY: places[0].made_by,
    }
    with saving(Path(folder), places) as own:
        files.write_json(own / f"{experiment.name}.json", about)  # first: it says what the others are of
        files.write_text(own / f"{experiment.name}.csv", table)
        return write_experiments(own, (*known, experiment), figures, claims)


def places_of(experiment: Experiment, options: Options, outcome: str = "") -> list[Place]:
    """Where the result of an experiment lies in its folder, which is not that of tickets.

    ``outcome`` stands for trainings that cannot be recognised.
    """
    asked = {"paper": experiment.paper, **experiment.describe(options)}
    made = made_by(options.recipe, asked, options.seed, hashlib.sha256(outcome.encode()).hexdigest())
    of_tickets = Place(RESULT, {}, [name for name in OTHERS if name != PAGE])
    return [Place(f"{experiment.name}.json", made, [f"{experiment.name}.csv", f"{experiment.name}.svg"]), of_tickets]


@checked
def write_experiments(
    folder: Path,
    known: Sequence[Experiment],
    figures: Figures | None = None,
    claims: Mapping[str, Sequence[Claim]] = MappingProxyType({}),
) -> Path:
    """Draw ``report.html`` from all results in a folder, and ``NAME.svg`` for each that is of a ``known`` experiment.

    ``figures`` and ``claims`` as of `save_experiment`.

    Raises:
        UsageError: if the folder holds none.

    >>> from lotto import papers
    >>> distances = papers.get("stabilizing.distances")
    >>> options = distances.options(recipe, {"replicates": 1, "levels": 1})
    >>> frame = distances.run(options, lotto.engine.make(jobs=1))
    >>> report = save_experiment(distances, options, frame, Path("drawn"), "lotto run stabilizing.distances small", 2.0)
    >>> write_experiments(Path("drawn"), [distances]) == report  # drawn again
    True
    """
    drawn_by = {(e.paper, e.name): e.plot for e in known}
    figures = figures or Figures()
    sections = []
    results = read(folder)
    decided = findings.Findings(results, claims)
    for result in results:
        with files.reading(result.path.with_suffix(".json"), "Run its experiment again."):
            draw = drawn_by.get((result.about["paper"], result.about["name"]))
            section = _section(result, draw, figures, decided.of(result))
            render("experiments.html", sections=[section], recipe="")  # what is missing is that of this file
        if section["file"]:
            files.write_text(result.path.with_suffix(".svg"), section["file"])
        sections.append(section)
    if not sections:
        raise UsageError(f"{folder} holds no experiment.")
    page = folder / PAGE
    files.write_text(page, _page(sections))
    return page


def _page(sections: Sequence[dict[str, Any]]) -> str:
    """The page; one that would be larger than `LARGEST` has each figure once, for screens of any width."""
    drawn = [section["plot"] for section in sections if section["plot"]]
    text = render("experiments.html", drawn, sections=sections, recipe=sections[0]["recipe"]["name"])
    if len(text.encode()) <= LARGEST or all(len(figure.svgs) == 1 for figure in drawn):
        return text
    return _page([{**s, "plot": s["plot"] and replace(s["plot"], svgs=s["plot"].svgs[:1])} for s in sections])


def _section(
    result: StoredResult, draw: Plot | None, figures: Figures, decisions: Sequence[Decision]
) -> dict[str, Any]:
    """What the page shows of a result."""
    table, file, plot, said = readable(result.frame), "", None, list[str]()
    gaps = gaps_of(result)
    if gaps is not None and len(gaps):
        metric = Metric("error", " %", margin_of(result))
        table, said = readable_gaps(gaps, metric), sentences(result.frame, gaps, metric)
    if draw is not None and set(result.frame["unit"]) <= set(UNITS):  # axes and limits are in these units
        file, plot = figures.of(result, draw)
    return {
        **result.about,
        "place": place_of(result),
        "file": file,
        "plot": plot,
        "bounded": bool(said),
        "said": said or [findings.sentence(decisions)],
        "claims": findings.rows(decisions),
        "titles": list(table.columns),
        "rows": table.to_numpy().tolist(),
    }


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per rewind step and measure, one column per kind of network, and the ratio of random to IMP.

    >>> from lotto import papers
    >>> distances = papers.get("stabilizing.distances")
    >>> frame = distances.run(distances.options(recipe, {"replicates": 1, "levels": 1}), lotto.engine.make(jobs=1))
    >>> [*readable(frame).columns]
    ['step', 'left', 'of all', 'measure', 'unit', 'dense', 'imp', 'random', 'ratio']
    """
    frame = frame[~frame["measure"].isin([measure.name for measure in ONLY_DRAWN])]
    if "x" in frame:  # of barriers between levels, those of successive ones
        frame = frame[~(frame["measure"].str.startswith(BARRIER.name) & (frame["x"] > frame["level"] + 1))]
    means, not_converged = summary(frame), _not_converged(frame)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in means.to_dict("records"):
        x = row.get("x", math.nan)
        key = (row["rewind_step"], row["density"], row["measure"], row["unit"], None if math.isnan(x) else x)
        line = lines.setdefault(key, {})
        refused = math.isnan(row["mean"]) and (row["measure"], row["kind"], row["density"]) in not_converged
        line[row["kind"]] = NOT_CONVERGED if refused else measured(row["mean"], row["std"], row["diverged"])
        line[f"{row['kind']} mean"] = row["mean"]
    kinds = list(dict.fromkeys(means["kind"]))
    of_all = frame.groupby("density")[OF_ALL].first() if OF_ALL in frame else {}
    result = []
    for (step, density, measure, unit, x), line in lines.items():
        shown: dict[str, Any] = {"step": step, "left": percent(density)}
        if len(of_all):
            shown["of all"] = percent(of_all[density])
        shown |= {"measure": measure, "unit": unit}
        if any(at[-1] is not None for at in lines):
            shown["at"] = "" if x is None else f"{x:g}"
        shown |= {kind: line.get(kind, "–") for kind in kinds}
        if {IMP, RANDOM} <= set(kinds):
            mean, other = (line.get(f"{kind} mean") for kind in (IMP, RANDOM))
            shown[RATIO] = ""
            if (
                mean and other is not None and not math.isnan(other / mean) and measure != ERROR.name
            ):  # a barrier may be 0
                shown[RATIO] = f"{other / mean:.2f}×"
        result.append(shown)
    return pd.DataFrame(result)


def _not_converged(frame: pd.DataFrame) -> set[tuple[str, str, float]]:
    """Measure, kind and density of the rows whose value is refused."""
    if "note" not in frame:
        return set()
    rows = frame[frame["note"].astype(str).str.startswith(NOT_CONVERGED)]
    return set(zip(rows["measure"], rows["kind"], rows["density"], strict=True))
