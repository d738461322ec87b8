"""Results on disk: CSV tables, the ticket, one JSON from which the report can be made again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.result_files import RESULT, TRAINED, no_result
from lotto.core.weights import digest
from lotto.execution.entries import versions
from lotto.inference.export import save_trained
from lotto.lottery import saved
from lotto.lottery.options import Retraining
from lotto.lottery.plan import SettledPlan
from lotto.lottery.result import ImpResult
from lotto.lottery.saved import RESULT_FILE, is_loaded
from lotto.pruning import masks
from lotto.report.folders import MADE_BY, OTHERS, PAGE, TICKET, Place, made_by, saving
from lotto.report.html import write_report
from lotto.report.levels import histories, layers
from lotto.report.metric import Metric


@checked
def save_result(
    result: ImpResult, folder: Path, command: str, seconds: float | None, weights: bool = False
) -> dict[str, Path]:
    """Write everything a reader of the result needs into ``folder``.

    If that holds another experiment, into ``folder-2``, ``folder-3``, ...; the returned paths say where.

    Args:
        result: what `imp` returned.
        folder: made if it is not there.
        command: the command that made the result, for the record.
        seconds: how long it took; None = not known.
        weights: whether the trained weights of all runs are written as well.

    Returns:
        The paths by kind: ``table``, ``runs``, ``result``, ``report``, ``trained`` (the weights of the sparsest
        matching level's training), ``again`` (what `lotto.load` reads); where weights were rewound ``ticket``, and
        ``trials`` of adaptive pruning.

    >>> result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1)
    >>> paths = save_result(result, Path("results"), command="lotto imp small --levels 1", seconds=2.0)
    >>> sorted(paths)
    ['again', 'report', 'result', 'runs', 'table', 'ticket', 'trained']
    """
    if is_loaded(result):
        raise UsageError("This result was loaded from a folder: copy that one to have it elsewhere.")
    with saving(Path(folder), [_place(result)]) as own:
        return _write(result, own, command, seconds, weights)


def save_python(result: ImpResult, folder: Path, weights: bool) -> Path:
    """What `ImpResult.save` does: the same with the call in the place of the command; returns the folder."""
    command = f"lotto.imp({result.plan.recipe.name}, lotto.{result.plan.options!r})"
    return save_result(result, folder, command, None, weights)["result"].parent


def place(plan: SettledPlan, outcome: str = "") -> Place:
    """Where the result of a plan lies in its folder; ``outcome`` stands for runs that cannot be recognised."""
    # The same command leaves its result in the same place, whether it looked once or twice.
    looks = {"replicates": f"auto from {plan.first_look}"} if plan.first_look else {}
    options = {**plan.describe(), **looks, "finetune_lr": plan.finetune_lr, "target": plan.target}
    return Place(RESULT, made_by(plan.recipe, options, plan.options.seed, outcome), OTHERS)


def _place(result: ImpResult) -> Place:
    dense = next(levels[0].run for levels in result.replicates if not levels[0].run.diverged)
    return place(result.plan, digest(dense.weights))


def _write(result: ImpResult, folder: Path, command: str, seconds: float | None, weights: bool) -> dict[str, Path]:
    paths = {
        "table": folder / "table.csv",
        "runs": folder / "runs.csv",
        "result": folder / RESULT,
        "report": folder / PAGE,
        "trained": folder / TRAINED,
        "again": folder / RESULT_FILE,
    }
    table = result.table()
    files.write_json(paths["result"], describe(result, command, seconds))  # first: it says what the others are of
    files.write_text(paths["table"], table.to_csv(index=False))
    files.write_text(paths["runs"], result.runs_table().to_csv(index=False))
    if result.trials:
        paths["trials"] = folder / "trials.csv"
        files.write_text(paths["trials"], result.trials_table().to_csv(index=False))
    level = result.chosen_level
    best = next(r[level] for r in result.replicates if level < len(r) and not r[level].diverged)
    about = {"level": str(best.level), "density": repr(masks.density(best.mask))}
    save_trained(paths["trained"], best.run.weights, result.plan.recipe, about)
    if result.plan.options.after is Retraining.WEIGHTS:
        paths["ticket"] = result.chosen_ticket().save(folder / TICKET)
    saved.write(result, paths["again"], weights)
    write_report(load_result(folder), paths["report"])
    return paths


def describe(result: ImpResult, command: str, seconds: float | None) -> dict[str, Any]:
    """The result in plain values: what the report is made from."""
    rows = result.table().to_dict("records")
    return {
        "format": "lotto.result",
        "version": 1,
        "command": command,
        "error_unit": result.plan.recipe.error_unit,
        "error_name": Metric.of(result.plan.recipe).name,
        "seconds": seconds,
        "recipe": result.plan.recipe.describe(),
        "plan": result.plan.describe(),
        MADE_BY: _place(result).made_by,
        "versions": versions(),
        "training_seconds": float(result.runs_table()["seconds"].sum()),
        "table": [{k: _plain(v) for k, v in row.items()} for row in rows],
        "histories": [[[_plain_record(r) for r in history] for history in every] for every in histories(result)],
        "matching_level": result.matching_level,
        "chosen_level": result.chosen_level,
        "diverged": result.diverged,
        "left_out": result.left_out,
        "layers": layers(result),
    }


@checked
def load_result(folder: Path) -> dict[str, Any]:
    """Read the JSON of a result folder; ``table`` becomes a DataFrame.

    Raises:
        UsageError: if the folder holds no result.

    >>> result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1)
    >>> paths = save_result(result, Path("found"), command="lotto imp small --levels 1", seconds=2.0)
    >>> load_result(Path("found"))["table"]["level"].tolist()
    [0, 1]
    """
    path = Path(folder) / RESULT
    try:
        content = json.loads(path.read_text())
        if content.get("format") != "lotto.result":
            raise ValueError
        table = pd.DataFrame(content["table"])
        numbers = [c for c in table if c not in ("matching", "empty_layers", "verdict")]
        table[numbers] = table[numbers].astype(float)
        content["table"] = table.astype({"level": int, "n": int})
        return content
    except (OSError, ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise no_result(Path(folder)) from error


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain_record(record: Any) -> dict[str, Any]:
    return {k: _plain(v) for k, v in record.items()}
