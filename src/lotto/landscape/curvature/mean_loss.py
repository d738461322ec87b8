"""The loss whose curvature is taken: a mean over the examples of a split, batch by batch, the same at each pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.data import Batch, Split
from lotto.data.batch import count as examples_in
from lotto.data.batch import examples as some
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import mean_of
from lotto.training import own_batches
from lotto.training.batch_size import BATCH, eval_batch
from lotto.training.evaluation import examples_of
from lotto.training.network import Network

HELD_BATCHES = 4
HELD_EXAMPLES = HELD_BATCHES * BATCH
"""Up to so many examples (or batches, where these are smaller), the first derivatives and their graphs are computed
once: half of a product's time."""


class MeanLoss(ABC):
    """A loss over a split.

    Args:
        recipe: whose loss.
        network: what it is of.
        split: which examples.
        examples: the first so many; None = all.
    """

    more = "loss=lotto.recipe.totals.Ratio(function that returns its sum and its weight)"
    """How a loss says what it is a mean of."""

    def __init__(self, recipe: Recipe, network: Network, split: Split, examples: int | None) -> None:
        self.recipe, self.network, self.split, self.examples = recipe, network, split, examples

    @abstractmethod
    def batches(self) -> Iterator[Any]:
        """The examples in their own order, not augmented."""

    @abstractmethod
    def of(self, batch: Any) -> tuple[Tensor, float]:
        """The mean loss of a batch and its weight in the mean over all."""

    @property
    @abstractmethod
    def is_small(self) -> bool:
        """Whether there are so few batches that the graphs of all can be kept."""

    @abstractmethod
    def examples_to_split(self, batch: Any) -> int:
        """Examples of a batch whose mean nobody has said anything about, where it is one of several; else 0."""

    def check(self) -> None:
        """Raise ``UsageError`` unless the loss is a function of the weights and a mean over examples."""
        batch = next(self.batches())
        (first, _), (second, _) = self.of(batch), self.of(batch)
        if not _same(first, second):
            raise UsageError(
                "The loss of the same batch differs between two evaluations: some module draws random numbers in "
                "evaluation mode (dropout called with training=True?), so there is no Hessian."
            )
        if size := self.examples_to_split(batch):
            self._check_mean(float(first), batch, size)

    def _check_mean(self, whole: float, batch: Any, size: int) -> None:
        """A loss that nobody has said anything about is taken as a mean over examples, if it is one."""
        at = size // 3
        parts = [(b - a) * float(self.of(_part(batch, a, b))[0]) for a, b in ((0, at), (at, size))]
        if abs(sum(parts) / size - whole) > 1e-4 * sum(map(abs, parts)) / size:
            raise UsageError(
                "The loss of a batch is not the mean over its examples, so batches do not add up to the loss of all. "
                f"Say what it is a mean of, {self.more}, or take at most examples={size}."
            )


class LossOfRecipe(MeanLoss):
    """That of a recipe with data and a loss of (outputs, targets)."""

    def __init__(self, recipe: Recipe, network: Network, split: Split, examples: int | None) -> None:
        super().__init__(recipe, network, split, examples)
        self._mean = mean_of(recipe.loss_function)
        self.count = examples or recipe.arrays.size(split)

    @property
    def adds_up(self) -> bool:
        """Whether it is known to be a mean, of batches of any size."""
        return self._mean is not None

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """See `MeanLoss`, as for all; of a size, or that of an evaluation."""
        yield from examples_of(self.recipe, self.network, self.split, self.examples, size)

    def of(self, batch: Batch) -> tuple[Tensor, float]:
        """By the recipe's loss."""
        x, y = batch
        if self._mean is None:
            return self.recipe.loss_function(self.network(x), y), examples_in(x)
        return self.of_outputs(self.network(x), y)

    def of_outputs(self, outputs: Any, y: Any) -> tuple[Tensor, float]:
        """The mean loss of outputs and its weight, if it `adds_up`."""
        assert self._mean is not None
        loss, weight = self._mean(outputs, y)
        return loss, float(weight)

    @property
    def is_small(self) -> bool:
        """By examples, and by the memory of their activations."""
        return self.count <= min(HELD_EXAMPLES, HELD_BATCHES * eval_batch(self.recipe, self.network))

    def examples_to_split(self, batch: Batch) -> int:
        """Of a loss of the user's own."""
        size = examples_in(batch.inputs)
        return size if self._mean is None and size < self.count else 0


class LossOfLoop(MeanLoss):
    """That of a loop of the user's own, which gives its batches and the loss of one."""

    more = "by returning the sum and its weight as a pair"

    def check(self) -> None:
        """Also that the batches are the same when they are read again."""
        super().check()
        (first, _), (second, _) = (self.of(next(self.batches())) for _ in range(2))
        if not _same(first, second):
            raise UsageError(
                f"batches() of {self.recipe.name} gives other batches when it is called again, so there is no one "
                "loss: shuffle by a generator that it seeds itself, or not at all."
            )

    def batches(self) -> Iterator[Any]:
        """Those that ``batches()`` gives."""
        if self.split != "train":
            raise UsageError(
                f"batches() of {self.recipe.name} gives training batches; there are none of split={self.split!r}."
            )
        yield from own_batches.own_batches(self.recipe, self.network, self.examples)

    def of(self, batch: Any) -> tuple[Tensor, float]:
        """By ``loss(model, batch)``."""
        loss, weight, _ = own_batches.own_loss(self.recipe, self.network, batch)
        return loss, weight

    @cached_property
    def _sizes(self) -> list[int | None]:
        return [own_batches.examples_in(batch) for batch in self.batches()]

    @property
    def is_small(self) -> bool:
        """By batches, and by examples where they can be counted."""
        return len(self._sizes) <= HELD_BATCHES and sum(size or 0 for size in self._sizes) <= HELD_EXAMPLES

    def examples_to_split(self, batch: Any) -> int:
        """Of a loss that returns a mean alone."""
        said = own_batches.own_loss(self.recipe, self.network, batch)[2]
        return 0 if said or len(self._sizes) == 1 else own_batches.examples_in(batch) or 0


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())  # a batch of no target has no loss


def _part(batch: Any, first: int, last: int) -> Any:
    return some(dict(batch) if isinstance(batch, Mapping) else batch, first, last)


def mean_loss(recipe: Recipe, network: Network, split: Split, examples: int | None) -> MeanLoss:
    """The loss of a recipe over the first ``examples`` of a split; None = all."""
    return (LossOfRecipe if recipe.loop is None else LossOfLoop)(recipe, network, split, examples)
