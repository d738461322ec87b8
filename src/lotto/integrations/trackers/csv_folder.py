"""A tracker that needs nothing: one tidy CSV."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lotto.integrations.trackers.tracking import own_folder

COLUMNS = ("training", "step", "name", "value")


class CsvTracker:
    """Writes ``FOLDER/RECIPE/metrics.csv``, a row for each number, beside it the recipe and the files of the result.

    Rows are on disk when they are logged. A folder that is there stays as it is: the next is ``RECIPE-2``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file: IO[str] | None = None

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Make the folder and the file."""
        self.folder = own_folder(self.folder, name)
        (self.folder / "config.json").write_text(json.dumps(dict(config), indent=1, default=str) + "\n")
        self._file = (self.folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        csv.writer(self._file).writerow(COLUMNS)

    def log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Write a row for each value."""
        assert self._file is not None
        csv.writer(self._file).writerows((training, step, name, repr(value)) for name, value in values.items())
        self._file.flush()

    def artifact(self, path: Path) -> None:
        """Copy the file."""
        shutil.copy2(path, self.folder / path.name)

    def finish(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
