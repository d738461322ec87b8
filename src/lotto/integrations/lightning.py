"""Sparse training with Lightning's own trainer: a callback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from lotto.core.check import Whole, checked
from lotto.core.errors import UsageError
from lotto.integrations.block import Block, advance, check_schedule
from lotto.pruning.masks import MaskLike
from lotto.training.sparse_loop import SparseLoop

try:
    import lightning.pytorch as pl
except ImportError as missing:
    raise UsageError(
        f"lotto.integrations.lightning needs Lightning ({missing}): pip install 'lotto-tickets[lightning]'."
    ) from missing


class SparseCallback(pl.Callback):
    """`lotto.sparse` around the training loop of a ``lightning.Trainer``, and schedules that go on at a rewind point.

    Args:
        mask: what is left; None = everything, to count steps and take snapshots alone.
        keep: optimizer steps whose weights are kept, ``500`` or ``"500it"``, in ``.loop.kept``.
        start_step: the optimizer step at which the training begins: learning-rate schedules are brought there, and it
            ends as many steps before ``max_steps`` or the last of ``max_epochs``. The data order is the loader's own.
        module: the network that names and mask are of; None = the whole LightningModule.

    Raises:
        UsageError: at the beginning of a training, for what `lotto.sparse` refuses, and for a schedule that cannot go
            on at ``start_step``.

    >>> layer = torch.nn.Linear(4, 2)
    >>> mask = lotto.pruning.prune(layer.state_dict(), lotto.pruning.masks.ones(layer), 0.5)
    >>> SparseCallback(mask, keep=["500it"], module=layer).mask
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
        super().__init__()
        self.mask = mask
        self._block = Block(mask, keep, start_step, module)
        self._last = math.inf

    @property
    def loop(self) -> SparseLoop:
        """Steps, mask and kept weights of the training: see `lotto.sparse`."""
        return self._block.loop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After checkpoints are read and the sanity check, before the first batch."""
        done, first = trainer.global_step, self._block.start_step
        if (done or first) and len(trainer.optimizers) > 1:
            raise UsageError(
                "A training with several optimizers cannot go on at a later step: Lightning counts the steps of all of "
                "them. Begin at start_step=0, or use `with lotto.sparse(model, mask, main=optimizer):` around .fit."
            )
        if first and not done:
            for config in trainer.lr_scheduler_configs:
                check_schedule(config.scheduler)
                advance(config.scheduler, _times(trainer, config, first))
        limits = (trainer.max_steps, trainer.estimated_stepping_batches) if first else ()
        self._last = min((limit for limit in limits if limit > 0), default=math.inf)  # -1: there is none
        self._block.begin(pl_module, done)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A training that began later has fewer steps."""
        if self._block.is_over(self._last):
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Pruned weights are looked at once more."""
        self._block.end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Hooks go, the error stays."""
        self._block.fail(exception)


def _times(trainer: pl.Trainer, config: Any, step: int) -> int:
    """How often Lightning has called a scheduler after so many optimizer steps."""
    if config.frequency != 1:
        raise UsageError(
            f"A scheduler of frequency {config.frequency} cannot go on at a later step: give it frequency 1, and a "
            "schedule that is as much slower."
        )
    if config.interval == "step":
        return step
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    if step % per_epoch:
        raise UsageError(
            f"A scheduler that steps once an epoch cannot go on at step {step}, inside an epoch of {per_epoch}: rewind "
            f"to a multiple of {per_epoch}, or return it with 'interval': 'step'."
        )
    return step // per_epoch
