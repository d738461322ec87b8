"""Loss and error of given weights over a split of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, zip_longest
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.core.rng import private_rng, torch_seed
from lotto.core.weights import digest
from lotto.data import Split
from lotto.data.batch import Batch, count, joined, moved
from lotto.data.batch import examples as some
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.source import ENDLESS
from lotto.recipe.metrics import Error, Metric
from lotto.recipe.objectives import Objective, misclassification
from lotto.recipe.outputs import OfPrediction
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import totals_of
from lotto.training.batch_size import eval_batch
from lotto.training.mistakes import Mistakes, wrong_predictions
from lotto.training.network import Network
from lotto.training.outputs import outputs_of
from lotto.training.own_batches import own_metrics

GATHERED_BYTES = 4 << 30
"""So much memory at most for the outputs of a split that an objective needs at once."""
SPLITS: tuple[Split, ...] = ("test", "validation")


class _LossAndError(NamedTuple):
    loss: float
    error: float


class Metrics(_LossAndError):
    """Over a split: the recipe's loss, and its error (percent by default).

    Attributes:
        more: the recipe's other metrics, by name.

    >>> Metrics(loss=0.25, error=3.0).entries("test")
    {'test_loss': 0.25, 'test_error': 3.0}
    """

    more: Mapping[str, float] = MappingProxyType({})

    def entries(self, split: Split) -> dict[str, float]:
        """As records hold them: ``test_loss``, ``test_error``, ``test_f1``."""
        others = {f"{split}_{name}": value for name, value in self.more.items()}
        return {f"{split}_loss": self.loss, f"{split}_error": self.error, **others}


@checked
def evaluate(recipe: Recipe, weights: Mapping[str, Tensor], split: Split = "test") -> Metrics:
    """Evaluate weights in evaluation mode, without augmentation, in the recipe's precision.

    Args:
        recipe: model, data, loss, error, precision.
        weights: a whole state dict.
        split: ``train``, ``validation`` or ``test``.

    >>> evaluate(recipe, weights).error < evaluate(recipe, recipe.initial(0)).error
    True
    """
    return evaluate_network(recipe, Network(recipe, weights), split, more=True)


def evaluate_splits(recipe: Recipe, network: Network) -> dict[str, float]:
    """``test_loss``, ``test_error`` and, if examples are held out, ``validation_*``: what a run's records hold."""
    found: dict[str, float] = {}
    for split in SPLITS:
        if recipe.arrays.size(split):
            found |= evaluate_network(recipe, network, split, more=True).entries(split)
    return found


@private_rng(torch_seed(0, "evaluation"))  # numbers that a network draws are the same for all weights
@torch.no_grad()
def tally(
    recipe: Recipe,
    network: Network,
    split: Split,
    examples: int | None = None,
    *,
    stride: int = 1,
    keep_mistakes: bool = False,
    more: bool = False,
) -> Tally:
    """Count the outputs of a network on its device; leaves it in the mode it was in.

    Args:
        recipe: loss and error.
        network: what is evaluated.
        split: on which examples.
        examples: at most so many, the first ones; None = all.
        stride: every how manieth of them.
        keep_mistakes: whether to keep which of them are wrong.
        more: whether to compute the recipe's other metrics, too.
    """
    training = network.module.training
    network.module.eval()
    counted, outputs = Tally(recipe, keep_mistakes, more), outputs_of(recipe, network)
    shared = examples is None and network.ranks.size > 1
    batches = (share_of if shared else examples_of)(recipe, network, split, examples, stride=stride)
    measured = (counted.measured(outputs(x), y) for x, y in batches)
    for found in gathered(network, measured) if shared else measured:
        counted.count(found)
    network.module.train(training)
    return counted


def evaluate_network(
    recipe: Recipe, network: Network, split: Split, examples: int | None = None, more: bool = False
) -> Metrics:
    """The same as `evaluate` for a network on its device, over at most ``examples``; other metrics if asked for."""
    if recipe.loop is not None:
        return Metrics(*own_metrics(recipe, network, split, examples))
    return tally(recipe, network, split, examples, more=more).metrics()


def can_skip(recipe: Recipe) -> bool:
    """Whether the data can be read in strides: sets of ours can, and a subclass that evaluates as they do."""
    return getattr(type(recipe.arrays), "evaluation", None) in (Arrays.evaluation, ImageFolder.evaluation)


