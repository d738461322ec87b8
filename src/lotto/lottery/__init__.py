"""Iterative magnitude pruning with rewinding: what it is asked, its levels, what it finds."""

from __future__ import annotations

from lotto.lottery.adaptive import Trial
from lotto.lottery.plan import Plan, Retraining
from lotto.lottery.power import GapSpread, gap_spread
from lotto.lottery.procedure import LevelFinished
from lotto.lottery.replicate import Level
from lotto.lottery.search import ImpResult, imp

__all__ = ["GapSpread", "ImpResult", "Level", "LevelFinished", "Plan", "Retraining", "Trial", "gap_spread", "imp"]
