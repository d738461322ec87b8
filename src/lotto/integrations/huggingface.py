"""Sparse training with the trainer of Hugging Face's transformers: a callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lotto.core.check import Whole, checked
from lotto.core.errors import UsageError
from lotto.integrations.block import Block, advance, check_schedule
from lotto.pruning.masks import MaskLike
from lotto.training.sparse_loop import SparseLoop

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState
except ImportError as missing:
    raise UsageError(
        f"lotto.integrations.huggingface needs transformers ({missing}): pip install 'lotto-tickets[transformers]'."
    ) from missing


class SparseCallback(TrainerCallback):
    """`lotto.sparse` around the loop of a ``transformers.Trainer``, and schedules that go on at a rewind point.

    The trainer tells its callbacks nothing of a training that fails: then the block ends when the next one begins, or
    with the callback. ``with lotto.sparse(model, mask):`` around ``trainer.train()`` ends it at once.

    Args:
        mask: what is left; None = everything, to count steps and take snapshots alone.
        keep: optimizer steps whose weights are kept, ``500`` or ``"500it"``, in ``.loop.kept``.
        start_step: the optimizer step at which the training begins: the learning-rate schedule is brought there, and it
            ends as many steps before ``max_steps`` or the last of ``num_train_epochs``. The data order is of ``seed``.
        module: the network that names and mask are of; None = the trainer's model.

    Raises:
        UsageError: at the beginning of a training, for what `lotto.sparse` refuses, and for a schedule that cannot go
            on at ``start_step``.

    >>> layer = torch.nn.Linear(4, 2)
    >>> mask = lotto.pruning.prune(layer.state_dict(), lotto.pruning.masks.ones(layer), 0.5)
    >>> SparseCallback(mask, keep=["500it"]).mask
    Mask(50 % of 8 weights in 1 layers)
    """

    @checked
    def __init__(
        self,
        mask: MaskLike | None = None,
        *,
        keep: Sequence[int | str] = (),
        start_step: Whole = 0,
        module: nn.Module | None = None,
    ) -> None:
        self.mask = mask
        self._block = Block(mask, keep, start_step, module)

    @property
    def loop(self) -> SparseLoop:
        """Steps, mask and kept weights of the training: see `lotto.sparse`."""
        return self._block.loop

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, lr_scheduler: Any = None,
        **_: Any,
    ) -> None:  # fmt: skip
        """After a checkpoint is read, before the first batch."""
        if self._block.start_step and not state.global_step and lr_scheduler is not None:
            check_schedule(getattr(lr_scheduler, "scheduler", lr_scheduler))
            advance(lr_scheduler, self._block.start_step)
        self._block.begin(model, state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """A training that began later has fewer steps."""
        if self._block.is_over(state.max_steps):
            control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Pruned weights are looked at once more."""
        self._block.end()
