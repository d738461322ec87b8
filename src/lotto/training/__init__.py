"""Training one network, or several at once: a pure function of a `Job`."""

from __future__ import annotations

from typing import Any

from lotto.core.moved import renamed_name
from lotto.training.check import check_trainable
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import Metrics, evaluate
from lotto.training.loop import train, train_stack

__all__ = ["Checkpoint", "Metrics", "check_trainable", "evaluate", "train", "train_stack"]


def __getattr__(name: str) -> Any:
    """A name of the first edition, with a warning that says what it is now."""
    return renamed_name(__name__, name)
