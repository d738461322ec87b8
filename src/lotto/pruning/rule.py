"""Pruning = score x scope x count: which weights matter, compared with which others, and how many go.

Exactly ``round(rate * remaining)`` weights are removed; of equal scores the one that comes first (in the
order of the model, then of its memory) is kept; the new mask is a subset of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from lotto.core.check import Fraction, checked
from lotto.core.errors import UsageError, text, unknown
from lotto.core.weights import Weights, first_non_finite
from lotto.pruning import masks
from lotto.pruning.allocation import erk_counts, keep_count, keep_top
from lotto.pruning.masks import Mask, MaskLike, layer_of
from lotto.pruning.prunable import matches, near
from lotto.pruning.scores import SCORES, Score, score_layer

SCOPES = ("global", "layer", "erk")


@checked
@dataclass(frozen=True)
class Pruning:
    """How a recipe prunes.

    Attributes:
        rate: fraction of the remaining weights removed per level, between 0 and 1.
        score: ``magnitude``, ``random``, ``magnitude-increase`` or a function (see `Score`).
        scope: ``global`` compares raw scores across layers; ``layer`` removes the same fraction of each;
            ``erk`` leaves layer densities proportional to (fan-in + fan-out + kernel) / size.
        rates: layers with a rate of their own, which leave the common pool (0 keeps a layer as it is), by patterns as
            in ``exclude``; of several that fit a weight the last holds.
        exclude: layers that are never pruned and do not count in the density: patterns (`fnmatch`) of layers, modules
            or parameters, such as ``fc``, ``encoder``, ``*.out_proj``. What is excluded is not examined.
        include: patterns of matrices that are pruned beside those of linear, convolution, recurrent and attention
            layers: embeddings, parameters of modules of one's own, frozen ones. ``exclude`` comes before it.
    """

    rate: Fraction = 0.2
    score: str | Score = "magnitude"
    scope: str = "global"
    rates: Mapping[str, float] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_rate(self.rate)
        for what in ("exclude", "include"):
            object.__setattr__(self, what, patterns(getattr(self, what), what))
        if not isinstance(self.rates, Mapping):
            raise UsageError(f"rates are given by layer, such as {{'fc3': 0.1}}; got {text(self.rates)}.")
        if not isinstance(self.score, str) and not callable(self.score):
            raise UsageError(f"score is a name or a function; got {text(self.score)}.")
        if isinstance(self.score, str) and self.score not in SCORES:
            raise unknown("score", self.score, SCORES)
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES)
        for name, rate in self.rates.items():
            if rate != 0:
                check_rate(rate, f"the rate of {name!r}")

    def __hash__(self) -> int:
        return hash((self.rate, self.score, self.scope, tuple(self.rates.items()), self.exclude, self.include))

    def __repr__(self) -> str:
        # Texts of results name what was pruned: those without `include` stay as they were.
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "include" or self.include}
        return f"Pruning({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


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
    rate: Fraction = 0.2,
    score: str | Score = "magnitude",
    scope: str = "global",
    rates: Mapping[str, float] | None = None,
    *,
    start: Weights | None = None,
    seed: int = 0,
) -> Mask:
    """Remove the lowest-scored fraction of what the mask still keeps.

    Args:
        weights: trained weights; must hold every name of the mask.
        mask: what is kept now.
        rate: fraction of the remaining weights to remove.
        score: a name in `SCORES` or a function (see `Score`).
        scope: ``global``, ``layer`` or ``erk`` (see `Pruning`).
        rates: rates of single layers, by layer or weight name.
        start: weights at the rewind point, for scores that use them.
        seed: for scores that draw random numbers.

    Returns:
        The new mask, a subset of ``mask`` with exactly ``round(rate * remaining)`` weights fewer (per layer
        where layers have their own rate).

    Raises:
        UsageError: if a rate is not between 0 and 1, a name is unknown, the mask does not fit, or a score
            is NaN.
    """
    rule = Pruning(rate, score, scope, rates or {})
    mask = Mask({n: m.detach().cpu() for n, m in mask.items()}, getattr(mask, "shared", None))
    masks.check_fits(mask, weights)
    if start is not None:
        masks.check_fits(mask, start)
    weights = {n: weights[n].detach().cpu() for n in mask}
    start = None if start is None else {n: start[n].detach().cpu() for n in mask}
    if (bad := first_non_finite({n: weights[n] for n in mask})) is not None:
        raise UsageError(f"Cannot prune: the weights of {bad!r} hold NaN or infinity.")
    scores = {name: score_layer(rule.score, name, weights[name], start, seed) for name in mask}
    own = _own_rates(rule.rates, list(mask))
    pool = {n: m for n, m in mask.items() if n not in own}
    kept = {n: keep_count(int(mask[n].sum()), r) for n, r in own.items()}
    result = dict(keep_top(scores, kept, within={n: mask[n] for n in own}))
    if pool:
        counts: int | dict[str, int]
        if rule.scope == "layer":
            counts = {n: keep_count(int(m.sum()), rate) for n, m in pool.items()}
        else:
            total = keep_count(masks.count(pool), rate)
            counts = erk_counts(pool, total) if rule.scope == "erk" else total
        result |= keep_top(scores, counts, within=pool)
    return Mask({n: result[n] for n in mask}, mask.shared)


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
