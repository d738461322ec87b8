"""Permutations of units that leave what a network computes as it is, and those that bring two networks together."""

from __future__ import annotations

from lotto.landscape.permutation.groups import UnitAxis, UnitGroup, unit_groups
from lotto.landscape.permutation.orders import Permutation, permuted, random_permutation
from lotto.landscape.permutation.task import MatchTask, match_units

__all__ = [
    "MatchTask",
    "Permutation",
    "UnitAxis",
    "UnitGroup",
    "match_units",
    "permuted",
    "random_permutation",
    "unit_groups",
]
