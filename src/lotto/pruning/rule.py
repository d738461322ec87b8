"""Pruning = score x allocation x pattern x count: which weights matter, how many each layer keeps, in which sets.

Exactly ``round(rate * remaining)`` weights are removed; of equal scores the one that comes first (in the
order of the model, then of its memory) is kept; the new mask is a subset of the old one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from lotto.core.check import Fraction, checked
from lotto.core.errors import UsageError, text
from lotto.core.weights import Weights, first_non_finite
from lotto.pruning import masks
from lotto.pruning.allocation import ALLOCATIONS, Allocation, allocated, check_allocation, keep_count
from lotto.pruning.context import Context
from lotto.pruning.masks import Mask, MaskLike, layer_of
from lotto.pruning.patterns import Pattern, Unstructured
from lotto.pruning.prunable import matches, near
from lotto.pruning.scores import Score, checked_scores, score_function, scores_of
from lotto.pruning.structured import named_pattern

SCOPES = ALLOCATIONS
"""What allocations were called."""
DEFAULT_RATE = 0.2


@checked
@dataclass(frozen=True)
class Pruning:
    """How a recipe prunes.

    Attributes:
        rate: fraction of the remaining weights removed per level, between 0 and 1.
        score: ``magnitude``, ``random``, ``magnitude-increase``, the name of an installed package's, or a function of
            a context or of (weight, start, generator): see `ContextScore` and `LayerScore`.
        allocation: ``global`` compares raw scores across layers; ``layer`` removes the same fraction of each;
            ``erk`` leaves layer densities proportional to (fan-in + fan-out + kernel) / size; or a function of
            (mask, total) to how many weights each layer keeps, which add up to ``total``. Its old name is ``scope``.
        rates: layers with a rate of their own, which leave the common pool (0 keeps a layer as it is), by patterns as
            in ``exclude``; of several that fit a weight the last holds.
        exclude: layers that are never pruned and do not count in the density: patterns (`fnmatch`) of layers, modules
            or parameters, such as ``fc``, ``encoder``, ``*.out_proj``. What is excluded is not examined.
        include: patterns of matrices that are pruned beside those of linear, convolution, recurrent and attention
            layers: embeddings, parameters of modules of one's own, frozen ones. ``exclude`` comes before it.
        pattern: which sets of weights may be left: ``2:4`` and the like (`NByM`), ``channel``, ``block:4x1``, an object
            of these, or one of your own, see `Pattern`; by default any.

    >>> Pruning(0.5, allocation="layer").scope
    'layer'
    """

    rate: Fraction = DEFAULT_RATE
    score: str | Score = "magnitude"
    allocation: str | Allocation = "global"
    rates: Mapping[str, float] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    pattern: Pattern | str = field(default_factory=Unstructured)

    def __post_init__(self) -> None:
        check_rate(self.rate)
        for what in ("exclude", "include"):
            object.__setattr__(self, what, patterns(getattr(self, what), what))
        if not isinstance(self.rates, Mapping):
            raise UsageError(f"rates are given by layer, such as {{'fc3': 0.1}}; got {text(self.rates)}.")
        score_function(self.score)
        check_allocation(self.allocation)
        object.__setattr__(self, "pattern", named_pattern(self.pattern))
        for name, rate in self.rates.items():
            if rate != 0:
                check_rate(rate, f"the rate of {name!r}")

    @property
    def scope(self) -> str | Allocation:
        """The old name of ``allocation``."""
        return self.allocation

    def __hash__(self) -> int:
        rates = tuple(self.rates.items())
        return hash((self.rate, self.score, self.allocation, rates, self.exclude, self.include))

    def __repr__(self) -> str:
        # Texts of results name what was pruned: they stay as they were, and have what came later where it is used.
        later = {"include": self.include, "pattern": self.pattern != Unstructured()}
        shown = [(f.name, getattr(self, f.name)) for f in fields(self) if later.get(f.name, True)]
        names = {"allocation": "scope"}
        return f"Pruning({', '.join(f'{names.get(name, name)}={value!r}' for name, value in shown)})"


def _with_scope(init: Any) -> Any:
    """The constructor, which takes ``scope`` for ``allocation`` as well."""

    @functools.wraps(init)
    def __init__(self: Pruning, *args: Any, **named: Any) -> None:
        if "scope" in named:  # before the other, which `dataclasses.replace` gives as it was
            named["allocation"] = named.pop("scope")
        init(self, *args, **named)

    return __init__


Pruning.__init__ = _with_scope(Pruning.__init__)  # type: ignore[method-assign]


def one_of(allocation: Any, scope: Any) -> Any:
    """An allocation that was given under its name or its old one; raises ``UsageError`` for both."""
    if allocation is not None and scope is not None:
        raise UsageError(f"scope is the old name of allocation: give one; got {text(allocation)} and {text(scope)}.")
    return scope if allocation is None else allocation


def patterns(value: object, what: str) -> tuple[str, ...]:
    """One pattern or several as a tuple; raises ``UsageError`` for anything else."""
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(isinstance(p, str) and p for p in given):
        raise UsageError(f"{what} is a name or pattern, or several, such as ('fc', 'encoder.*'); got {text(value)}.")
    return tuple(sorted(given) if isinstance(given, (set, frozenset)) else given)


def check_rate(rate: float, what: str = "the pruning rate") -> None:
    """Raise ``UsageError`` unless 0 < rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        raise UsageError(f"{what[0].upper()}{what[1:]} must be greater than 0 and less than 1; got {text(rate)}.")


