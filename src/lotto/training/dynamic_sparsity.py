"""How a training's mask changes along it, as frozen data: at which steps, how many weights go, and which grow."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lotto.core.check import Fraction, checked
from lotto.core.errors import UsageError, text
from lotto.pruning.patterns import Pattern, Unstructured
from lotto.pruning.structured import Groups, NByM, named_pattern
from lotto.recipe import identity
from lotto.recipe.recipe import Recipe

EXCHANGES = ("set", "rigl")
"""Kinds that drop weights and let as many grow."""
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")


@dataclass(frozen=True)
class Updates:
    """At which steps a mask changes, in iterations; a step's update comes before its batch is trained on.

    Attributes:
        begin: from here on the steps are counted.
        every: distance of two updates.
        stop: from here on the mask holds still.
        last: the update at ``stop`` itself, where there is one.
    """

    begin: int
    every: int
    stop: int
    last: bool = False

    @property
    def steps(self) -> tuple[int, ...]:
        """All of them, in order.

        >>> Updates(0, 100, 350).steps, Updates(0, 100, 350, last=True).steps
        ((100, 200, 300), (0, 100, 200, 300, 350))
        """
        first = self.begin if self.last else self.begin + self.every
        return (*range(first, self.stop, self.every), *([self.stop] if self.last else []))

    def progress(self, step: int) -> float:
        """Which part of the way from ``begin`` to ``stop`` lies behind a step."""
        return min(1.0, max(0.0, (step - self.begin) / (self.stop - self.begin)))


def spaced(recipe: Recipe, updates: int, stop: float) -> tuple[int, int]:
    """``every`` and ``stop`` of a mask that changes about so many times until a part of a recipe's training.

    >>> spaced(recipe, 3, 0.5)  # of 40 iterations
    (5, 20)
    """
    last = round(stop * recipe.total)
    return max(1, last // (updates + 1)), last


@checked
@dataclass(frozen=True)
class DynamicSparsity:
    """A mask that changes along a training, as a part of what the training is (`lotto.Job`).

    ``set`` drops the smallest weights of each layer and lets as many grow at random (Mocanu et al., 1707.04780).
    ``rigl`` lets those grow where the gradient of the batch is largest (Evci et al., 1911.11134, section 3). Both keep
    the number of weights of every layer. ``gradual`` only prunes, along a cubic curve of densities (Zhu and Gupta,
    1710.01878, equation 1). Fewer updates and larger fractions explore more weights reliably (Liu et al., 2102.02887).

    A step at which the mask changes is a step like others: the mask is changed before its batch is trained on, and
    RigL's gradient is that of this batch. What grows begins at 0, with moments that are 0.

    Attributes:
        kind: ``set``, ``rigl`` or ``gradual``.
        every: distance of two updates, ``"100it"`` or ``"1ep"``.
        stop: from here on the mask holds still: a step, or a part of the recipe's training.
        begin: the step from which updates are counted; those of ``set`` and ``rigl`` begin one distance later.
        fraction: of a layer's weights that are dropped and grow.
        decay: of that fraction: ``cosine`` to 0 at ``stop``, or ``constant``.
        density: of ``gradual``, where it ends: exactly ``round(density * size)`` weights are left at ``stop``.
        initial_density: of ``gradual``, at ``begin``.
        allocation: of ``gradual``: how many weights each layer keeps, ``global``, ``layer`` or ``erk``.
        pattern: which sets of weights may be left, as in `lotto.pruning.Pruning`: of ``channel`` and ``block:4x1``
            whole groups go and grow, by the mean of their magnitudes and scores; of ``2:4`` every four keep as many as
            they had, and at most one of them is exchanged at an update. ``gradual`` leaves as many whole groups as the
            density has room for, and of ``2:4`` three and then two of four.

    >>> run = lotto.train(recipe, mask=mask, sparsity=DynamicSparsity("rigl", every="10it"))
    >>> run.mask.density == mask.density, lotto.pruning.overlap(run.mask, mask).common < mask.density * 768
    (True, True)
    >>> DynamicSparsity("gradual", every="5it", density=0.1).updates(recipe).steps
    (0, 5, 10, 15, 20, 25, 30)
    """

    kind: Literal["set", "rigl", "gradual"]
    every: str | int = "100it"
    stop: str | int = "75%"
    begin: str | int = "0it"
    fraction: Fraction = 0.3
    decay: Literal["cosine", "constant"] = "cosine"
    density: Fraction | None = None
    initial_density: float = 1.0
    allocation: Literal["global", "layer", "erk"] = "global"
    pattern: Pattern | str = field(default_factory=Unstructured)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", named_pattern(self.pattern))
        if not isinstance(self.pattern, (Unstructured, Groups, NByM)):
            raise UsageError(
                "A mask that changes has a pattern of lotto's, such as 2:4, channel or block:4x1, which know what may "
                f"grow; got {text(self.pattern)}."
            )
        if self.exchanges:
            unused = {"density": None, "initial_density": 1.0, "allocation": "global"}
            why = "drops as many weights as it lets grow"
        else:
            unused, why = {"fraction": 0.3, "decay": "cosine"}, "lets none grow"
        if given := [name for name, default in unused.items() if getattr(self, name) != default]:
            raise UsageError(f"{self.kind!r} {why}, so that it has no {given[0]}; leave it out.")
        if self.exchanges:
            return
        if self.density is None:
            raise UsageError("'gradual' needs the density at which it ends, such as density=0.1.")
        if not self.density < self.initial_density <= 1:
            raise UsageError(
                f"'gradual' falls from initial_density, at most 1, to density; got "
                f"initial_density={self.initial_density:g}, density={self.density:g}."
            )
        if isinstance(self.pattern, NByM) and self.pattern.possible(self.density) != self.density:
            raise UsageError(
                f"{self.pattern!r} leaves a part of {self.pattern.m} weights, {self.pattern.n} or more; got "
                f"density={self.density:g}. The next one is {self.pattern.possible(self.density):g}."
            )

    @property
    def changing(self) -> Unstructured | Groups | NByM:
        """The pattern, which knows what may grow."""
        assert isinstance(self.pattern, (Unstructured, Groups, NByM))  # the constructor has seen to it
        return self.pattern

    @property
    def exchanges(self) -> bool:
        """Whether weights grow."""
        return self.kind in EXCHANGES

    def updates(self, recipe: Recipe) -> Updates:
        """At which steps of a recipe's training the mask changes.

        Raises:
            UsageError: if ``stop`` lies beyond the end, or no update before it.
        """
        begin, every, total = recipe.step(self.begin), recipe.step(self.every), recipe.total
        percent = _PERCENT.fullmatch(self.stop) if isinstance(self.stop, str) else None
        stop = round(float(percent[1]) / 100 * total) if percent else recipe.step(self.stop)
        if every < 1:
            raise UsageError(f"every is the distance of two updates, 1 iteration or more; got {self.every!r}.")
        # What has been pruned at the end would not be trained any more.
        if stop > total - (not self.exchanges):
            raise UsageError(
                f"The mask holds still from stop={self.stop!r} on, iteration {stop}, which is not before the end "
                f"of the training at {total}; the default is stop='75%'."
            )
        if begin + every >= stop:
            raise UsageError(
                f"No update lies between begin={self.begin!r} and stop={self.stop!r}: the first would come at "
                f"iteration {begin + every}, the mask holds still from {stop} on. Give a smaller every=..."
            )
        return Updates(begin, every, stop, last=not self.exchanges)

    def fraction_at(self, progress: float) -> float:
        """The fraction that is dropped (RigL, section 3): at the beginning 0, at ``stop`` 1.

        >>> DynamicSparsity("rigl").fraction_at(0.0), DynamicSparsity("rigl").fraction_at(0.5)
        (0.3, 0.15)
        """
        return self.fraction if self.decay == "constant" else self.fraction / 2 * (1 + math.cos(math.pi * progress))

    def density_at(self, progress: float) -> float:
        """The density of ``gradual``.

        >>> round(DynamicSparsity("gradual", density=0.1).density_at(0.5), 4)
        0.2125
        """
        assert self.density is not None
        return self.density + (self.initial_density - self.density) * (1 - progress) ** 3

    def entry(self, recipe: Recipe) -> dict[str, Any]:
        """What it is in a key: steps in iterations, and only what has a part in the outcome."""
        updates = self.updates(recipe)
        names = ("fraction", "decay") if self.exchanges else ("density", "initial_density", "allocation")
        steps = {"begin": updates.begin, "every": updates.every, "stop": updates.stop}
        pattern = {} if isinstance(self.pattern, Unstructured) else {"pattern": identity.typed(self.pattern)}
        return {"kind": self.kind, **steps, **{name: getattr(self, name) for name in names}, **pattern}
