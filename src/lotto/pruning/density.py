"""Schedules of densities: how much is left after each level of pruning.

A schedule has one method, `DensitySchedule.next_cut`: the cut that follows a level, or None where it ends. A schedule
of one's own is a subclass with that method:

    >>> class Steady(DensitySchedule):  # a tenth of all weights at each level
    ...     def next_cut(self, rule, mask, level):
    ...         return to_density(rule, mask, 1 - 0.1 * (level + 1)) if level < 9 else None
    >>> densities_of(Steady(), Pruning(), masks.Mask({"fc.weight": torch.ones(50, 2, dtype=torch.bool)}))[:3]
    [0.9, 0.8, 0.7]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lotto.core import registry
from lotto.core.check import Fraction, checked
from lotto.core.errors import UsageError, text
from lotto.pruning import masks
from lotto.pruning.allocation import keep_count
from lotto.pruning.masks import MaskLike
from lotto.pruning.prunable import matches
from lotto.pruning.rule import Pruning, prune_by

MAX_LEVELS = 200
"""No more levels than this are tried."""
DEFAULT_LEVELS = 16
LARGEST_CUT = 0.9
"""Share of what is left that `Adaptive` tries at most."""
WITHIN = 1 + 1e-6
"""A density is reached if it is at most the target times this."""
LEAST_RATE = 1e-12
"""Of a cut that takes nothing from the layers without a rate of their own: a rate is not 0."""


@dataclass(frozen=True)
class ShortOptions:
    """What a schedule with a name is made from: the options of `lotto.imp` that say how far and how fast it goes."""

    rate: float | None = None
    levels: int | None = None
    density: float | None = None


class DensitySchedule(ABC):
    """How much is left after each level.

    Attributes:
        levels: how many levels it has; None: as many as `next_cut` gives.

    >>> class Halving(DensitySchedule):
    ...     def next_cut(self, rule, mask, level):
    ...         return replace(rule, rate=0.5) if level < 2 else None
    >>> densities_of(Halving(), Pruning(), masks.Mask({"fc.weight": torch.ones(4, 5, dtype=torch.bool)}))
    [0.5, 0.25]
    """

    levels: int | None = None

    @classmethod
    def check_options(cls, short: ShortOptions) -> None:
        """Raise ``UsageError`` if the short options do not make such a schedule, before any recipe is known."""
        if short.levels is not None and short.density is not None:
            raise UsageError("Give either levels or a target density, not both.")

    @classmethod
    def of_options(cls, short: ShortOptions, rule: Pruning, mask: MaskLike) -> DensitySchedule:
        """Such a schedule from the short options, of a class that has a name.

        Args:
            short: what is given.
            rule: the recipe's pruning.
            mask: of the dense network.
        """
        raise UsageError(f"{cls.__name__} is made in Python: schedule={cls.__name__}(...).")

    @abstractmethod
    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The cut that follows a level.

        Args:
            rule: the recipe's pruning: its rate, where the schedule has none, and the rates of single layers.
            mask: what the level has left, by weight name.
            level: its number; 0 is the dense network.

        Returns:
            The rule with the rate of this cut; None where the schedule ends.

        Raises:
            UsageError: if what the schedule asks for cannot be cut from the mask.
        """

    def __repr__(self) -> str:
        # Results say it of themselves: it is the same text in every process.
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@checked
@dataclass(frozen=True)
class Geometric(DensitySchedule):
    """The same fraction of what is left at every level: exactly ``round(rate * remaining)`` weights (STAB, section 2).

    Attributes:
        rate: that fraction; default the recipe's.
        levels: how many levels.

    >>> Geometric(0.2, levels=16)
    Geometric(rate=0.2, levels=16)
    """

    rate: Fraction | None = None
    levels: int = DEFAULT_LEVELS

    def __post_init__(self) -> None:
        check_levels(self.levels)

    @classmethod
    def of_options(cls, short: ShortOptions, rule: Pruning, mask: MaskLike) -> DensitySchedule:
        """So many levels, or until a density is left."""
        if short.density is not None:
            return ToDensity(short.density, short.rate)
        return cls(short.rate, short.levels or DEFAULT_LEVELS)

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The rule with the rate."""
        return _at_rate(rule, self.rate) if level < self.levels else None


@checked
@dataclass(frozen=True)
class ToDensity(DensitySchedule):
    """Geometric until at most a density is left.

    Attributes:
        density: fraction of the prunable weights.
        rate: fraction of the remaining weights that each level removes; default the recipe's.

    >>> ToDensity(0.05)
    ToDensity(density=0.05, rate=None)
    """

    density: float
    rate: Fraction | None = None
    levels: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_target(self.density)

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The rule with the rate, as long as more is left than the density."""
        return None if masks.density(mask) <= self.density * WITHIN else _at_rate(rule, self.rate)


