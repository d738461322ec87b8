"""How many replicates a verdict takes, from the dense network alone and before anything is pruned.

A paired gap spreads because two trainings of one replicate end in different networks, and because these differ on the
test examples that happen to be there. Two copies of the dense network that part at the rewind step, on different data
orders, differ in the same two ways, while their true gap is 0; so the mean square of their gaps estimates the variance
of the gap of a sparse network. It is an estimate: a sparse network sees the data order of its dense one, and differs
more from it the sparser it is.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lotto.core.check import Few, checked
from lotto.core.errors import DivergedError, UsageError
from lotto.core.rng import derived_seed
from lotto.core.shown import number
from lotto.core.statistics import POWER, replicates_needed, sampling_variance
from lotto.execution.engine import Engine, Progress
from lotto.execution.procedures import Procedure
from lotto.execution.rule import chosen_engine, on_device
from lotto.execution.store import Store
from lotto.lottery.plan import number_of_replicates
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job, Run

GAPS = (0.0, 0.5, 1.5, 2.0)
"""True gaps for which replicates are counted, in tolerances."""
CAREFUL = 0.9
"""Confidence of the upper bound of the spread, which itself is estimated from a few replicates."""


@dataclass(frozen=True)
class GapSpread:
    """How much a paired gap spreads, and what that asks of the number of replicates.

    Attributes:
        dense_errors: of the dense networks, in the error's unit.
        gaps: error of each one's copy on another data order minus its own.
        tolerance: the recipe's, at the mean dense error, in the same unit.
        test_std: the part that the choice of the test examples has in `std`; NaN where examples are not right or wrong.

    >>> spread = GapSpread(dense_errors=(2.0, 2.2), gaps=(0.1, -0.1), tolerance=0.2)
    >>> round(spread.std, 3)  # around 0, which is what the gaps of equals are
    0.1
    """

    dense_errors: tuple[float, ...]
    gaps: tuple[float, ...]
    tolerance: float
    test_std: float = math.nan

    @property
    def std(self) -> float:
        """Standard deviation of a paired gap: the root of the mean square, because the true gap of copies is 0."""
        return math.sqrt(float(np.mean(np.square(self.gaps))))

    @property
    def std_high(self) -> float:
        """Upper bound of `std` that holds in `CAREFUL` of all cases, by the chi-squared distribution."""
        from scipy.special import chdtri

        n = len(self.gaps)
        return self.std * math.sqrt(n / float(chdtri(n, CAREFUL)))

    def table(self) -> pd.DataFrame:
        """One row per true gap.

        Columns: ``gap`` (in the error's unit); ``shown`` (the verdict that is to be reached); ``replicates`` (how many
        reach it in 80 % of all cases); ``replicates_high`` (if the spread is `std_high`). Infinite where none do.
        """
        rows = [
            {
                "gap": times * self.tolerance,
                "shown": "matching" if times < 1 else "failing",
                "replicates": replicates_needed(self.std, self.tolerance, times * self.tolerance),
                "replicates_high": replicates_needed(self.std_high, self.tolerance, times * self.tolerance),
            }
            for times in GAPS
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return (
            f"GapSpread(std {number(self.std)} from {len(self.gaps)} replicates, tolerance {number(self.tolerance)}: "
            f"{self.table()['replicates'][0]} replicates decide a gap of 0 in {POWER:.0%} of all cases)"
        )


@checked
def gap_spread(
    recipe: Recipe,
    rewind_to: str | int | None = None,
    replicates: Few | None = None,
    *,
    seed: int = 0,
    engine: Engine | None = None,
    jobs: int | str = "auto",
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> GapSpread:
    """Estimate the spread of a paired gap from dense networks and their copies on another data order.

    Two trainings a replicate, the first of which `imp` needs as well.

    Args:
        recipe: what is trained.
        rewind_to: the step at which the copies part; default the recipe's, as in `imp`.
        replicates: how many; default that of `imp`.
        seed: replicate r uses the seeds ``seed + r``.
        engine, jobs, store, device, progress: as of `lotto.imp`.

    Raises:
        UsageError: for fewer than two replicates, and a rewind step at the end of training or beyond.
        DivergedError: if fewer than two replicates come to their end.

    >>> len(gap_spread(recipe, "5it", replicates=2, engine=lotto.engine.make(jobs=1)).gaps)
    2
    """
    recipe = on_device(recipe, device)
    count = number_of_replicates(recipe, replicates)[0]
    if count < 2:
        raise UsageError(f"A spread needs two or more replicates; got {count}.")
    step = recipe.step(recipe.rewind_to if rewind_to is None else rewind_to)
    if step >= recipe.total:
        raise UsageError(f"The rewind step {step} is not before the end of training at {recipe.total} iterations.")
    procedures = [_pair(recipe, step, seed + r, f"replicate {r + 1}") for r in range(count)]
    found = chosen_engine(recipe, engine, store, jobs).run_procedures(procedures, progress, 2 * count)
    pairs = [(one, two) for one, two in found if not one.diverged and not two.diverged]
    if len(pairs) < 2:
        raise DivergedError(next(run.diverged for pair in found for run in pair if run.diverged))
    dense = tuple(one.test_error for one, _ in pairs)
    gaps = tuple(two.test_error - one.test_error for one, two in pairs)
    allowed = recipe.margin.above(float(np.mean(dense)))
    return GapSpread(dense, gaps, allowed, _test_std(recipe, pairs))


def _pair(recipe: Recipe, step: int, seed: int, label: str) -> Procedure[tuple[Run, Run]]:
    """A dense network, and its copy that goes on from a step with other data."""
    (dense,) = yield [Job(recipe, seed, seed, keep=(step,), label=f"{label} · dense")]
    if dense.diverged:
        return dense, dense
    start, other = dense.state(step).without_optimizer, derived_seed(seed, "another-order", 1)
    (copy,) = yield [Job(recipe, order_seed=other, start=start, from_step=step, label=f"{label} · another order")]
    return dense, copy


def _test_std(recipe: Recipe, pairs: list[tuple[Run, Run]]) -> float:
    """Root of the mean variance that the test examples make, in percentage points."""
    known = [(one.mistakes, two.mistakes) for one, two in pairs]
    parts = [float(sampling_variance(a.wrong, b.wrong)) for a, b in known if a is not None and b is not None]
    whole = recipe.in_points and len(parts) == len(pairs)
    return 100 * math.sqrt(float(np.mean(parts))) if whole else math.nan
