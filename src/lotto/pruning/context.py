"""What a score of a whole network may read: weights, start, mask, random numbers; derivatives, activations, data.

Weights and masks are all that pruning itself knows. What needs the network and its data is a `Measurements`, which
`lotto.lottery.scoring` makes of a recipe; without it such a question raises `NeedsNetworkError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.core.weights import Weights


class NeedsNetworkError(UsageError):
    """A score asked for what takes a network and its data where there are weights alone."""


class Measurements(Protocol):
    """The part of a `Context` that takes a network and its data; each is described there."""

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The recipe's loss."""

    @property
    def batches(self) -> Iterable[tuple[Any, Any]]:
        """Training batches."""

    def gradients(self, examples: int | None) -> dict[str, Tensor]:
        """Of the mean loss."""

    def hvp(self, vector: Mapping[str, Tensor], examples: int | None) -> dict[str, Tensor]:
        """The Hessian's product."""

    def activations(self) -> Iterator[dict[str, Tensor]]:
        """Inputs of the layers."""


@dataclass(frozen=True, eq=False)
class Context:
    """What a score of a whole network is given.

    All dicts are by the names of the prunable weights, all tensors have the weight's shape, on the CPU. A score that
    reads ``weights``, ``start``, ``mask`` and ``generator`` alone is computed at once; one that asks for any of the
    rest is a computation that the store remembers.

    Attributes:
        weights: the trained weights; pruned ones are 0.
        mask: what is kept now.
        seed: of the random numbers, and of the order of ``batches``.

    >>> def lamp(context):  # one line of Lee et al., 2010.07611
    ...     return {name: w.square() / w.square().sum() for name, w in context.weights.items()}
    """

    weights: Weights
    mask: Mapping[str, Tensor]
    rewound: Weights | None = None
    seed: int = 0
    measurements: Measurements | None = None

    @property
    def start(self) -> Weights:
        """The weights at the rewind point; raises ``UsageError`` where none were given."""
        if self.rewound is None:
            raise UsageError("The score reads the weights at the rewind point, which were not given: start=...")
        return self.rewound

    def generator(self, name: str) -> np.random.Generator:
        """The random numbers of a layer: the same for the same seed and name, whatever was drawn elsewhere."""
        return stream(self.seed, f"score:{name}")

    @property
    def model(self) -> nn.Module:
        """The network with all its weights, masked, in evaluation mode, on the recipe's device; yours to change."""
        return self._measured.model

    @property
    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The recipe's loss, a function of outputs and targets."""
        return self._measured.loss

    @property
    def batches(self) -> Iterable[tuple[Any, Any]]:
        """Training batches (inputs, targets) of one epoch in the data order ``seed``, not augmented, on the device."""
        return self._measured.batches

    def gradients(self, examples: int | None = None) -> dict[str, Tensor]:
        """The gradient of the mean training loss, in evaluation mode, in float64; 0 for pruned weights.

        Args:
            examples: over the first so many training examples; None = all.
        """
        return self._measured.gradients(examples)

    def hvp(self, vector: Mapping[str, Tensor], examples: int | None = None) -> dict[str, Tensor]:
        """The Hessian of the same loss over the kept weights times a vector, in float64; 0 for pruned weights."""
        return self._measured.hvp(vector, examples)

    def activations(self) -> Iterator[dict[str, Tensor]]:
        """For each of ``batches``, the inputs of the layers by the names of their weights, examples first.

        Those of a layer that is called several times follow one another.
        """
        return self._measured.activations()

    @property
    def _measured(self) -> Measurements:
        if self.measurements is None:
            raise NeedsNetworkError(
                "The score reads the network or its data, and there are weights alone: give it to lotto.imp(recipe, "
                "score=...), or prune by what lotto.lottery.score_weights(recipe, weights, mask, score) gives."
            )
        return self.measurements