@checked
@dataclass(frozen=True)
class OneShot(DensitySchedule):
    """A single cut.

    Attributes:
        density: exactly ``round(density * size)`` weights are left.
        like_levels: instead: as much is cut as so many levels of the recipe's rate would.

    >>> OneShot(0.1).levels
    1
    """

    density: float | None = None
    like_levels: int | None = None
    levels: int = field(default=1, init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.density is None) == (self.like_levels is None):
            raise UsageError("OneShot takes either a density or like_levels, a number of levels: OneShot(0.1).")
        if self.density is not None:
            check_target(self.density)
        if self.like_levels is not None:
            check_levels(self.like_levels)

    @classmethod
    def of_options(cls, short: ShortOptions, rule: Pruning, mask: MaskLike) -> OneShot:
        """As much as the levels, or those to the density, would cut."""
        levels = short.levels or DEFAULT_LEVELS
        return cls(like_levels=levels if short.density is None else levels_for(mask, rule, short.density))

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The cut of level 0."""
        if level:
            return None
        if self.density is not None:
            return to_density(rule, mask, self.density)
        assert self.like_levels is not None
        rates = {name: _compound(rate, self.like_levels) for name, rate in rule.rates.items()}
        return replace(rule, rate=_compound(rule.rate, self.like_levels), rates=rates)


@checked
@dataclass(frozen=True)
class Explicit(DensitySchedule):
    """The densities one by one: exactly ``round(density * size)`` weights are left at each level.

    Attributes:
        densities: fractions of the prunable weights, each less than the one before.

    >>> Explicit((0.5, 0.25, 0.1)).levels
    3
    """

    densities: tuple[float, ...]
    levels: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_levels(len(self.densities), "The number of densities")
        object.__setattr__(self, "levels", len(self.densities))
        before = 1.0
        for level, density in enumerate(self.densities, start=1):
            check_target(density)
            if density >= before:
                raise UsageError(
                    f"Densities fall from level to level, such as (0.5, 0.25, 0.1); "
                    f"got {density:g} at level {level} after {before:g}."
                )
            before = density

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The cut to the next density."""
        return to_density(rule, mask, self.densities[level]) if level < self.levels else None


