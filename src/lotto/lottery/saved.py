"""A result as one file that is verified when it is read: plan, runs, masks, weights at the rewind step.

0/start/NAME           weights of replicate 0 at the rewind step
0/mask/3/NAME          its mask at level 3, eight weights a byte, the first in the highest bit; 1 = left
0/end/3/imp/NAME       where they are kept, the trained weights of a run
metadata, `result`     all else, as JSON
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.execution.arithmetic import crossovers_from
from lotto.lottery.adaptive import Trial
from lotto.lottery.plan import SettledPlan
from lotto.lottery.record import RecordedPlan
from lotto.lottery.replicate import Level
from lotto.lottery.result import ImpResult
from lotto.lottery.runs import runs_of
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.training.job import Run, State
from lotto.training.mistakes import Mistakes

RESULT_FILE, FORMAT, VERSION = "result.safetensors", "lotto.imp-result", "1"
AVERAGE = "average"
"""Kind of the run that is pruned where it is none of the others."""


def write(result: ImpResult, path: Path, weights: bool) -> None:
    """Write a result, with or without the trained weights of its runs."""
    tensors: dict[str, Tensor] = {}
    replicates = []
    for number, levels in enumerate(result.replicates):
        dense = levels[0]
        if not dense.run.diverged:
            start = dense.run.at(result.plan.rewind_step)
            tensors |= {f"{number}/start/{name}": tensor for name, tensor in start.items()}
        for at in levels:
            tensors |= {f"{number}/mask/{at.level}/{name}": _packed(keep) for name, keep in at.mask.items()}
            for kind, run in _kinds(at).items() if weights else ():
                if not run.diverged:
                    ends = run.weights.items()
                    tensors |= {f"{number}/end/{at.level}/{kind}/{name}": tensor for name, tensor in ends}
        replicates.append(
            {
                "shapes": {name: list(keep.shape) for name, keep in dense.mask.items()},
                "shared": getattr(dense.mask, "shared", {}),
                "levels": [_level(at) for at in levels],
            }
        )
    trials = [{name: _plain(value) for name, value in vars(trial).items()} for trial in result.trials]
    content = {"plan": RecordedPlan.of(result.plan).plain(), "replicates": replicates, "trials": trials}
    text = json.dumps(content, default=lambda value: value.item())
    files.save_tensors(path, tensors, {"format": FORMAT, "version": VERSION, "result": text})


@checked
def load(folder: str | Path) -> ImpResult:
    """A result again, from a folder that `ImpResult.save` or ``lotto imp`` has written.

    It has everything that can be said without model and data: tables, verdicts, tickets, comparisons, plots. Its plan
    is a record of plain values; nothing is unpickled. Trained weights are there if they were saved.

    Args:
        folder: of the result.

    Raises:
        UsageError: if there is no result in it, or it is damaged.

    >>> result = lotto.imp(recipe, levels=1, rate=0.5, rewind_to="5it", replicates=2, controls=(), jobs=1)
    >>> again = lotto.load(result.save("saved"))
    >>> again.table().equals(result.table()), again.ticket(level=1).density
    (True, 0.5)
    """
    path = Path(folder) / RESULT_FILE
    if not files.is_file(path):
        raise UsageError(_missing(Path(folder)))
    tensors, metadata = files.load_tensors(path, FORMAT)
    if metadata.get("version") != VERSION:
        raise UsageError(f"{path} was written by a newer lotto, which this one cannot read.")
    with files.reading(path):
        content = json.loads(metadata["result"])
        plan = RecordedPlan.from_plain(content["plan"])
        return ImpResult(
            cast(SettledPlan, plan),  # as far as results ask
            [_replicate(i, tensors, found, plan.rewind_step) for i, found in enumerate(content["replicates"])],
            [Trial(**_with_nan(trial)) for trial in content["trials"]],
        )


def is_loaded(result: ImpResult) -> bool:
    """Whether a result was loaded, so that it knows neither model nor data."""
    return isinstance(result.plan, RecordedPlan)


def _missing(folder: Path) -> str:
    named = text(str(folder))
    if not folder.is_dir():
        return f"There is no folder {named}. A result is loaded from one that result.save(folder) has written."
    if (folder / "result.json").exists():
        return (
            f"{named} is of a former version, which kept no masks: its command run again trains nothing that is "
            f"remembered and adds them. `lotto report {folder}` reads what is there."
        )
    return f"{named} holds no result of imp: there is no {RESULT_FILE} in it. `lotto ls` lists folders that do."


def _kinds(at: Level) -> dict[str, Run]:
    """The runs of a level by kind, the one that is pruned among them."""
    found = dict(runs_of(at))
    return found if at.average in (None, at.run) else {**found, AVERAGE: at.average}


def _level(at: Level) -> dict[str, Any]:
    return {
        "level": at.level,
        "controls": [*at.controls],
        "particles": len(at.particles),
        "averaged": at.average is not None,
        "runs": {kind: _run(run) for kind, run in _kinds(at).items()},
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "steps": run.steps,
        "history": [{name: _plain(value) for name, value in record.items()} for record in run.history],
        "key": run.key,
        "seconds": run.seconds,
        "arithmetic": run.arithmetic,
        "diverged": run.diverged,
        "crossovers": run.crossovers,
        "mistakes": None if run.mistakes is None else run.mistakes.plain(),
    }


def _replicate(number: int, tensors: Mapping[str, Tensor], found: dict[str, Any], rewind_step: int) -> list[Level]:
    def part(*parts: object) -> dict[str, Tensor]:
        head = "/".join([str(number), *map(str, parts), ""])
        return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}

    start, levels = part("start"), []
    for at in found["levels"]:
        packed = part("mask", at["level"])
        mask = Mask({name: _unpacked(packed[name], shape) for name, shape in found["shapes"].items()}, found["shared"])
        runs = {}
        for kind, plain in at["runs"].items():
            steps, end = tuple(plain["steps"]), part("end", at["level"], kind)
            states = {steps[1]: State(end)} if end else {}
            if kind == "imp" and at["level"] == 0 and start:
                masks.check_fits(mask, start)
                states = {rewind_step: State(start), **states}
            runs[kind] = _run_again(plain, states)
        particles = [runs[f"particle {i}"] for i in range(1, at["particles"] + 1)]
        average = runs.get(AVERAGE, runs["imp"]) if at["averaged"] else None
        controls = {name: runs[name] for name in at["controls"]}
        levels.append(Level(at["level"], mask, runs["imp"], controls, particles, average))
    return levels


def _run_again(plain: dict[str, Any], states: Mapping[int, State]) -> Run:
    mistakes = plain["mistakes"]
    history: Sequence[Mapping[str, float]] = [_with_nan(record) for record in plain["history"]]
    return Run(
        tuple(plain["steps"]), history, states, plain["key"], plain["seconds"], plain["arithmetic"], plain["diverged"],
        crossovers_from(plain["crossovers"]), None if mistakes is None else Mistakes.from_plain(mistakes),
    )  # fmt: skip


def _packed(keep: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(keep.detach().cpu().numpy().astype(bool)))


def _unpacked(packed: Tensor, shape: Sequence[int]) -> Tensor:
    size = math.prod(shape)
    if packed.numel() != -(-size // 8):
        raise ValueError(f"{packed.numel()} bytes for a mask of {size} weights")
    bits = np.unpackbits(packed.numpy(), count=size).astype(bool)
    return torch.from_numpy(bits).reshape(tuple(shape))


def _plain(value: Any) -> Any:
    """A value for JSON, which has no NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in plain.items()}
