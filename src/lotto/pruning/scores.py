"""Scores: which weights matter, layer by layer or from all that a network knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, cast

import numpy as np
import torch
from torch import Tensor

from lotto.core import registry
from lotto.core.check import Kind, Unfit
from lotto.core.errors import LottoError, UsageError, nearest, text
from lotto.core.rng import stream
from lotto.core.weights import Weights
from lotto.pruning.at_init import grasp, snip, synflow
from lotto.pruning.context import Context

LayerScore = Callable[[Tensor, "Tensor | None", np.random.Generator], Tensor]
"""A score of one layer: (trained weight, its value at the rewind point or None, a generator of its own) to a
tensor of the same shape; the weights with the lowest scores are removed."""
ContextScore = Callable[..., Mapping[str, Tensor]]
"""A score of a whole network: its `Context` to a tensor of the weight's shape for every prunable weight, by name. One
that has an argument ``density`` with a default is told which share of all prunable weights the cut will leave."""


DENSITY = "density"
"""The argument of a score that prunes in rounds of its own."""


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether a score is one of a whole network. Of what could be both, the first argument's name decides: context."""
    if not _takes(function, 1):
        return False
    return not _takes(function, 3) or next(iter(inspect.signature(function).parameters), "") == "context"


def reads_density(score: str | Score) -> bool:
    """Whether a score of a whole network asks for the density that it is to prune to."""
    function = score_function(score)
    return takes_context(function) and DENSITY in inspect.signature(function).parameters


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except ValueError:  # of some built-in functions nothing is known
        return count == 3
    except TypeError:
        return False
    return True


def _read(value: Any) -> Any:
    if callable(value) and (_takes(value, 1) or _takes(value, 3)):
        return value
    raise Unfit


Score = Annotated[
    LayerScore | ContextScore, Kind("a function of one context, or of (weight, start, generator)", _read, "", "scores")
]
"""Either."""

Scores = Mapping[str, Tensor]
ENTRY_POINTS = "lotto.scores"


def magnitude(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w|: the papers' criterion.

    >>> magnitude(torch.tensor([1.0, -2.0]), None, np.random.default_rng(0)).tolist()
    [1.0, 2.0]
    """
    return weight.abs()


def random(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """A random order.

    >>> random(torch.ones(2, 3), None, np.random.default_rng(0)).shape
    torch.Size([2, 3])
    """
    return torch.from_numpy(generator.random(tuple(weight.shape), dtype=np.float64))


def magnitude_increase(weight: Tensor, start: Tensor | None, generator: np.random.Generator) -> Tensor:
    """|w| - |w at the rewind point|: keeps the weights that grew (Zhou et al., 1905.01067).

    >>> magnitude_increase(torch.tensor([1.0, -2.0]), torch.tensor([-3.0, 0.5]), np.random.default_rng(0)).tolist()
    [-2.0, 1.5]
    """
    if start is None:
        raise UsageError("The score 'magnitude-increase' needs the weights at the rewind point: start=...")
    return weight.abs() - start.abs()


SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "magnitude-increase": magnitude_increase,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
}
"""By name."""
_DRAWLESS = (magnitude, magnitude_increase)
"""Of these, those that take no numbers: opening a generator for each of many small layers takes longer than pruning."""
_NO_NUMBERS = np.random.default_rng(0)


def score_function(score: str | Score) -> Score:
    """A score by its name, that of an installed package's, or ``package.module:function``; a function is itself.

    Raises:
        UsageError: if there is none of that name, or it is no function of a context or of (weight, start, generator).

    >>> score_function("magnitude").__name__
    'magnitude'
    """
    function = registry.find("score", score, SCORES, ENTRY_POINTS) if isinstance(score, str) else score
    try:
        return cast(Score, _read(function))
    except Unfit:
        raise UsageError(
            f"A score is a function of one context, or of (weight, start, generator); {text(score)} is "
            f"{text(function)}."
        ) from None


def score_name(score: object) -> str:
    """What a score, or another choice that is a name or a function, is called in results and sentences."""
    return score if isinstance(score, str) else str(getattr(score, "__qualname__", repr(score)))


def scores_of(score: str | Score, context: Context, density: float | None = None) -> Scores:
    """The scores of every weight of a mask; ``density`` is for those that prune in rounds, see `ContextScore`.

    Raises:
        NeedsNetworkError: if the score reads the network or its data, and the context has neither.
        UsageError: if it fails, leaves a layer out, has a wrong shape, or is NaN for a weight that is kept.
    """
    function = score_function(score)
    if not takes_context(function):
        start = context.rewound
        return {n: score_layer(function, n, context.weights[n], start, context.seed) for n in context.mask}
    name = score_name(score)
    told = {DENSITY: density} if reads_density(score) else {}
    try:
        found = cast(ContextScore, function)(_own_copy(context), **told)
    except LottoError:
        raise
    except Exception as error:  # whatever a user's function may raise
        raise UsageError(
            f"The score {name!r} cannot be computed: {type(error).__name__}, {text(str(error))}. It is a function of "
            "one context (see lotto.pruning.Context)."
        ) from error
    return checked_scores(found, context.mask, name)


def _own_copy(context: Context) -> Context:
    """The context with tensors that are the score's own, whatever it does with them, and pruned weights 0."""
    start = None if context.rewound is None else {name: t.clone() for name, t in context.rewound.items()}
    weights = {n: t.masked_fill(~context.mask[n], 0.0) for n, t in context.weights.items()}
    return replace(context, weights=weights, rewound=start)


def checked_scores(found: object, mask: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The scores on the CPU; raises ``UsageError`` unless they are numbers for every weight that a mask keeps."""
    if not isinstance(found, Mapping):
        raise UsageError(
            f"A score of a context returns a dict of tensors by name, one for each of {', '.join(mask)}; {name!r} "
            f"returned {text(found)}."
        )
    if (extra := next((n for n in found if n not in mask), None)) is not None:
        raise UsageError(f"The score {name!r} has {text(extra)}, which is no prunable weight. {nearest(extra, mask)}")
    result = {}
    for weight, keep in mask.items():
        if weight not in found:
            raise UsageError(f"The score {name!r} has nothing for {weight!r}; it returned {', '.join(found) or '{}'}.")
        result[weight] = _checked(found[weight], keep, weight, name)
    return result


def _checked(score: object, keep: Tensor, weight: str, name: str) -> Tensor:
    shape = tuple(keep.shape)
    if not isinstance(score, Tensor) or tuple(score.shape) != shape or score.is_complex():
        got = f"{score.dtype} of shape {tuple(score.shape)}" if isinstance(score, Tensor) else text(score)
        raise UsageError(
            f"A score is a tensor of real numbers of the weight's shape {shape}; for {weight!r}, {name!r} has {got}."
        )
    score = score.detach().cpu()
    if bad := int(torch.isnan(score[keep]).sum()):
        raise UsageError(f"The score {name!r} is NaN for {bad} of the {int(keep.sum())} weights kept of {weight!r}.")
    return score


def score_layer(score: str | Score, name: str, weight: Tensor, start: Weights | None, seed: int) -> Tensor:
    """The scores of one layer by a score's name or function; raises ``UsageError`` unless they have its shape."""
    function = SCORES[score] if isinstance(score, str) else score
    try:
        generator = _NO_NUMBERS if function in _DRAWLESS else stream(seed, f"score:{name}")
        result = function(weight, None if start is None else start[name], generator)
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