@checked
@dataclass(frozen=True)
class Cubic(DensitySchedule):
    """Large cuts first, small ones at last: a cubic curve of densities (Zhu and Gupta, 1710.01878, equation 1).

    At level t of n exactly ``round(d_t * size)`` weights are left, ``d_t = density + (start - density) (1 - t/n)^3``.

    Attributes:
        density: fraction of the prunable weights left at the last level.
        levels: how many levels.
        start: the density at which the curve begins, at level 0; that one stays dense, whatever it is.

    >>> [round(d, 4) for d in Cubic(0.1, levels=3).densities]
    [0.3667, 0.1333, 0.1]
    """

    density: float
    levels: int = DEFAULT_LEVELS
    start: float = 1.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_target(self.density)
        if not self.density < self.start <= 1:
            raise UsageError(
                f"A cubic schedule falls from start, at most 1, to density; got start={self.start:g}, "
                f"density={self.density:g}."
            )

    @classmethod
    def check_options(cls, short: ShortOptions) -> None:
        """Raise ``UsageError`` without a density, or with a rate."""
        if short.density is None or short.rate is not None:
            raise UsageError(
                "A cubic schedule takes a density, where it ends, levels, and no rate: density=0.05, levels=8."
            )

    @classmethod
    def of_options(cls, short: ShortOptions, rule: Pruning, mask: MaskLike) -> Cubic:
        """To the density in so many levels."""
        cls.check_options(short)
        assert short.density is not None
        return cls(short.density, short.levels or DEFAULT_LEVELS)

    @property
    def densities(self) -> tuple[float, ...]:
        """Those of the levels from 1 on."""
        above = self.start - self.density
        return tuple(self.density + above * (1 - t / self.levels) ** 3 for t in range(1, self.levels + 1))

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The cut to the next density."""
        return to_density(rule, mask, self.densities[level]) if level < self.levels else None


@checked
@dataclass(frozen=True)
class Adaptive(DensitySchedule):
    """Cuts chosen by trial, as large as the landscape allows, see `lotto.lottery.adaptive`.

    Attributes:
        density: where it ends; default where no cut is kept any more.
        levels: how many levels at most; default 16, or as many as the density needs.

    >>> Adaptive(0.035).levels
    200
    """

    density: float | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.density is not None:
            check_target(self.density)
        default = DEFAULT_LEVELS if self.density is None else MAX_LEVELS
        object.__setattr__(self, "levels", default if self.levels is None else self.levels)
        check_levels(self.levels or 0)

    @classmethod
    def check_options(cls, short: ShortOptions) -> None:
        """Levels are how many at most, so that they go with a density."""

    @classmethod
    def of_options(cls, short: ShortOptions, rule: Pruning, mask: MaskLike) -> Adaptive:
        """To the density, or as far as it goes."""
        return cls(short.density, short.levels)

    def next_cut(self, rule: Pruning, mask: MaskLike, level: int) -> Pruning | None:
        """The largest cut that may be tried; None at the last level or where the density is reached."""
        target, size = self.density or 0.0, masks.size(mask)
        if level >= (self.levels or 0) or masks.count(mask) <= target * size + 1:  # to the weight, but for rounding
            return None
        return scaled(rule, min(LARGEST_CUT, 1 - target / masks.density(mask)))


NAMED: dict[str, type[DensitySchedule]] = {
    "geometric": Geometric, "one-shot": OneShot, "cubic": Cubic, "adaptive": Adaptive,
}  # fmt: skip
"""Schedules that the short options make."""
ENTRY_POINTS = "lotto.schedules"
"""Entry points of installed packages by which their schedules have names."""


def named_schedule(name: str) -> type[DensitySchedule]:
    """The class of a schedule by its name, ours, an installed package's, or ``package.module:Class``.

    Raises:
        UsageError: for an unknown name, or what is no schedule.

    >>> named_schedule("cubic").__name__
    'Cubic'
    """
    found = registry.find("schedule", name, NAMED, ENTRY_POINTS)
    if not (isinstance(found, type) and issubclass(found, DensitySchedule)):
        raise UsageError(f"A schedule is a subclass of lotto.pruning.DensitySchedule; {name!r} is {text(found)}.")
    return found


# --- cuts -------------------------------------------------------------------------------------------------


def scaled(rule: Pruning, fraction: float) -> Pruning:
    """The rule with ``fraction`` as its rate; layers with rates of their own go as many ordinary levels further."""
    levels = math.log(1 - fraction) / math.log(1 - rule.rate)
    return replace(rule, rate=fraction, rates={n: _compound(r, levels) for n, r in rule.rates.items()})


@checked
def to_density(rule: Pruning, mask: MaskLike, density: float) -> Pruning:
    """The rule with the rates at which a cut leaves exactly ``round(density * size)`` weights of the dense network.

    With allocation ``layer`` every layer loses the same fraction of what it has left, to the weight; the sum then
    differs by rounding. Layers with rates of their own go as many ordinary levels further, and the others make up the
    number.

    Args:
        rule: how it is pruned; its rate says what an ordinary level is.
        mask: what is left, by weight name.
        density: fraction of all weights of the mask, kept or not.

    Raises:
        UsageError: if the cut would remove no weight, or all.

    >>> to_density(Pruning(), masks.Mask({"fc.weight": torch.ones(4, 5, dtype=torch.bool)}), 0.25).rate
    0.75
    """
    check_target(density)
    size, left, keep = masks.size(mask), masks.count(mask), round(density * masks.size(mask))
    if not 0 < keep < left:
        raise UsageError(
            f"The density {density:g} cannot be reached from {left / max(size, 1):.3g}: of {size:,} prunable weights "
            f"{left:,} are left, and it asks for {keep:,}."
        )
    own = {n: (pattern, r) for pattern, r in rule.rates.items() for n in mask if matches(n, pattern)}
    if not own:
        return replace(rule, rate=(left - keep) / left)
    counts = {n: int(mask[n].sum()) for n in mask}
    pool = left - sum(counts[n] for n in own)

    def kept_by(levels: float) -> int:
        return sum(keep_count(counts[n], _compound(r, levels)) for n, (_, r) in own.items())

    def excess(levels: float) -> float:
        return kept_by(levels) + pool * (1 - rule.rate) ** levels - keep

    levels = _root(excess)
    kept = keep - kept_by(levels)
    if not 0 < kept <= pool:
        raise UsageError(
            f"The density {density:g} cannot be reached: {keep:,} weights would be left, of which layers with rates of "
            f"their own keep {keep - kept:,}."
        )
    rates = {pattern: _compound(r, levels) for pattern, r in rule.rates.items()}
    return replace(rule, rate=max((pool - kept) / pool, LEAST_RATE), rates=rates)


def _root(falling: Callable[[float], float]) -> float:
    """Where a function that falls crosses 0; the largest number of levels if it does not."""
    low, high = 0.0, float(MAX_LEVELS)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def _compound(rate: float, levels: float) -> float:
    """What so many levels of a rate remove together."""
    return 1 - (1 - rate) ** levels


def _at_rate(rule: Pruning, rate: float | None) -> Pruning:
    return rule if rate is None or rate == rule.rate else replace(rule, rate=rate)


# --- what a schedule comes to ------------------------------------------------------------------------------


@checked
def densities_of(schedule: DensitySchedule, rule: Pruning, mask: MaskLike) -> list[float]:
    """The densities of the levels from 1 on, exactly, by pruning a mask at random.

    Raises:
        UsageError: if the schedule rises, asks for what cannot be cut, or does not end within 200 levels.

    >>> densities_of(Explicit((0.5, 0.25)), Pruning(), masks.Mask({"fc.weight": torch.ones(4, 5, dtype=torch.bool)}))
    [0.5, 0.25]
    """
    found: list[float] = []
    weights = {n: m.float() for n, m in mask.items()}
    while (cut := schedule.next_cut(rule, mask, len(found))) is not None:
        if not isinstance(cut, Pruning):
            raise UsageError(f"{schedule!r}: next_cut returns a Pruning, or None at the end; got {text(cut)}.")
        before = masks.count(mask)
        mask = prune_by(replace(cut, score="random"), weights, mask)
        if masks.count(mask) == before or len(found) == MAX_LEVELS:
            raise UsageError(_unreachable(schedule, masks.density(mask), len(found)))
        found.append(masks.density(mask))
    return found


def _unreachable(schedule: DensitySchedule, density: float, levels: int) -> str:
    stays = "layers with rate 0 stay, and a rate removes less than half a weight at last"
    if isinstance(schedule, ToDensity):
        return f"The density {schedule.density:g} cannot be reached: pruning stops at {density:.3g} ({stays})."
    if levels == MAX_LEVELS:
        return f"{schedule!r} does not end within {MAX_LEVELS} levels; its next_cut returns None where it ends."
    return f"{schedule!r} cannot be followed: its cut after level {levels} removes nothing at {density:.3g} ({stays})."


@checked
def levels_for(mask: MaskLike, pruning: Pruning, density: float) -> int:
    """Levels after which the density is at most ``density``, by pruning a mask at random.

    Raises:
        UsageError: if no number of levels up to 200 gets there (a layer's rate is 0, or the network is small).

    >>> levels_for(masks.Mask({"fc.weight": torch.ones(100, 100, dtype=torch.bool)}), Pruning(0.2), density=0.5)
    4
    """
    return len(densities_of(ToDensity(density), pruning, mask))


# --- checks -----------------------------------------------------------------------------------------------


def check_levels(levels: int, what: str = "levels") -> None:
    """Raise ``UsageError`` unless there are 1 to 200 levels."""
    if not 1 <= levels <= MAX_LEVELS:
        raise UsageError(f"{what} is between 1 and {MAX_LEVELS}; got {levels}.")


def check_target(density: float) -> None:
    """Raise ``UsageError`` unless 0 < density < 1."""
    if not 0 < density < 1:
        raise UsageError(f"A target density is greater than 0 and less than 1; got {density!r}.")
