"""Results of experiments on disk: a tidy CSV and a JSON for each, and what all of one training setting say together."""

from __future__ import annotations

import json
import logging
import math
import os
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
from lotto.experiments.measures import (
    BN_EXAMPLES,
    ERROR,
    EXAMPLES,
    ORDERS,
    POSITIONS,
    SETTINGS,
    WITHOUT_RETRAINING,
    Measure,
)
from lotto.recipe.described import described_defaults
from lotto.recipe.recipe import Recipe
from lotto.recipe.tolerance import POINTS, Tolerance

log = logging.getLogger(__name__)

FORMAT = "lotto.experiment"
FIRST_PAPER = "stabilizing"
"""The paper of the results that do not name any: those of the time when there was one."""


ENTRIES = {
    "name": str, "paper": str, "recipe": dict[str, Any], "training": dict[str, float], "options": dict[str, Any]
}  # fmt: skip
RECIPE = ("name", "model")
FACTS = ("iterations", "per_epoch", "learning_rate", "warmup")
"""Entries of a description that are read, and of its parts."""
NUMBERS = ("replicate", "rewind_step", "level", "density", "sample", "value")
TEXTS = ("kind", "measure", "unit")
"""Columns that all rows have."""
FILE = "file"
"""Column that numbers the files while their rows come together."""
COPY = "copy"
"""Column that numbers the trainings of one seed that ended differently; see `grouped`."""
REPLICATE = ["seed", COPY]
"""What pairs values: those of one seed, and of trainings that did not part."""
NO_PART = ("replicate", "value", "note", "parameter_fraction")
"""Columns that are no part of what a row is known by: a replicate is known by its seed, whatever its number."""
ROUNDING = 1e-6
"""Relative difference up to which two values of one row are taken for one number."""
FORMER_SETTINGS = {
    POSITIONS: ".*barrier.*|error between",
    EXAMPLES: ".*barrier.*|error between|plane|projection error|next initialisation error",
    ORDERS: "data order|(test|train) barrier.*",
    BN_EXAMPLES: ".*recomputed",
}
"""Patterns of the measures that depend on a setting: for rows of the time before they had its column."""
FORMER_DEFAULTS = {POSITIONS: 30, EXAMPLES: None, ORDERS: 2, BN_EXAMPLES: 10_000}


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

    @property
    def complete(self) -> pd.DataFrame:
        """Its rows with the replicates' seeds and the settings of their measures, which older files do not have."""
        if "seed" in self.frame:
            return self.frame.reindex(columns=list(dict.fromkeys([*self.frame, *SETTINGS])))
        asked = {**FORMER_DEFAULTS, **self.about["recipe"], **self.about["options"]}
        frame = self.frame.assign(seed=int(asked.get("seed", 0)) + self.frame["replicate"])
        for setting, pattern in FORMER_SETTINGS.items():
            depends = frame["measure"].str.fullmatch(pattern)
            value = math.nan if asked[setting] is None else float(asked[setting])
            frame[setting] = depends.map({True: value, False: math.nan})
        of_examples = (frame["kind"] == WITHOUT_RETRAINING) & (frame["measure"] == ERROR.name)
        frame.loc[of_examples, EXAMPLES] = asked[EXAMPLES]
        return frame


@dataclass(frozen=True)
class ResultGroup:
    """All rows of one training setting, whichever experiments measured them.

    Attributes:
        recipe: the recipe as text values.
        facts: ``iterations``, ``per_epoch``, ``learning_rate``, ``warmup`` (iterations).
        frame: rows of all its experiments, each once, with the columns of `REPLICATE` and `SETTINGS`.
        restarted: whether level 0, too, was trained from the rewind point; see the option ``restart_dense``.
    """

    recipe: dict[str, Any]
    facts: dict[str, Any]
    frame: pd.DataFrame
    restarted: bool = False

    @property
    def title(self) -> str:
        """What tables call it."""
        restarted = ", level 0 restarted" if self.restarted else ""
        return f"{self.recipe['name']}, {self.recipe['model']}, {self.facts['iterations']} iterations{restarted}"

    def rows(self, measure: Measure | None = None, **columns: object) -> pd.DataFrame:
        """The rows of a measure with these column values."""
        rows = self.frame if measure is None else measure.of(self.frame)
        for column, value in columns.items():
            rows = rows[rows[column] == value]
        return rows

    def values(self, measure: Measure, **columns: object) -> pd.Series:
        """Mean over samples by `REPLICATE` of such rows, all of one setting; see `of_one_setting`."""
        return of_one_setting(self.rows(measure, **columns)).groupby(REPLICATE)["value"].mean()

    @property
    def dense_errors(self) -> pd.Series:
        """Error of the dense network by `REPLICATE`."""
        rows = self.rows(ERROR, level=0, sample=0)
        return rows[rows["kind"] != WITHOUT_RETRAINING].groupby(REPLICATE)["value"].first()

    @property
    def tolerance(self) -> float:
        """The recipe's, in the error's unit."""
        return tolerance_of(self.recipe, self.frame)

    def rewind_steps(self, measure: Measure, **columns: object) -> list[int]:
        """The rewind steps of such rows, in increasing order."""
        return sorted(int(k) for k in self.rows(measure, **columns)["rewind_step"].unique())

    def where(self, rows: pd.DataFrame, k: object) -> str:
        """What findings call rows of one level."""
        return f"{self.title}, {100 * rows['density'].mean():.3g} % left, k = {k}"