def examples_of(
    recipe: Recipe,
    network: Network,
    split: Split,
    examples: int | None = None,
    batch: int | None = None,
    stride: int = 1,
) -> Iterator[Batch]:
    """Batches of the first ``examples`` of a split, None = all, in their own order, on the network's device.

    With a ``stride`` every so manieth example of all, for data that `can_skip`.

    Raises:
        UsageError: for all examples of a stream, which has no end.
    """
    left = recipe.arrays.size(split) if examples is None else examples
    if left >= ENDLESS:
        raise UsageError(f"{recipe.arrays.name} is a stream without an end: say how many of its examples, examples=...")
    how: dict[str, Any] = {"stride": stride} if stride > 1 else {}
    for batch_ in recipe.arrays.to(network.device).evaluation(split, batch or eval_batch(recipe, network), **how):
        found = count(batch_)
        yield batch_ if found <= left else Batch(*(some(part, 0, left) for part in batch_))
        left -= found
        if left <= 0:
            return


def share_of(
    recipe: Recipe, network: Network, split: Split, examples: int | None = None, *, stride: int = 1
) -> Iterator[Batch]:
    """Those of the batches of `examples_of` that this process evaluates: every n-th, so that none is cut."""
    rank, size = network.ranks.rank, network.ranks.size
    data = recipe.arrays.to(network.device)
    if type(data) is not ImageFolder:
        return islice(examples_of(recipe, network, split, examples, stride=stride), rank, None, size)
    return data.evaluation(split, eval_batch(recipe, network), stride, (rank, size))  # no image is read for others


def gathered(network: Network, own: Iterable[Measured]) -> Iterator[Measured]:
    """What all processes have measured, in the order of the batches, so that sums are those of one process.

    Raises:
        WorkerError: if they did not evaluate the same weights.
    """
    ranks, cpu = network.ranks, torch.device("cpu")
    found = ranks.gathered([Measured(*moved(list(each), cpu)) for each in own])
    ranks.check_same("weights", digest(network.module.state_dict()))
    for together in zip_longest(*found):
        for each in together:
            if each is not None:
                yield each._replace(batch=None if each.batch is None else moved(each.batch, network.device))


def adds_up(recipe: Recipe) -> bool:
    """Whether loss and error of a split are known without all its outputs at once."""
    return not any(map(_needs_all, (Part(recipe.loss_function), Part(recipe.error_function))))


class Measured(NamedTuple):
    """Of one batch.

    Attributes:
        numbers: sum and weight of each part of a `Tally`, where it has them.
        wrong: which examples are wrong, if that is kept.
        batch: outputs and targets, if something needs them.
    """

    numbers: list[tuple[Any, Any] | None]
    wrong: Tensor | None
    batch: Batch | None


class Part:
    """One number of a split, from its batches: a sum over a weight, an object that counts, or a function of all.

    Args:
        objective: a loss, an error or a metric.
    """

    def __init__(self, objective: Objective | Metric) -> None:
        align = objective if isinstance(objective, OfPrediction) else None
        inner: Any = objective if align is None else align.objective
        metric = inner.metric if isinstance(inner, Error) else inner if isinstance(inner, Metric) else None
        self.finish: Callable[[float], float] = inner.metric.error if isinstance(inner, Error) else float
        self.align = None if align is None else align.aligned
        self.counter = None if metric is None else metric.counter()
        computed: Any = inner if metric is None else metric.compute
        self.objective: Any = computed if align is None else OfPrediction(computed, align.shift)
        self.totals = None if self.counter is not None else totals_of(self.objective)
        self.sum: Any = 0.0
        self.weight: Any = 0

    def measured(self, outputs: Any, y: Any) -> tuple[Any, Any] | None:
        """The sum and the weight of one batch; None of what is no sum."""
        if self.totals is None:
            return None
        total, weight = self.totals(outputs, y)
        return total.double(), weight

    def count(self, found: tuple[Any, Any] | None, batch: Batch | None) -> None:
        """Count one batch; of what needs all there is nothing to count."""
        if self.counter is not None:
            assert batch is not None
            self.counter.update(*batch if self.align is None else self.align(*batch))
        elif found is not None:
            self.sum, self.weight = self.sum + found[0], self.weight + found[1]

    def value(self, outputs: Any, y: Any) -> float:
        """The number; outputs and targets of all for what needs them."""
        if self.counter is not None:
            return self.finish(number(self.counter.compute()))
        if self.totals is None:
            return self.finish(number(self.objective(outputs, y)))
        return self.finish(float(self.sum / self.weight))


