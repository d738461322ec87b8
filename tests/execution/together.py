"""A script as users write them, started once for each rank.

python tests/execution/together.py whole | long | busy | failing | other FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn

import lotto
from conftest import small_recipe
from lotto.core.errors import DivergedError, UsageError
from lotto.execution import torchrun
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobAdvanced
from lotto.landscape import evaluate_path

RANK = int(os.environ.get("RANK", 0))
LONG = small_recipe(steps="1500it", evaluations=3, name="long")
SMALL = small_recipe(precision="float64", batch_size=21)


def whole(folder: Path) -> None:
    """A result, a path, an error that is caught, a training, and what each process has of it."""
    if RANK:  # as if it were another machine, which does not see the first one's folders
        plain = torchrun._trained
        torchrun._trained = lambda ranks, order, place: plain(ranks, order._replace(folder="/nowhere"), place)
    result = lotto.imp(SMALL, levels=2, rate=0.5, rewind_to="5it", replicates=1, progress=False)
    kept = {str(number): run.weights for number, run in result.runs.items()}
    path = evaluate_path(SMALL, result.runs[0, 0, "imp"].weights, result.runs[0, 1, "imp"].weights, points=3)
    try:
        lotto.train(SMALL.replace(batch_size=1, data=SMALL.data), progress=False)
    except UsageError as error:
        refused = str(error)
    try:
        lotto.train(SMALL.replace(optimizer=lotto.SGD(1e200), name="too fast"), progress=False)
    except DivergedError as error:
        diverged = str(error)
    found: dict[str, Any] = {
        "diverged": diverged,
        "table": result.table()[["density", "error"]].values.tolist(),
        "masks": [lotto.weights.digest(level.mask) for level in result.replicates[0]],
        "weights": {name: lotto.weights.digest(weights) for name, weights in kept.items()},
        "path": [float(x) for x in path["test_loss"]] if hasattr(path, "columns") else repr(path),
        "refused": refused,
        "long": lotto.weights.digest(lotto.train(LONG, progress=False).weights),
        "ours": result.runs[0, 1, "imp"].arithmetic,
    }
    (folder / f"{RANK}.json").write_text(json.dumps(found))


def long(folder: Path) -> None:
    """A training that is killed: checkpoints come often, and rank 0 says how far it is."""
    get_or_compute.__kwdefaults__["checkpoint_seconds"] = 0.05

    def say(event: object) -> None:
        if isinstance(event, JobAdvanced):
            print("step", event.step, flush=True)

    run = lotto.train(LONG, progress=say)
    (folder / f"long-{RANK}.json").write_text(json.dumps(lotto.weights.digest(run.weights)))


def busy(folder: Path) -> None:
    """Rank 0 does something of its own in the middle of a training, for a minute."""

    def sleep(event: object) -> None:
        if isinstance(event, JobAdvanced):
            print("step", event.step, flush=True)
            time.sleep(60)

    lotto.train(LONG, progress=sleep)


class Failing(nn.Module):
    """Goes wrong on one of the ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(12, 6), 0

    def forward(self, x):
        self.calls += 1
        if self.training and self.calls > 20 and os.environ["RANK"] == "1":
            raise ValueError("no memory for this")
        return self.layer(x)


def failing(folder: Path) -> None:
    """An error that one rank alone meets."""
    lotto.train(small_recipe(model=Failing, init="module"), progress=False)


def other(folder: Path) -> None:
    """Not the same program on all ranks."""
    if RANK:
        lotto.imp(SMALL, levels=1, replicates=1, progress=False)
    else:
        lotto.train(SMALL, progress=False)


if __name__ == "__main__":
    programs = {"whole": whole, "long": long, "busy": busy, "failing": failing, "other": other}
    programs[sys.argv[1]](Path(sys.argv[2]))
