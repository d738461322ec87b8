"""Scores: which weights of a layer matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from lotto.core.errors import LottoError, UsageError, text
from lotto.core.rng import stream
from lotto.core.weights import Weights

Score = Callable[[Tensor, "Tensor | None", np.random.Generator], Tensor]
"""A score of one layer: (trained weight, its value at the rewind point or None, a generator of its own) to a
tensor of the same shape; the weights with the lowest scores are removed."""

Scores = Mapping[str, Tensor]


def magnitude(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w|: the papers' criterion."""
    return weight.abs()


def random(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """A random order."""
    return torch.from_numpy(generator.random(tuple(weight.shape), dtype=np.float64))


def magnitude_increase(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w| - |w at the rewind point|: keeps the weights that grew (Zhou et al., 1905.01067)."""
    if start is None:
        raise UsageError("The score 'magnitude-increase' needs the weights at the rewind point: start=...")
    return weight.abs() - start.abs()


SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "magnitude-increase": magnitude_increase,
}
"""By name."""


def score_layer(score: str | Score, name: str, weight: Tensor, start: Weights | None, seed: int) -> Tensor:
    """The scores of one layer by a score's name or function; raises ``UsageError`` unless they have its shape."""
    function = SCORES[score] if isinstance(score, str) else score
    try:
        result = function(weight, None if start is None else start[name], stream(seed, f"score:{name}"))
    except LottoError:
        raise
    except Exception as error:  # whatever a user's function may raise
        raise UsageError(
            f"The score of {text(name)} cannot be computed: {type(error).__name__}, {text(str(error))}. A score is a "
            "function of (weight, start, generator)."
        ) from error
    if not isinstance(result, Tensor) or result.shape != weight.shape:
        raise UsageError(
            f"A score function returns a tensor of the weight's shape {tuple(weight.shape)}; "
            f"for {name!r} it returned {getattr(result, 'shape', type(result).__name__)}."
        )
    return result
