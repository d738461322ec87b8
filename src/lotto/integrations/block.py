"""A `lotto.sparse` block that one event of somebody's trainer begins and another ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lotto.core.errors import UsageError
from lotto.pruning.masks import MaskLike
from lotto.training.sparse_loop import SparseLoop, sparse


class Block:
    """What the callbacks share.

    Args:
        mask: what is left; None = everything.
        keep: steps whose weights are kept.
        start_step: at which step of its schedule a training begins.
        module: the network that the mask is of; None = the one that the trainer has.
    """

    def __init__(
        self, mask: MaskLike | None, keep: Sequence[int | str], start_step: int, module: nn.Module | None
    ) -> None:
        self.mask, self.keep, self.start_step, self.module = mask, keep, start_step, module
        self._loop: SparseLoop | None = None
        self._stack = ExitStack()

    @property
    def loop(self) -> SparseLoop:
        """What the block saw: steps, mask, kept weights.

        Raises:
            UsageError: before the training has begun.
        """
        if self._loop is None:
            raise UsageError("No training with this callback has begun: give it to a trainer and let that train.")
        return self._loop

    def begin(self, model: nn.Module, done: int) -> None:
        """Begin the block; one that a training has left open, which failed, ends.

        Args:
            model: what the trainer trains.
            done: steps that a checkpoint of this training has done.
        """
        self.fail(RuntimeError("left open"))
        first = self.start_step + done
        module = model if self.module is None else self.module
        self._loop = self._stack.enter_context(sparse(module, self.mask, keep=self.keep, start_step=first))

    def end(self) -> None:
        """End the block and check it."""
        self._stack.close()

    def fail(self, error: BaseException) -> None:
        """End the block of a training that failed: hooks go, nothing is checked."""
        self._stack.__exit__(type(error), error, error.__traceback__)
        self._stack = ExitStack()

    def is_over(self, last: float) -> bool:
        """Whether a training that began at a later step has come to the last step of its schedule."""
        return bool(self.start_step) and self.loop.steps >= last


def check_schedule(scheduler: Any) -> None:
    """Raise ``UsageError`` if a learning rate depends on what has been measured meanwhile."""
    if isinstance(scheduler, ReduceLROnPlateau) or type(scheduler).__name__ == "GreedyLR":
        raise UsageError(
            f"{type(scheduler).__name__} goes by what it measures, so that nobody knows the learning rate at a later "
            "step: begin at start_step=0 (rewind_to='0it'), or take a schedule that is a function of the step."
        )


def advance(scheduler: Any, times: int) -> None:
    """Bring a new learning-rate scheduler where it is after so many of its steps."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)  # no step is left out
        for _ in range(times):
            scheduler.step()
