"""Learning-rate schedules as pure functions of the step: there is nothing to restore when a run resumes.

A schedule gives the factor on the optimizer's learning rate at a step of a training of ``total`` steps.
Warm-up rises linearly and reaches 1 at its last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from lotto.core.check import NotNegative, checked, whole_number
from lotto.core.duration import iterations
from lotto.core.errors import UsageError, check_positional

if TYPE_CHECKING:
    from typing_extensions import Self


@checked
@dataclass(frozen=True)
class Schedule:
    """Warm-up, common to all schedules, then ``after_warmup``, which is all that one of a user's own says.

    >>> class Inverse(Schedule):
    ...     def after_warmup(self, step, total, per_epoch, warm):
    ...         return (warm + 1) / (step + 1)
    >>> [round(Inverse(warmup="2it").factor(step, 6, 3), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.6, 0.5]
    """

    warmup: str | int = field(default=0, kw_only=True)

    BY_POSITION: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *given: Any, **named: Any) -> Self:
        check_positional(cls, len(given), cls.BY_POSITION)
        return super().__new__(cls)

    def factor(self, step: int, total: int, per_epoch: int) -> float:
        """Factor on the learning rate at iteration ``step`` (the first is 0) of ``total``."""
        step, total = whole_number(step, "step"), whole_number(total, "total")
        warm = iterations(self.warmup, whole_number(per_epoch, "per_epoch"))
        if step < warm:
            return (step + 1) / warm
        return self.after_warmup(step, total, per_epoch, warm)

    def after_warmup(self, step: int, total: int, per_epoch: int, warm: int) -> float:
        """Factor after the warm-up of ``warm`` iterations."""
        return 1.0

    def resolved(self, per_epoch: int) -> dict[str, object]:
        """The schedule with all steps in iterations: its part of a run's fingerprint."""
        values = {k: v for k, v in vars(self).items() if k != "warmup"}
        return {
            "warmup": iterations(self.warmup, per_epoch),
            **values,
        }


@checked
@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate throughout.

    >>> lotto.Constant(warmup="10it").factor(step=4, total=100, per_epoch=10)  # half of the way up
    0.5
    """


@checked
@dataclass(frozen=True)
class MultiStep(Schedule):
    """Multiply the rate by ``gamma`` at each milestone.

    >>> steps = lotto.MultiStep(["5ep", "8ep"])
    >>> [round(steps.factor(step, total=100, per_epoch=10), 3) for step in (0, 50, 80)]
    [1.0, 0.1, 0.01]
    """

    milestones: tuple[str | int, ...] = ()
    gamma: NotNegative = 0.1

    BY_POSITION = ("milestones", "gamma")

    def __post_init__(self) -> None:
        given = [self.milestones] if isinstance(self.milestones, (str, int)) else self.milestones
        # A text may hold several, as it is typed: --set schedule.milestones=250it,375it.
        parts = [part for m in given for part in (m.split(",") if isinstance(m, str) else [m])]
        object.__setattr__(self, "milestones", tuple(p.strip() if isinstance(p, str) else p for p in parts))
        texts = [m if isinstance(m, str) else "it" for m in self.milestones]
        if not any("ep" in text for text in texts) or not any("it" in text or text.isdigit() for text in texts):
            self.resolved(1)  # all in one unit: their order is known already

    def after_warmup(self, step: int, total: int, per_epoch: int, warm: int) -> float:
        return self.gamma ** sum(step >= iterations(m, per_epoch) for m in self.milestones)

    def resolved(self, per_epoch: int) -> dict[str, object]:
        milestones = [iterations(m, per_epoch) for m in self.milestones]
        if any(a >= b for a, b in pairwise(milestones)):
            raise UsageError(f"Milestones must increase; got {self.milestones}.")
        return {**super().resolved(per_epoch), "milestones": milestones}


@checked
@dataclass(frozen=True)
class Linear(Schedule):
    """Fall linearly from 1 to ``end`` at the last step. With a warm-up: the triangular schedule.

    >>> [lotto.Linear().factor(step, total=100, per_epoch=10) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """

    end: float = 0.0

    def after_warmup(self, step: int, total: int, per_epoch: int, warm: int) -> float:
        done = (step - warm) / max(1, total - warm)
        return 1.0 + (self.end - 1.0) * done


@checked
@dataclass(frozen=True)
class Cosine(Schedule):
    """Fall from 1 to ``end`` along half a cosine. With a warm-up: the one-cycle schedule.

    >>> [round(lotto.Cosine().factor(step, total=100, per_epoch=10), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """

    end: float = 0.0

    def after_warmup(self, step: int, total: int, per_epoch: int, warm: int) -> float:
        done = (step - warm) / max(1, total - warm)
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * done))


@checked
@dataclass(frozen=True)
class Exponential(Schedule):
    """Fall from 1 to ``end`` by the same factor at every step.

    >>> [round(lotto.Exponential(end=0.01).factor(step, total=100, per_epoch=10), 3) for step in (0, 50, 100)]
    [1.0, 0.1, 0.01]
    """

    end: float = 0.01

    def __post_init__(self) -> None:
        if not self.end > 0:
            raise UsageError(f"An exponential schedule ends above 0; got end={self.end!r}.")

    def after_warmup(self, step: int, total: int, per_epoch: int, warm: int) -> float:
        return self.end ** ((step - warm) / max(1, total - warm))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
}
