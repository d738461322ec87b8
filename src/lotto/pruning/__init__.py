"""Masks and how they are made: which weights matter, compared with which others, how many go."""

from __future__ import annotations

from lotto.pruning.agreement import Overlap, overlap
from lotto.pruning.allocation import ALLOCATIONS, Allocation, balanced_counts, erk_counts, keep_top, layer_counts
from lotto.pruning.at_init import grasp, snip, synflow
from lotto.pruning.context import Context
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
from lotto.pruning.patterns import Pattern, Unstructured
from lotto.pruning.rule import SCOPES, Pruning, prune
from lotto.pruning.scores import SCORES, ContextScore, LayerScore, Score, magnitude, magnitude_increase, random
from lotto.pruning.structured import PATTERNS, Block, Channel, NByM
from lotto.pruning.ticket import Ticket

__all__ = [
    "ALLOCATIONS",
    "MAX_LEVELS",
    "PATTERNS",
    "SCOPES",
    "SCORES",
    "Adaptive",
    "Allocation",
    "Block",
    "Channel",
    "Context",
    "ContextScore",
    "Cubic",
    "DensitySchedule",
    "Explicit",
    "Geometric",
    "LayerScore",
    "Mask",
    "NByM",
    "OneShot",
    "Overlap",
    "Pattern",
    "Pruning",
    "Score",
    "Ticket",
    "ToDensity",
    "Unstructured",
    "balanced_counts",
    "densities_of",
    "erk_counts",
    "grasp",
    "keep_top",
    "layer_counts",
    "levels_for",
    "magnitude",
    "magnitude_increase",
    "overlap",
    "prune",
    "random",
    "snip",
    "synflow",
    "to_density",
]
