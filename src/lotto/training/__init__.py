"""Training one network, or several at once: a pure function of a `Job`."""

from __future__ import annotations

from lotto.training.check import check_trainable
from lotto.training.evaluation import Metrics, evaluate
from lotto.training.loop import Checkpoint, train
from lotto.training.together import train_together

__all__ = ["Checkpoint", "Metrics", "check_trainable", "evaluate", "train", "train_together"]
