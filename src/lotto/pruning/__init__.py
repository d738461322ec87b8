"""Masks and how they are made: which weights matter, compared with which others, how many go."""

from __future__ import annotations

from lotto.pruning.allocation import erk_counts, keep_top
from lotto.pruning.density import (
    MAX_LEVELS,
    Adaptive,
    Cubic,
    DensitySchedule,
    Explicit,
    Geometric,
    OneShot,
    ToDensity,
    densities_of,
    levels_for,
    to_density,
)
from lotto.pruning.masks import Mask
from lotto.pruning.rule import SCOPES, Pruning, prune
from lotto.pruning.scores import SCORES, Score, magnitude, magnitude_increase, random
from lotto.pruning.ticket import Ticket

__all__ = [
    "MAX_LEVELS",
    "SCOPES",
    "SCORES",
    "Adaptive",
    "Cubic",
    "DensitySchedule",
    "Explicit",
    "Geometric",
    "Mask",
    "OneShot",
    "Pruning",
    "Score",
    "Ticket",
    "ToDensity",
    "densities_of",
    "erk_counts",
    "keep_top",
    "levels_for",
    "magnitude",
    "magnitude_increase",
    "prune",
    "random",
    "to_density",
]
