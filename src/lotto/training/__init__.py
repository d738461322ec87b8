"""Training one network: a pure function of a `Job`."""

from __future__ import annotations

from lotto.training.check import check_trainable
from lotto.training.evaluate import Metrics, evaluate
from lotto.training.loop import Checkpoint, train

__all__ = ["Checkpoint", "Metrics", "check_trainable", "evaluate", "train"]