@checked
def prune(
    weights: Weights,
    mask: MaskLike,
    rate: Fraction | None = None,
    score: str | Score | Mapping[str, Tensor] = "magnitude",
    scope: str | Allocation | None = None,
    rates: Mapping[str, float] | None = None,
    *,
    density: float | None = None,
    allocation: str | Allocation | None = None,
    pattern: Pattern | str | None = None,
    start: Weights | None = None,
    seed: int = 0,
) -> Mask:
    """Remove the lowest-scored of what the mask still keeps: a fraction, or down to a density.

    Args:
        weights: trained weights; must hold every name of the mask.
        mask: what is kept now.
        rate: fraction of the remaining weights to remove; default 0.2.
        score: a name, a function (see `Pruning`), or scores that have been computed, by the names of the mask.
        scope: the old name of ``allocation``.
        rates: rates of single layers, by layer or weight name.
        density: fraction of the prunable weights to keep, instead of ``rate``: exactly ``round(density * size)``.
        allocation: ``global`` (the default), ``layer``, ``erk`` or a function (see `Pruning`).
        pattern: which sets of weights may be left (see `Pruning`); default any.
        start: weights at the rewind point, for scores that use them.
        seed: for scores that draw random numbers.

    Returns:
        The new mask, a subset of ``mask`` with exactly ``round(rate * remaining)`` weights fewer (per layer
        where layers have their own rate).

    Raises:
        UsageError: if a rate is not between 0 and 1, a name is unknown, the mask does not fit, a score is NaN, has
            no such layer or another shape, or reads the network (see `Context`); if the density is above the present.

    >>> weights = {"fc.weight": torch.tensor([[0.1, -3.0], [2.0, 0.2]])}
    >>> mask = {"fc.weight": torch.ones(2, 2, dtype=torch.bool)}
    >>> prune(weights, mask, density=0.5)["fc.weight"].tolist()
    [[False, True], [True, False]]
    """
    if rate is not None and density is not None:
        raise UsageError(f"Give a rate or a density, not both; got rate={rate} and density={density}.")
    given = score if isinstance(score, Mapping) else None
    rule = Pruning(
        DEFAULT_RATE if rate is None else rate, "magnitude" if isinstance(score, Mapping) else score,
        one_of(allocation, scope) or "global", rates or {}, pattern=pattern or Unstructured(),
    )  # fmt: skip
    return prune_by(rule, weights, mask, density=density, start=start, seed=seed, scores=given)


def prune_by(
    rule: Pruning,
    weights: Weights,
    mask: MaskLike,
    *,
    density: float | None = None,
    start: Weights | None = None,
    seed: int = 0,
    scores: Mapping[str, Tensor] | None = None,
) -> Mask:
    """`prune` by a recipe's rule; ``scores`` are those that have been computed."""
    mask = Mask({n: m.detach().cpu() for n, m in mask.items()}, getattr(mask, "shared", None))
    context = context_of(weights, mask, start, seed)
    kept, pool, pooled = _asked(rule, mask, density)
    left = _left(mask, kept, pooled)
    scores = scores_of(rule.score, context, left) if scores is None else checked_scores(scores, mask, "given")
    result = dict(_kept(rule.pattern, scores, kept, {n: mask[n] for n in kept})) if kept else {}
    if pool:
        result |= _kept(rule.pattern, scores, pooled, pool)
    return Mask({n: result[n] for n in mask}, mask.shared)


