"""Where claims are decided: at the density of a data set, and at a small rewind step."""

from __future__ import annotations

import math

import pandas as pd

from lotto.experiments.claims import small_step
from lotto.experiments.measures import Kind, Measure
from lotto.experiments.results import ResultGroup

NEAR = 1.6
"""A level stands for a density when it is at most this factor away."""
DENSITIES = {"mnist1d": 0.058, "cifar10": 0.167, "mnist": 0.107}
"""The density at which claims are decided, by how the data set's name begins: STAB's of ResNet-20 and LeNet (figure 3),
and on MNIST-1D the one at which the first five replicates of the 1-D ResNet-20 (seeds 0 to 4) said most; the verdicts
rest on other seeds, see results/."""
OTHER_DENSITY, VGG_DENSITY = 0.167, 0.022


def density_of(group: ResultGroup) -> float:
    """The density at which claims are decided on a network."""
    if "vgg" in str(group.recipe["model"]):
        return VGG_DENSITY
    data = str(group.recipe.get("data", ""))
    return next((density for name, density in DENSITIES.items() if data.startswith(name)), OTHER_DENSITY)


def level_at(group: ResultGroup, density: float, rows: pd.DataFrame | None = None) -> int | None:
    """The level whose density is nearest to the given one, if one is near; of some rows, or of all."""
    rows = group.frame if rows is None else rows
    levels = rows[rows["level"] > 0].groupby("level")["density"].mean()
    if levels.empty:
        return None
    away = (levels / density).map(math.log).abs()
    return int(away.idxmin()) if away.min() <= math.log(NEAR) else None


def small_place(group: ResultGroup, measure: Measure, kind: Kind) -> tuple[int, int] | None:
    """The small rewind step and the level at which claims on a measure of a kind are decided; None if not there."""
    rows = group.rows(measure, kind=kind)
    rows = rows[rows["level"] > 0]
    level, k = level_at(group, density_of(group), rows), small_step(group, rows["rewind_step"].unique())
    return None if level is None or k is None else (k, level)


def where(group: ResultGroup, k: int, level: int) -> str:
    """A place in words."""
    return f"{100 * group.rows(level=level, rewind_step=k)['density'].mean():.3g} % left, k = {k}"
