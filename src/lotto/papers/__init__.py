"""The papers' experiments: one function per figure or table. They return tidy rows; drawing is the report's work."""

from __future__ import annotations

from lotto.errors import unknown
from lotto.papers import stabilizing
from lotto.papers.experiment import Experiment, Options

EXPERIMENTS: dict[str, Experiment] = {f"stabilizing.{e.name}": e for e in stabilizing.EXPERIMENTS}

__all__ = ["EXPERIMENTS", "Experiment", "Options", "get"]


def get(name: str) -> Experiment:
    """An experiment by name, ``stabilizing.distances``.

    Raises:
        UsageError: if the name is unknown; lists the choices.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]
