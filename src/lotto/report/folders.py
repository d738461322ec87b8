"""Folders of results: no experiment takes the place of another, nor do two processes mix theirs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotto.core.errors import UsageError
from lotto.core.files import attempting
from lotto.core.locks import PathLock
from lotto.core.result_files import TRAINED
from lotto.lottery.saved import RESULT_FILE
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job

LOCK = ".saving.lock"
MADE_BY = "made_by"
PAGE, TICKET = "report.html", "ticket.safetensors"
OTHERS = ("table.csv", "runs.csv", "trials.csv", PAGE, "error.svg", TRAINED, TICKET, RESULT_FILE)
"""What lies beside the result of `imp`."""


@dataclass(frozen=True)
class Place:
    """Files of one result in a folder.

    Attributes:
        record: the JSON that says what made them.
        made_by: what makes the result that is to be written; see `made_by`.
        others: the other files.
    """

    record: str
    made_by: Mapping[str, Any]
    others: Sequence[str]

    def is_free(self, folder: Path) -> bool:
        """Whether they may be written: there are none, or the same experiment has made those that are there."""
        if not os.path.lexists(folder / self.record):
            return not any(os.path.lexists(folder / name) for name in self.others)
        try:
            return json.loads((folder / self.record).read_text())[MADE_BY] == self.made_by
        except (OSError, ValueError, KeyError, TypeError):
            return False  # of a former version, or no result at all


def made_by(recipe: Recipe, options: Mapping[str, Any], seed: int, outcome: str = "") -> dict[str, Any]:
    """What makes two experiments the same, as JSON has it.

    Args:
        recipe: what is trained; the device is left out.
        options: of the experiment, in plain values.
        seed: of its first training, whose key covers data and code.
        outcome: what stands for the key of a training that has none.
    """
    described = {name: value for name, value in recipe.describe().items() if name != "device"}
    key = Job(recipe, seed, seed).key or outcome
    return json.loads(json.dumps({"recipe": described, "options": dict(options), "key": key}))


def own_folder(wanted: Path, places: Sequence[Place]) -> Path:
    """The first of ``NAME``, ``NAME-2``, ``NAME-3``, ... whose places are all free."""
    wanted = wanted if wanted.name not in ("", "..") else wanted.resolve()
    for number in itertools.count(1):
        folder = wanted if number == 1 else _numbered(wanted, number)
        if all(place.is_free(folder) for place in places):
            return folder
    raise AssertionError


def _numbered(folder: Path, number: int) -> Path:
    if not folder.name:
        raise UsageError(f"{folder} holds another experiment. Name a folder below it.")
    return folder.with_name(f"{folder.name}-{number}")


@contextlib.contextmanager
def saving(wanted: Path, places: Sequence[Place]) -> Iterator[Path]:
    """The experiment's own folder, made and kept from other processes meanwhile.

    Raises:
        StorageError: if it cannot be made or written to.
    """
    while True:
        folder = own_folder(wanted, places)
        lock = PathLock(folder / LOCK)
        with attempting(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            if folder == own_folder(wanted, places):  # nobody else has come first
                yield folder
                return
        finally:
            lock.release()
