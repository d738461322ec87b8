"""Masks and how they are made: which weights matter, compared with which others, how many go."""

from __future__ import annotations

from lotto.pruning.masks import Mask
from lotto.pruning.rule import SCORES, Pruning, erk_counts, keep_top, levels_for, prune
from lotto.pruning.ticket import Ticket

__all__ = ["SCORES", "Mask", "Pruning", "Ticket", "erk_counts", "keep_top", "levels_for", "prune"]
