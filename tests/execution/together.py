"""A script as users write them, started once for each rank.

python tests/execution/together.py whole | long | busy FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobAdvanced
from lotto.landscape import evaluate_path

RANK = int(os.environ.get("RANK", 0))
LONG = small_recipe(steps="1500it", evaluations=3, name="long")
SMALL = small_recipe(precision="float64", batch_size=21)


def whole(folder: Path) -> None:
    """A result, a path, an error that is caught, a training, and what each process has of it."""
    lotto.Store(os.environ["LOTTO_STORE"])
    result = lotto.imp(SMALL, levels=2, rate=0.5, rewind_to="5it", replicates=1, progress=False)
    kept = {str(number): run.weights for number, run in result.runs.items()}
    path = evaluate_path(SMALL, result.runs[0, 0, "imp"].weights, result.runs[0, 1, "imp"].weights, points=3)
    try:
        lotto.train(SMALL.replace(batch_size=1, data=SMALL.data), progress=False)
    except UsageError as error:
        refused = str(error)
    found: dict[str, Any] = {
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


if __name__ == "__main__":
    {"whole": whole, "long": long, "busy": busy}[sys.argv[1]](Path(sys.argv[2]))
