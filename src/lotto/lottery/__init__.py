"""Iterative magnitude pruning with rewinding: what it is asked, its levels, what it finds.

Names are imported at their first use, so that the command line can read the options of `Plan` before PyTorch is loaded.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lotto.lottery.adaptive import Trial
    from lotto.lottery.options import Plan, Retraining
    from lotto.lottery.plan import SettledPlan
    from lotto.lottery.power import GapSpread, gap_spread
    from lotto.lottery.procedure import LevelFinished
    from lotto.lottery.replicate import Level
    from lotto.lottery.result import ImpResult
    from lotto.lottery.saved import load
    from lotto.lottery.scoring import score_weights
    from lotto.lottery.search import imp

__all__ = [
    "GapSpread",
    "ImpResult",
    "Level",
    "LevelFinished",
    "Plan",
    "Retraining",
    "SettledPlan",
    "Trial",
    "gap_spread",
    "imp",
    "load",
    "score_weights",
]
_HOMES = {
    "adaptive": ["Trial"],
    "options": ["Plan", "Retraining"],
    "plan": ["SettledPlan"],
    "power": ["GapSpread", "gap_spread"],
    "procedure": ["LevelFinished"],
    "replicate": ["Level"],
    "scoring": ["score_weights"],
    "result": ["ImpResult"],
    "saved": ["load"],
    "search": ["imp"],
}


def __getattr__(name: str) -> object:
    """A public name at its first use."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
