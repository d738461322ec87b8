"""Training one network, or several at once: a pure function of a `Job`."""

from __future__ import annotations

from functools import partial

from lotto.core.moved import renamed_name
from lotto.training.check import check_trainable
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import Metrics, evaluate
from lotto.training.loop import train, train_stack

__all__ = ["Checkpoint", "Metrics", "check_trainable", "evaluate", "train", "train_stack"]


__getattr__ = partial(renamed_name, __name__)  # names of the first edition