def _asked(rule: Pruning, mask: Mask, density: float | None) -> tuple[dict[str, int], Mask, int | Mapping[str, int]]:
    """How many weights the layers with rates of their own keep, what the others have, and how many of that is kept."""
    own = _own_rates(rule.rates, list(mask))
    pool = Mask({n: m for n, m in mask.items() if n not in own})
    kept = {n: keep_count(int(mask[n].sum()), r) for n, r in own.items()}
    return kept, pool, _counts(rule, mask, pool, sum(kept.values()), density) if pool else 0


def left_by(rule: Pruning, mask: Mask) -> float:
    """The share of all prunable weights that a cut by a rule leaves.

    >>> left_by(Pruning(0.5), Mask({"fc.weight": torch.ones(4, 5, dtype=torch.bool)}))
    0.5
    """
    kept, _, pooled = _asked(rule, mask, None)
    return _left(mask, kept, pooled)


def _left(mask: Mask, kept: Mapping[str, int], pooled: int | Mapping[str, int]) -> float:
    left = sum(kept.values()) + (pooled if isinstance(pooled, int) else sum(pooled.values()))
    return left / masks.size(mask) if masks.size(mask) else 1.0  # of nothing nothing goes


def context_of(weights: Weights, mask: Mask, start: Weights | None, seed: int, measurements: Any = None) -> Context:
    """What a score is given; raises ``UsageError`` unless weights and start fit the mask and are finite."""
    masks.check_fits(mask, weights)
    if start is not None:
        masks.check_fits(mask, start)
    weights = {n: weights[n].detach().cpu() for n in mask}
    start = None if start is None else {n: start[n].detach().cpu() for n in mask}
    if (bad := first_non_finite(weights)) is not None:
        raise UsageError(f"Cannot prune: the weights of {bad!r} hold NaN or infinity.")
    return Context(weights, mask, start, seed, measurements)


def _counts(rule: Pruning, mask: Mask, pool: Mask, kept: int, density: float | None) -> int | Mapping[str, int]:
    """How many weights of the common pool are kept."""
    if density is None and rule.allocation == "layer":
        return {n: keep_count(int(m.sum()), rule.rate) for n, m in pool.items()}
    if density is None:
        return allocated(rule.allocation, pool, keep_count(masks.count(pool), rule.rate))
    if not 0 < density < 1:
        raise UsageError(f"A density is greater than 0 and less than 1; got {density!r}.")
    total = round(density * masks.size(mask)) - kept
    if not 0 <= total <= masks.count(pool):
        raise UsageError(
            f"Cannot prune to a density of {density:g}, {total + kept} weights: layers with rates of their own keep "
            f"{kept}, and the others have {masks.count(pool)} left."
        )
    return allocated(rule.allocation, pool, total)


def _kept(pattern: Pattern | str, scores: Mapping[str, Tensor], counts: Any, within: Mapping[str, Tensor]) -> Mask:
    """What a pattern keeps; raises ``UsageError`` if that is more than there was."""
    pattern = named_pattern(pattern)
    found = Mask(pattern.keep(scores, counts, within))
    if type(pattern) is Unstructured:  # ours: that is so
        return found
    if set(found) != set(within) or any(bool((found[n] & ~m).any()) for n, m in within.items()):
        raise UsageError(f"The pattern {text(pattern)} keeps weights that were pruned, or leaves out a layer.")
    return found


def _own_rates(rates: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    own: dict[str, float] = {}
    for pattern, rate in rates.items():
        found = [name for name in names if matches(name, pattern)]
        if not found:
            layers = [layer_of(name) for name in names]
            raise UsageError(
                f"A rate is given for {text(pattern)}, which is no prunable layer. {near(pattern, layers)}"
            )
        own |= dict.fromkeys(found, rate)
    return own
