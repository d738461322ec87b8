"""Results of experiments on disk: a tidy CSV and a JSON for each, and what all of one training setting say together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lotto.core import files
from lotto.core.check import checked, kind_of
from lotto.core.check import read as read_as
from lotto.core.errors import UsageError
from lotto.core.fingerprint import fields_that_affect
from lotto.experiments.measures import ERROR, Measure
from lotto.recipe.recipe import Recipe
from lotto.recipe.tolerance import POINTS, Tolerance

FORMAT = "lotto.experiment"
FIRST_PAPER = "stabilizing"
"""The paper of the results that do not name any: those of the time when there was one."""


ENTRIES = {"name": str, "paper": str, "recipe": dict[str, Any], "training": dict[str, float]}
RECIPE = ("name", "model")
FACTS = ("iterations", "per_epoch", "learning_rate", "warmup")
"""Entries of a description that are read, and of its parts."""
NUMBERS = ("replicate", "rewind_step", "level", "density", "sample", "value")
TEXTS = ("kind", "measure", "unit")
"""Columns that all rows have."""


@dataclass(frozen=True)
class StoredResult:
    """One experiment's result.

    Attributes:
        about: its description: name, paper, command, recipe, options, seconds, versions.
        frame: its rows.
        path: the CSV.
    """

    about: dict[str, Any]
    frame: pd.DataFrame
    path: Path

    @property
    def tolerance(self) -> float:
        """The recipe's, in the error's unit."""
        return tolerance_of(self.about["recipe"], self.frame)


@dataclass(frozen=True)
class ResultGroup:
    """All rows of one training setting, whichever experiments measured them.

    Attributes:
        recipe: the recipe as text values.
        facts: ``iterations``, ``per_epoch``, ``learning_rate``, ``warmup`` (iterations).
        frame: rows of all its experiments, each once.
    """

    recipe: dict[str, Any]
    facts: dict[str, Any]
    frame: pd.DataFrame

    @property
    def title(self) -> str:
        """What tables call it."""
        return f"{self.recipe['name']}, {self.recipe['model']}, {self.facts['iterations']} iterations"

    def rows(self, measure: Measure | None = None, **columns: object) -> pd.DataFrame:
        """The rows of a measure with these column values."""
        rows = self.frame if measure is None else measure.of(self.frame)
        for column, value in columns.items():
            rows = rows[rows[column] == value]
        return rows

    def values(self, measure: Measure, **columns: object) -> pd.Series:
        """Mean over samples by replicate of such rows."""
        return self.rows(measure, **columns).groupby("replicate")["value"].mean()

    def rewind_steps(self, measure: Measure, **columns: object) -> list[int]:
        """The rewind steps of such rows, in increasing order."""
        return sorted(int(k) for k in self.rows(measure, **columns)["rewind_step"].unique())

    def where(self, rows: pd.DataFrame, k: object) -> str:
        """What findings call rows of one level."""
        return f"{self.title}, {100 * rows['density'].mean():.3g} % left, k = {k}"


@checked
def tolerance_of(recipe: Mapping[str, Any], frame: pd.DataFrame) -> float:
    """The tolerance of a stored recipe, in the unit of the error; a relative one is of the dense network's."""
    dense = ERROR.of(frame)
    mean = dense[dense["level"] == 0]["value"].mean()
    return Tolerance.of(recipe.get("tolerance", POINTS)).above(0.0 if math.isnan(mean) else float(mean))


@checked
def read(folder: Path) -> list[StoredResult]:
    """The results in a folder (not below it), by name.

    Raises:
        UsageError: if a result's CSV or JSON cannot be read.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        with files.reading(path, "Run its experiment again."):
            about = json.loads(path.read_text())
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                continue
            about.setdefault("paper", FIRST_PAPER)
            _check_entries(about)
        with files.reading(path.with_suffix(".csv"), "Run its experiment again."):
            frame = pd.read_csv(path.with_suffix(".csv"))
            frame[[*NUMBERS]].astype(float)
            frame[[*TEXTS]]
        found.append(StoredResult(about, frame, path.with_suffix(".csv")))
    return found


def _check_entries(about: dict[str, Any]) -> None:
    """Raise an error unless a description has what claims and reports read."""
    for name, hint in ENTRIES.items():
        kind = kind_of(hint)
        assert kind is not None
        read_as(about[name], kind, name)
    for name in RECIPE:
        about["recipe"][name]
    for name in FACTS:
        about["training"][name]


@checked
def read_below(folder: Path) -> list[StoredResult]:
    """The results in a folder and all folders below it.

    Raises:
        UsageError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Run an experiment first: lotto run stabilizing.distances.")
    folders = sorted({path.parent for path in folder.rglob("*.json")})
    return [result for inner in folders for result in read(inner)]


@checked
def grouped(results: Sequence[StoredResult]) -> list[ResultGroup]:
    """Put the rows of equal training settings together.

    Experiments share their trainings, so a row that two of them report is the same number and is kept once.
    """
    groups: dict[str, list[StoredResult]] = {}
    without_part = fields_that_affect(Recipe, ("records", "statistics", "nothing"))  # in what is trained
    for result in results:
        recipe = {k: v for k, v in result.about["recipe"].items() if k not in without_part}
        groups.setdefault(json.dumps(recipe, sort_keys=True), []).append(result)
    made = []
    for group in groups.values():
        rows = pd.concat([r.frame for r in group], ignore_index=True)
        rows = rows[rows["value"].notna()]  # what diverged decides nothing
        # Older rows have no fraction of all parameters, and those of a case without any trouble no note.
        keys = [c for c in rows.columns if c not in ("value", "note", "parameter_fraction")]
        first = group[0].about
        made.append(ResultGroup(first["recipe"], first["training"], rows.drop_duplicates(keys, ignore_index=True)))
    return made
