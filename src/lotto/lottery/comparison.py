"""Two networks of a result against each other: over replicates, and test example by test example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lotto.core.errors import UsageError, text
from lotto.core.shown import number, table
from lotto.core.statistics import discordant, interval, mcnemar, sampling_variance
from lotto.lottery.record import RecordedRecipe
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import tally
from lotto.training.job import Run
from lotto.training.mistakes import Mistakes
from lotto.training.network import Network

if TYPE_CHECKING:
    from lotto.lottery.replicate import Level

Which = int | tuple[int, str]
"""A level, or a level's control: ``5`` or ``(5, "random")``."""


@dataclass(frozen=True)
class Comparison:
    """How much larger the test error of ``b`` is than that of ``a``, replicate by replicate.

    Attributes:
        a, b: what is compared, in words.
        replicates: the numbers of those where both came to their end, from 0.
        gaps: error of ``b`` minus error of ``a``, in the error's unit, one for each of these.
        interval: 95 % t-interval of the mean gap; infinite for one replicate.
        variance: of the gaps over replicates (n - 1); NaN for one.
        test_variance: the part of it that the choice of the test examples makes, mean over replicates; NaN where an
            example is not right or wrong, and of averages of copies in a loaded result.
        p_values: of McNemar's exact test by replicate, two-sided: whether both err equally often on such examples.
            Empty where an example is not right or wrong.
    """

    a: str
    b: str
    replicates: tuple[int, ...]
    gaps: tuple[float, ...]
    interval: tuple[float, float]
    variance: float
    test_variance: float
    p_values: tuple[float, ...]

    @property
    def gap(self) -> float:
        """The mean gap."""
        return float(np.mean(self.gaps))

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"Comparison({self.b} minus {self.a}: {number(self.gap)}, 95 % interval {number(low)} to {number(high)}, "
            f"n={len(self.gaps)}, variance {number(self.variance)}, of the test set {number(self.test_variance)})"
        )

    def _repr_html_(self) -> str:
        """A row for each replicate: the gap, and McNemar's test where there is one."""
        p_values = [number(p) for p in self.p_values] or [""] * len(self.gaps)
        rows = [(r, number(gap), p) for r, gap, p in zip(self.replicates, self.gaps, p_values, strict=False)]
        return table(("replicate", "gap", "McNemar's p"), rows, repr(self))


def compare(recipe: Recipe, replicates: Sequence[Sequence[Level]], a: Which, b: Which) -> Comparison:
    """Compare two levels or controls, paired by replicate; see `ImpResult.compare`."""
    pairs = [(i, _run(levels, a), _run(levels, b)) for i, levels in enumerate(replicates)]
    ended = [(i, one, two) for i, one, two in pairs if one is not None and two is not None]
    if not ended:
        known = sorted({f"{at.level}" for levels in replicates for at in levels}, key=int)
        raise UsageError(
            f"No replicate has both {_name(a)} and {_name(b)}. There are the levels {', '.join(known)}; a control is "
            f"compared as (level, 'random') where it was trained."
        )
    gaps = [two.test_error - one.test_error for _, one, two in ended]
    mistakes = [(_mistakes(recipe, one), _mistakes(recipe, two)) for _, one, two in ended]
    known_mistakes = [(one.wrong, two.wrong) for one, two in mistakes if one is not None and two is not None]
    parts = [1e4 * float(sampling_variance(one, two)) for one, two in known_mistakes]
    return Comparison(
        _name(a), _name(b), tuple(i for i, *_ in ended), tuple(gaps), interval(gaps),
        float(np.var(gaps, ddof=1)) if len(gaps) > 1 else math.nan,
        float(np.mean(parts)) if parts else math.nan,
        tuple(mcnemar(*discordant(one, two)) for one, two in known_mistakes),
    )  # fmt: skip


def _run(levels: Sequence[Level], which: Which) -> Run | None:
    """What is compared of one replicate; None if it was not trained or has diverged."""
    number, control = which if isinstance(which, tuple) else (which, "")
    at = next((level for level in levels if level.level == number), None)
    run = None if at is None else at.controls.get(control) if control else at.run
    return None if run is None or run.diverged else run


def _mistakes(recipe: Recipe, run: Run) -> Mistakes | None:
    """Those that are stored; of a run without, an average of copies or an older one, evaluated now if it can be."""
    if run.mistakes is None and isinstance(recipe, RecordedRecipe):
        return None
    return run.mistakes or tally(recipe, Network(recipe, run.weights), "test", keep_mistakes=True).mistakes


def _name(which: Which) -> str:
    if isinstance(which, tuple):
        return f"{which[1]} of level {which[0]}"
    return "the dense network" if which == 0 else f"level {text(which)}"
