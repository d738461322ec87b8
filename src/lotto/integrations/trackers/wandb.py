"""Weights & Biases, offline: ``wandb sync FOLDER/wandb/offline-run-...`` sends it where one likes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotto.core.errors import UsageError

try:
    import wandb
except ImportError as missing:
    raise UsageError(
        f"The tracker wandb needs Weights & Biases ({missing}): pip install 'lotto-tickets[wandb]'."
    ) from missing

PROJECT = "lotto"


class WandbTracker:
    """Writes an offline run; metrics are ``TRAINING/NAME`` against ``TRAINING/step``. Nothing leaves the machine."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.run: Any = None
        self._known: set[str] = set()

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Make the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True)
        self.run = wandb.init(
            project=PROJECT, name=name, config=dict(config), dir=str(self.folder), mode="offline", settings=settings
        )

    def log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step together."""
        training = training.replace(".", "_")  # a point would be one between names
        if training not in self._known:
            self._known.add(training)
            self.run.define_metric(f"{training}/*", step_metric=f"{training}/step")
        self.run.log({f"{training}/step": step, **{f"{training}/{name}": value for name, value in values.items()}})

    def artifact(self, path: Path) -> None:
        """Copy the file into the run."""
        shutil.copy2(path, Path(self.run.dir) / path.name)  # `save` would leave a link

    def finish(self) -> None:
        """Close the run; a process of W&B's writes the last of it a moment later."""
        self.run.finish()
