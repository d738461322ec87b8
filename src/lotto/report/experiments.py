"""Results of experiments: a tidy CSV and a JSON for each, and one report of all that a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lotto import files
from lotto.entries import versions
from lotto.errors import UsageError
from lotto.papers.experiment import Experiment, Options, summary
from lotto.papers.stored import FORMAT, read
from lotto.report import plots
from lotto.report.pages import render
from lotto.report.table import percent, spread

KEYS = ["rewind_step", "level", "density", "kind", "measure", "unit"]
AGAINST_DENSITY = ("sparsity", "retraining")
RATIO = "ratio"
"""Column of the ratio of a random mask's distance to that of IMP's."""
TITLES = {"imp": "IMP", "random": "random mask", "reinit": "new init"}


def save_experiment(
    experiment: Experiment, options: Options, frame: pd.DataFrame, folder: Path, command: str, seconds: float
) -> Path:
    """Write ``NAME.csv`` and ``NAME.json`` and draw the folder's report again; returns the report's path."""
    files.write_text(folder / f"{experiment.name}.csv", frame.to_csv(index=False))
    about = {
        "format": FORMAT,
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "command": command,
        "seconds": seconds,
        "recipe": options.recipe.describe(),
        "training": options.training(),
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
    for result in read(folder):
        table = readable(result.frame)
        sections.append(
            {
                **result.about,
                "plot": plots.svg(draw(result.about["name"], result.frame)),
                "titles": list(table.columns),
                "rows": table.to_numpy().tolist(),
            }
        )
    if not sections:
        raise UsageError(f"{folder} holds no experiment.")
    page = folder / "report.html"
    files.write_text(page, render("experiments.html", sections=sections, recipe=sections[0]["recipe"]["name"]))
    return page


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per rewind step and measure, one column per kind of network, and the ratio of random to IMP."""
    means = summary(frame, KEYS)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in means.to_dict("records"):
        line = lines.setdefault((row["rewind_step"], row["density"], row["measure"], row["unit"]), {})
        line[row["kind"]] = spread(row["mean"], row["std"])
        line[f"{row['kind']} mean"] = row["mean"]
    kinds = list(dict.fromkeys(means["kind"]))
    result = []
    for (step, density, measure, unit), line in lines.items():
        shown: dict[str, Any] = {"step": step, "left": percent(density), "measure": measure, "unit": unit}
        shown |= {kind: line.get(kind, "–") for kind in kinds}
        if {"imp", "random"} <= set(kinds):
            has = "imp mean" in line and "random mean" in line and measure != "error"
            shown[RATIO] = f"{line['random mean'] / line['imp mean']:.2f}×" if has else ""
        result.append(shown)
    return pd.DataFrame(result)


def draw(name: str, frame: pd.DataFrame) -> Figure:
    """The plot of an experiment."""
    means = summary(frame, KEYS)
    if name in AGAINST_DENSITY:
        return _against_density(means)
    if name == "instability":
        return _against_step(means[means["unit"] == "points"], "measure", "test error or barrier, points", stable=True)
    if name == "oneshot":
        return _against_step(means, "kind", "test error, points")
    if name == "subnetworks":
        return _panels(means, ("error", "points"), ("test barrier, statistics interpolated", "points"))
    if means["rewind_step"].nunique() == 1:
        return _bars(means)
    return _panels(means, ("data order", "L2"), ("pruning", "L2"), ("error", "points"))


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


def _panels(means: pd.DataFrame, *shown: tuple[str, str]) -> Figure:
    """One panel for each measure, against the rewind step, at the sparsest level: a line for each kind."""
    made, _ = plots.figure(height=3.4)
    made.clear()
    sparse = means[(means["level"] == means["level"].max()) | (means["kind"] == "dense")]
    axes = made.subplots(1, len(shown))
    for axis, (measure, unit) in zip(axes, shown, strict=True):
        found = sparse[(sparse["measure"] == measure) & (sparse["unit"] == unit)]
        for kind, part in found.groupby("kind", sort=False):
            _line(axis, part, "rewind_step", plots.COLOURS[str(kind)], TITLES.get(str(kind), str(kind)))
        _step_axis(axis)
        axis.set_title(f"{measure.split(',')[0]}, {unit}", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    return made


def _against_step(means: pd.DataFrame, by: str, title: str, stable: bool = False) -> Figure:
    made, axis = plots.figure()
    for i, (name, part) in enumerate(means.groupby(by, sort=False)):
        plain = name in ("error of the copies", "dense")
        _line(
            axis,
            part,
            "rewind_step",
            plots.COLOURS["dense"] if plain else f"C{i}",
            str(name) if name == "error of the copies" else "dense error" if plain else str(name),
        )
    if stable:
        axis.axhline(2.0, color=plots.COLOURS["dense"], ls=":", lw=1, label="stable below (LMC)")
    _step_axis(axis)
    axis.set_ylabel(title)
    axis.legend(frameon=False, fontsize=9)
    return made


def _against_density(means: pd.DataFrame) -> Figure:
    made, axis = plots.figure()
    steps = means["rewind_step"].nunique()
    for i, ((step, kind), part) in enumerate(means.groupby(["rewind_step", "kind"], sort=False)):
        name = TITLES.get(str(kind), str(kind))
        _line(axis, part, "density", f"C{i}", f"{name}, k = {step}" if steps > 1 else name)
    plots.density_axis(axis, list(means["density"].unique()))
    axis.set_ylabel("test error, points")
    axis.legend(frameon=False, fontsize=9)
    return made


def _step_axis(axis: Any) -> None:
    axis.set_xscale("symlog", linthresh=50)
    axis.set_xlabel("rewind step k, iterations")


def _line(axis: Any, found: pd.DataFrame, x: str, colour: str, label: str) -> None:
    axis.errorbar(
        found[x], found["mean"], yerr=found["std"].fillna(0), color=colour, label=label, marker="o", ms=4, lw=1.5,
        capsize=2,
    )  # fmt: skip