def of_one_setting(rows: pd.DataFrame) -> pd.DataFrame:
    """Those rows that were measured alike: of several settings the one with most replicates, then the finest.

    Barriers at 11 and at 30 positions, or on 5,000 and on all examples, are different numbers of the same networks; a
    mean over replicates is of one kind of number.
    """
    used = [name for name in SETTINGS if name in rows and rows[name].notna().any()]
    if not used or len(rows[used].drop_duplicates()) < 2:
        return rows
    parts = [part for _, part in rows.groupby(used, dropna=False)]

    def rank(part: pd.DataFrame) -> tuple[float, ...]:
        finest = [float(part[name].iloc[0]) for name in used]
        return (part["seed"].nunique(), *(math.inf if math.isnan(v) else v for v in finest))  # none: all examples

    return max(parts, key=rank)


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
            about.setdefault("options", {})
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
    for name in ("seed", *FORMER_DEFAULTS):
        if (given := about["options"].get(name)) is not None:
            float(given)


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
def distinguishing(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a stored recipe by which trainings differ: they have a part in what is trained, and no default.

    A field at its default is as one that is not there: a file may be older than a field.
    """
    unsaid = described_defaults(Recipe)
    without_part = fields_that_affect(Recipe, ("records", "statistics", "nothing"))
    return {k: v for k, v in recipe.items() if k not in without_part and (k not in unsaid or unsaid[k] != v)}


@checked
def grouped(results: Sequence[StoredResult]) -> list[ResultGroup]:
    """Put the rows of equal training settings together.

    Experiments share their trainings, so a row that two of them report is the same number and is kept once. A row is
    known by its replicate's seed and by the settings of its measure, so that runs of several commands come together:
    ``--seed 5`` adds replicates, ``--points 11`` other values of barriers.

    One seed may have been trained in several places, on processors or by versions whose rounding parts: two files then
    give different errors of one network. Each file's rows of that seed stay together as a *copy*, with those of all
    files that agree with it, so that nothing is paired across them; copies of one seed count as one replicate, their
    mean. The log says where that is so. Another number that two files of one copy disagree about is taken from the
    first, which the log says as well.
    """
    groups: dict[tuple[str, bool], list[StoredResult]] = {}
    for result in results:
        recipe = distinguishing(result.about["recipe"])
        restarted = bool(result.about["options"].get("restart_dense", False))
        groups.setdefault((json.dumps(recipe, sort_keys=True), restarted), []).append(result)
    made = []
    for (_, restarted), group in groups.items():
        first = group[0].about
        made.append(ResultGroup(first["recipe"], first["training"], _together(group), restarted))
    return made


def _together(group: Sequence[StoredResult]) -> pd.DataFrame:
    tables = [r.complete.astype(dict.fromkeys(SETTINGS, float)) for r in group]
    rows = pd.concat(tables, keys=range(len(tables)), names=[FILE, None]).reset_index(FILE).reset_index(drop=True)
    rows = rows[rows["value"].notna()]  # what diverged decides nothing
    keys = [c for c in rows.columns if c not in (*NO_PART, FILE)]
    copies = _copies(rows, keys)
    rows[COPY] = [copies.get(at, 0) for at in zip(rows["seed"], rows[FILE], strict=True)]
    shared = os.path.commonpath([r.path.parent for r in group])
    about = f"{group[0].about['recipe']['name']}, {len(group)} files below {shared}"
    if apart := sorted({int(seed) for (seed, _), copy in copies.items() if copy}):
        log.warning("%s: networks of seeds %s differ between files; each is paired with its own.", about, apart)
    values = rows.groupby([*keys, COPY], dropna=False)["value"].agg(["min", "max"])
    if differ := int(_apart(values["min"], values["max"]).sum()):
        log.warning("%s: %d rows have different values in several files; the first file's are taken.", about, differ)
    return rows.drop_duplicates([*keys, COPY], ignore_index=True).drop(columns=FILE)


def _apart(low: pd.Series, high: pd.Series) -> pd.Series:
    """Where two values of one row are not one number."""
    return (high - low).abs() > ROUNDING * high.abs().clip(lower=1.0)


def _copies(rows: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[int, int], int]:
    """The number of the copy, by seed and file: a file joins the copy that it shares most errors with, and all alike.

    One that shares none joins the first, for nothing tells them apart.
    """
    errors = rows[rows["measure"] == ERROR.name]
    errors = errors.assign(known=pd.util.hash_pandas_object(errors[list(keys)].astype(str), index=False))
    found: dict[tuple[int, int], int] = {}
    for seed, of_seed in errors.groupby("seed"):
        copies: list[pd.Series] = []
        for file, own in of_seed.groupby(FILE):
            values = own.drop_duplicates("known").set_index("known")["value"]
            shared = [values.index.intersection(copy.index) for copy in copies]
            agree = [i for i, at in enumerate(shared) if not _apart(values[at], copies[i][at]).any()]
            chosen = max(agree, key=lambda i: (len(shared[i]), -i), default=len(copies))
            if chosen == len(copies):
                copies.append(values)
            else:
                copies[chosen] = copies[chosen].combine_first(values)
            found[int(seed), int(file)] = chosen
    return found
