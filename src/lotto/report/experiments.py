"""Results of experiments: a tidy CSV and a JSON for each, and one report of all that a folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from lotto import files
from lotto.entries import versions
from lotto.errors import UsageError
from lotto.papers.experiment import Experiment, Options, summary
from lotto.report import plots
from lotto.report.table import spread

KEYS = ["rewind_step", "kind", "measure", "unit"]


def save_experiment(
    experiment: Experiment, options: Options, frame: pd.DataFrame, folder: Path, command: str, seconds: float
) -> Path:
    """Write ``NAME.csv`` and ``NAME.json`` and draw the folder's report again; returns the report's path."""
    files.write_text(folder / f"{experiment.name}.csv", frame.to_csv(index=False))
    about = {
        "format": "lotto.experiment",
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "command": command,
        "seconds": seconds,
        "recipe": options.recipe.describe(),
        "options": options.describe(),
        "versions": versions(),
    }
    files.write_json(folder / f"{experiment.name}.json", about)
    return write_experiments(folder)


def write_experiments(folder: Path) -> Path:
    """Draw ``report.html`` from all experiments in a folder.

    Raises:
        UsageError: if the folder holds none.
    """
    sections = []
    for path in sorted(folder.glob("*.json")):
        about = json.loads(path.read_text())
        if about.get("format") == "lotto.experiment":
            frame = pd.read_csv(path.with_suffix(".csv"))
            table = readable(frame)
            sections.append(
                {
                    **about,
                    "plot": plots.svg(draw(about["name"], frame)),
                    "titles": list(table.columns),
                    "rows": table.to_numpy().tolist(),
                }
            )
    if not sections:
        raise UsageError(f"{folder} holds no experiment.")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources("lotto.report").joinpath("experiments.html").read_text())
    page = folder / "report.html"
    files.write_text(page, template.render(sections=sections, recipe=sections[0]["recipe"]["name"]))
    return page


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per rewind step and measure, one column per kind of network, and the ratio of random to IMP."""
    means = summary(frame, KEYS)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in means.to_dict("records"):
        line = lines.setdefault((row["rewind_step"], row["measure"], row["unit"]), {})
        line[row["kind"]] = spread(row["mean"], row["std"])
        line[f"{row['kind']} mean"] = row["mean"]
    kinds = list(dict.fromkeys(means["kind"]))
    result = []
    for (step, measure, unit), line in lines.items():
        shown: dict[str, Any] = {"rewind step": step, "measure": measure, "unit": unit}
        shown |= {kind: line.get(kind, "–") for kind in kinds}
        if {"imp", "random"} <= set(kinds):
            has = "imp mean" in line and "random mean" in line and measure != "error"
            shown["random / imp"] = f"{line['random mean'] / line['imp mean']:.2f}×" if has else ""
        result.append(shown)
    return pd.DataFrame(result)


def draw(name: str, frame: pd.DataFrame) -> Figure:
    """The plot of an experiment."""
    means = summary(frame, KEYS)
    if name == "instability":
        return _against_step(
            means[means["unit"] == "points"], means["measure"].unique(), "test error or barrier, points"
        )
    if means["rewind_step"].nunique() == 1:
        return _bars(means)
    return _panels(means)


def _bars(means: pd.DataFrame) -> Figure:
    """Distances at one rewind step: bars of IMP and random masks, L2 and angle."""
    made, _ = plots.figure()
    made.clear()
    axes = made.subplots(1, 2)
    for axis, unit, title in zip(axes, ("L2", "degrees"), ("L2 distance", "angle, degrees"), strict=True):
        for i, kind in enumerate(("imp", "random")):
            found = means[(means["unit"] == unit) & (means["kind"] == kind)]
            at = [j + 0.36 * (i - 0.5) for j in range(len(found))]
            axis.bar(
                at, found["mean"], 0.34, yerr=found["std"].fillna(0), capsize=3, color=plots.COLOURS[kind],
                label={"imp": "IMP", "random": "random mask"}[kind],
            )  # fmt: skip
            axis.set_xticks(range(len(found)), found["measure"])
        axis.set_ylabel(title)
        axis.grid(False, axis="x")
    axes[0].legend(frameon=False)
    return made


def _panels(means: pd.DataFrame) -> Figure:
    """Distances and error against the rewind step, IMP and random masks."""
    made, _ = plots.figure(height=3.4)
    made.clear()
    axes = made.subplots(1, 3)
    shown: tuple[Mapping[str, str], ...] = (
        {"measure": "data order", "unit": "L2"},
        {"measure": "pruning", "unit": "L2"},
        {"measure": "error", "unit": "points"},
    )
    for axis, about in zip(axes, shown, strict=True):
        for kind in ("imp", "random", "dense"):
            found = means[(means[list(about)] == pd.Series(about)).all(axis=1) & (means["kind"] == kind)]
            if len(found):
                _line(axis, found, plots.COLOURS[kind], {"imp": "IMP", "random": "random mask"}.get(kind, kind))
        axis.set_title("test error, points" if about["measure"] == "error" else f"{about['measure']}, L2", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def _against_step(means: pd.DataFrame, measures: Any, title: str) -> Figure:
    made, axis = plots.figure()
    for i, measure in enumerate(measures):
        found = means[means["measure"] == measure]
        colour = plots.COLOURS["dense"] if measure == "error" else f"C{i}"
        _line(axis, found, colour, "dense error" if measure == "error" else measure)
    axis.axhline(2.0, color=plots.COLOURS["dense"], ls=":", lw=1, label="stable below (LMC)")
    axis.set_ylabel(title)
    axis.legend(frameon=False, fontsize=9)
    return made


def _line(axis: Any, found: pd.DataFrame, colour: str, label: str) -> None:
    axis.errorbar(
        found["rewind_step"], found["mean"], yerr=found["std"].fillna(0), color=colour, label=label, marker="o", ms=4,
        lw=1.5, capsize=2,
    )  # fmt: skip
    axis.set_xscale("symlog", linthresh=50)
    axis.set_xlabel("rewind step k, iterations")
