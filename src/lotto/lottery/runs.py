"""The runs and masks of a result side by side: how far masks agree, which weights change their sign."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import pandas as pd
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.lottery.replicate import Level
from lotto.pruning import masks
from lotto.pruning.agreement import overlap
from lotto.training.job import Run

RunKey = tuple[int, int, str]
"""Replicate, level, and ``imp``, a control's name or ``particle 1``, ... ."""


def all_runs(replicates: Sequence[Sequence[Level]]) -> dict[RunKey, Run]:
    """Every run of a result, replicate by replicate and level by level."""
    return {
        (number, at.level, kind): run
        for number, levels in enumerate(replicates)
        for at in levels
        for kind, run in runs_of(at)
    }


def runs_of(at: Level) -> Iterator[tuple[str, Run]]:
    """The runs of a level by kind."""
    yield "imp", at.run
    yield from at.controls.items()
    yield from ((f"particle {i}", run) for i, run in enumerate(at.particles, 1))


def overlap_table(replicates: Sequence[Sequence[Level]]) -> pd.DataFrame:
    """See `ImpResult.overlap_table`."""
    pairs = [
        (at.level, one, at.level, two)
        for one, two in combinations(range(len(replicates)), 2)
        for at, _ in zip(replicates[one], replicates[two], strict=False)
    ]
    pairs += [(at.level, i, at.level - 1, i) for i, levels in enumerate(replicates) for at in levels[1:]]
    rows = []
    for level, replicate, other_level, other_replicate in sorted(pairs):
        found = overlap(replicates[replicate][level].mask, replicates[other_replicate][other_level].mask)
        rows.append(
            {
                "level": level,
                "replicate": replicate,
                "other_level": other_level,
                "other_replicate": other_replicate,
                "common": found.common,
                "jaccard": found.jaccard,
                "expected": found.expected,
            }
        )
    return pd.DataFrame(rows)


def sign_table(replicates: Sequence[Sequence[Level]], rewind_step: int, rewound: bool) -> pd.DataFrame:
    """See `ImpResult.sign_table`.

    Args:
        replicates: of the result.
        rewind_step: whose weights level 0 has kept.
        rewound: whether every level began at these.
    """
    rows = []
    for replicate, levels in enumerate(replicates):
        for before, at in zip([None, *levels[:-1]], levels, strict=True):
            if at.run.diverged:
                continue
            end = _end(at)
            start = levels[0].run.at(rewind_step) if rewound or at.level == 0 else None
            rows.append(
                {
                    "replicate": replicate,
                    "level": at.level,
                    "density": masks.density(at.mask),
                    "kept": masks.count(at.mask),
                    "in_training": math.nan if start is None else changed_signs(start, end, at.mask),
                    "since_last_level": math.nan if before is None else changed_signs(_end(before), end, at.mask),
                }
            )
    return pd.DataFrame(rows)


def _end(at: Level) -> Mapping[str, Tensor]:
    if at.run.steps[1] not in at.run.states:
        raise UsageError(
            "Signs at the end of training need the trained weights, with which this result was not saved: "
            "lotto.imp(...).save(folder) keeps them (what is remembered is not trained again)."
        )
    return at.run.weights


def changed_signs(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> float:
    """The fraction of the kept weights, among those that have a sign in both, whose sign differs; NaN of none."""
    changed = counted = 0
    for name, keep in mask.items():
        one, two = start[name].cpu()[keep].sign(), end[name].cpu()[keep].sign()
        signed = (one != 0) & (two != 0)
        counted += int(signed.sum())
        changed += int(((one != two) & signed).sum())
    return changed / counted if counted else math.nan