def _needs_all(part: Part) -> bool:
    return part.counter is None and part.totals is None


class Tally:
    """The recipe's loss and error over batches, which add up to their values for all outputs at once.

    What is a sum over a weight is added up, an object that counts is told; for anything else outputs and targets are
    gathered, on the CPU.
    """

    def __init__(self, recipe: Recipe, keep_mistakes: bool = False, more: bool = False) -> None:
        wrong = keep_mistakes and _plain(recipe.error_function) is misclassification
        self.wrong: list[Tensor] | None = [] if wrong else None
        self.read = recipe.read
        others = recipe.more_metrics if more else {}
        self.parts = {"loss": Part(recipe.loss_function), "error": Part(recipe.error_function)}
        self.others = {name: Part(recipe.of_prediction(metric)) for name, metric in others.items()}
        self.every = (*self.parts.values(), *self.others.values())
        self.gathers = any(map(_needs_all, self.every))
        self.tells = any(part.counter is not None for part in self.every)
        self.gathered: list[Batch] = []
        self.bytes, self.device = 0, torch.device("cpu")

    def add(self, outputs: Any, y: Any) -> None:
        """Count one batch of what the network returned."""
        self.count(self.measured(outputs, y))

    def measured(self, outputs: Any, y: Any) -> Measured:
        """What is to be counted of one batch of what the network returned."""
        outputs = self.read(outputs)
        return Measured(
            [part.measured(outputs, y) for part in self.every],
            None if self.wrong is None else wrong_predictions(outputs, y),
            Batch(outputs, y) if self.gathers or self.tells else None,
        )

    def count(self, found: Measured) -> None:
        """Count one batch; the order of batches has a part in the last bits."""
        for part, numbers in zip(self.every, found.numbers, strict=True):
            part.count(numbers, found.batch)
        if self.gathers:
            assert found.batch is not None
            self._gather(*found.batch)
        if self.wrong is not None:
            if found.wrong is None:
                self.wrong = None
            else:
                self.wrong.append(found.wrong)

    @property
    def mistakes(self) -> Mistakes | None:
        """Which examples are wrong, if that was to be kept and each of them is one prediction."""
        return Mistakes.of(torch.cat(self.wrong)) if self.wrong else None

    def _gather(self, outputs: Any, y: Any) -> None:
        parts = [leaf for leaf in flatten((outputs, y)) if isinstance(leaf, Tensor)]
        self.device = parts[-1].device if parts else self.device
        self.gathered.append(moved(Batch(outputs, y), torch.device("cpu")))
        self.bytes += sum(leaf.nbytes for leaf in parts)
        if self.bytes > GATHERED_BYTES:
            raise UsageError(
                f"The value of a loss or error of your own is computed from all outputs of a split at once, and these "
                f"take more than {GATHERED_BYTES >> 30} GB. If it is a mean, say of what: "
                "lotto.recipe.totals.Ratio(function that returns its sum and its weight)."
            )

    def metrics(self) -> Metrics:
        """Loss and error of all that was counted."""
        whole = joined(self.gathered) if self.gathered else Batch(None, None)
        outputs, y = moved(whole, self.device)
        found = Metrics(**{name: part.value(outputs, y) for name, part in self.parts.items()})
        if self.others:
            found.more = {name: part.value(outputs, y) for name, part in self.others.items()}
        return found


def _plain(error: Objective) -> Objective:
    return error.objective if isinstance(error, OfPrediction) else error


def number(value: Any) -> float:
    """What a loss or an error returned, as a number.

    Raises:
        UsageError: if it is not one.
    """
    count = value.numel() if isinstance(value, Tensor) else np.size(value)
    if count != 1:
        raise UsageError(
            f"A loss or an error gives one number for all the outputs that it is given; got {count}, of shape "
            f"{tuple(getattr(value, 'shape', (count,)))}. Take their mean (reduction='mean')."
        )
    return float(value.detach() if isinstance(value, Tensor) else value)
