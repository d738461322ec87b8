"""MLflow: ``mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`` shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotto.core.errors import UsageError

try:
    import alembic  # noqa: F401 (of a local database)
    import sqlalchemy  # noqa: F401
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
except ImportError as missing:
    raise UsageError(f"The tracker mlflow needs MLflow ({missing}): pip install 'lotto-tickets[mlflow]'.") from missing

LONGEST = 500
"""Characters of a parameter."""


class MlflowTracker:
    """Makes a run in the experiment that is called as the recipe; metrics are ``TRAINING/NAME``.

    Args:
        folder: of a database and of copies of the result's files; or the URI of a server: ``http://...``.
    """

    def __init__(self, folder: str) -> None:
        self.files: str | None = None
        if "://" in folder:
            uri = folder
        else:
            here = Path(folder).absolute()
            here.mkdir(parents=True, exist_ok=True)
            uri, self.files = f"sqlite:///{here / 'mlflow.db'}", (here / "artifacts").as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        self.run = ""

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Make the run; the recipe's fields are its parameters."""
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name, self.files)
        self.run = self.client.create_run(number).info.run_id
        parameters = [Param(key, str(value)[:LONGEST]) for key, value in config.items()]
        self.client.log_batch(self.run, params=parameters)

    def log(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step together."""
        now = int(1000 * time.time())
        metrics = [Metric(f"{training}/{name}", value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def artifact(self, path: Path) -> None:
        """Copy the file."""
        self.client.log_artifact(self.run, str(path))

    def finish(self) -> None:
        """Say that the run is over."""
        self.client.set_terminated(self.run)
