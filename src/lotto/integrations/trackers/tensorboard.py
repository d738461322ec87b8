"""TensorBoard: ``tensorboard --logdir FOLDER`` shows one curve for each training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotto.core.errors import UsageError
from lotto.integrations.trackers.tracking import own_folder

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as missing:
    raise UsageError(
        f"The tracker tensorboard needs TensorBoard ({missing}): pip install 'lotto-tickets[tensorboard]'."
    ) from missing

OPEN = 32
"""Trainings whose files are open at once."""


class TensorBoardTracker:
    """Writes ``FOLDER/RECIPE/TRAINING``, one of TensorBoard's runs for each training; the result's files are linked."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writers: dict[str, SummaryWriter] = {}

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Make the folder; the recipe is a text in it."""
        self.folder = own_folder(self.folder, name)
        described = json.dumps(dict(config), indent=1, default=str)
        self._writer("").add_text("recipe", "\n".join(f"    {line}" for line in described.splitlines()))

    def log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer(training).add_scalar(name, value, step)

    def artifact(self, path: Path) -> None:
        """Write where the file is."""
        self._writer("").add_text("files", f"`{path.absolute()}`")

    def finish(self) -> None:
        """Write what is still to be written."""
        while self._writers:
            self._close_oldest()

    def _writer(self, training: str) -> SummaryWriter:
        if training not in self._writers:
            if len(self._writers) >= OPEN:
                self._close_oldest()  # one that is written to again begins another file of the same run
            self._writers[training] = SummaryWriter(str(self.folder / training))
        self._writers[training] = writer = self._writers.pop(training)
        return writer

    def _close_oldest(self) -> None:
        self._writers.pop(next(iter(self._writers))).close()
