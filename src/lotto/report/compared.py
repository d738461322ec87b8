"""A result among several that are compared, whichever command made it: its levels, and down to where they match."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.result_files import RESULT
from lotto.core.statistics import Match
from lotto.experiments.gaps import gap_table
from lotto.experiments.measures import IMP
from lotto.experiments.results import StoredResult, read
from lotto.lottery.result import DENSE
from lotto.recipe.tolerance import Tolerance
from lotto.report.folders import MADE_BY
from lotto.report.metric import Metric
from lotto.report.save import load_result
from lotto.report.table import VERDICT, spread

SAME = 0.03
"""Densities that differ by at most this part of them are one column: pruning rounds to whole weights."""


@dataclass(frozen=True)
class Compared:
    """One result among several.

    Attributes:
        name: what tells it from the others.
        model, data: what was trained on what.
        metric: of its errors.
        levels: a row for each level, from the dense network on: ``density``, ``error``, ``error_std``, ``n``, ``gap``,
            ``gap_low``, ``gap_high``, ``verdict``.
        matching: how many of the pruned levels match, from dense to sparse, before the first that does not.
        made_by: the same of two results that are one.
    """

    name: str
    model: str
    data: str
    metric: Metric
    levels: pd.DataFrame
    matching: int
    made_by: str

    def at(self, density: float) -> Mapping[str, Any] | None:
        """The level with this density, within `SAME`."""
        near = (self.levels["density"] / density - 1).abs()
        return None if near.min() > SAME else self.levels.loc[near.idxmin()].to_dict()

    def error(self, level: Mapping[str, Any]) -> str:
        """Its error in words, with the gap of a level that has one."""
        gap = "" if level["verdict"] == DENSE else f" ({self.gap(level)})"
        return f"{spread(level['error'], level['error_std'])}{gap}"

    def gap(self, level: Mapping[str, Any]) -> str:
        """The gap of a level with the width of its bound."""
        return self.metric.gap(level["gap"], level["gap_high"] - level["gap"])


@checked
def results_of(folders: Sequence[Path]) -> tuple[list[Compared], list[str]]:
    """The results in folders, and sentences about what is not among them.

    Args:
        folders: of results of ``lotto imp``, of ``lotto run``, or of both. Of an experiment with several rewind steps
            each is a result.

    Raises:
        UsageError: if a folder holds no result, or none of all has errors at several densities.

    >>> result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1)
    >>> folder = result.save("one")
    >>> found, notes = results_of([folder, folder])
    >>> found[0].name, notes
    ('one', ['one is the same result as one: it is shown once.'])
    """
    found: list[Compared] = []
    notes: list[str] = []
    for folder in map(Path, folders):
        here = [*_of_search(folder), *_of_experiments(folder, notes)]
        if not here and not any(str(folder) in note for note in notes):
            raise UsageError(f"{folder} holds no result: neither one of `lotto imp` nor one of `lotto run`.")
        for one in here:
            known = next((other for other in found if other.made_by == one.made_by), None)
            if known is None:
                found.append(one)
            else:
                notes.append(f"{one.name} is the same result as {known.name}: it is shown once.")
    if not found:
        raise UsageError("Nothing to compare: " + " ".join(notes))
    return _with_short_names(found), notes


def _of_search(folder: Path) -> Iterator[Compared]:
    """The result of ``lotto imp`` in a folder, if there is one."""
    if not (folder / RESULT).exists():
        return
    result = load_result(folder)
    with files.reading(folder / RESULT, "Run its command again."):
        levels = result["table"]
        if VERDICT not in levels:  # of the time before verdicts
            missing = {
                "gap": levels["error"] - levels["dense_error"],
                "gap_low": float("nan"),
                "gap_high": float("nan"),
            }
            verdicts = [DENSE, *("within the tolerance" if m else "not" for m in levels["matching"][1:])]
            levels = levels.assign(**missing, verdict=verdicts)
        columns = ["level", "density", "error", "error_std", "n", "gap", "gap_low", "gap_high", "verdict"]
        recipe, metric = result["recipe"], Metric.of_result(result)
        known = _known(result.get(MADE_BY), folder)
        matching = int(result.get("matching_level", 0))
        yield Compared(str(folder), str(recipe["model"]), str(recipe["data"]), metric, levels[columns], matching, known)


def _of_experiments(folder: Path, notes: list[str]) -> Iterator[Compared]:
    """The levels of IMP at each rewind step of the experiments in a folder."""
    results = read(folder) if folder.is_dir() else []
    for result in results:
        with files.reading(result.path.with_suffix(".json"), "Run its experiment again."):
            margin = Tolerance.of(result.about["recipe"]["tolerance"])
            gaps = gap_table(result.complete, margin)
            ours = gaps[gaps["kind"] == IMP] if len(gaps) else gaps
            if not len(ours) or 0 not in set(ours["level"]):
                notes.append(
                    f"{folder}: {result.about['name']} has no errors of IMP against density and is not compared."
                )
                continue
            for k, levels in ours.groupby("rewind_step", sort=True):
                yield _of_step(result, int(k), levels.sort_values("level"), margin)


def _of_step(result: StoredResult, k: int, levels: pd.DataFrame, margin: Tolerance) -> Compared:
    verdicts = list(levels["verdict"])[1:]
    matching = len([*takewhile(lambda verdict: verdict == Match.MATCHING.value, verdicts)])
    recipe, known = result.about["recipe"], _known(result.about.get(MADE_BY), result.path)
    name = f"{result.path.parent}, {result.about['name']}, k = {k}"
    levels = levels.drop(columns=["kind", "rewind_step"]).reset_index(drop=True)
    metric = Metric("error", " %", margin)
    return Compared(name, str(recipe["model"]), str(recipe.get("data", "")), metric, levels, matching, f"{known} {k}")


def _known(made_by: Any, path: Path) -> str:
    """What two results are one by; those of the time before it are one if they are one file."""
    return str(path.resolve()) if made_by is None else json.dumps(made_by, sort_keys=True)


def _with_short_names(results: Sequence[Compared]) -> list[Compared]:
    """Results named without the folders that all lie in, unless that leaves one without a name."""
    parts = [Path(one.name).parts for one in results]
    shortest = min(map(len, parts)) - 1
    same = [*takewhile(lambda level: len({names[level] for names in parts}) == 1, range(shortest))]
    return [replace(one, name=str(Path(*names[len(same) :]))) for one, names in zip(results, parts, strict=True)]
