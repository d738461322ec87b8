"""`Plan`: the options of IMP, one documented field each; `lotto.imp` and the command line are made from them.

Nothing slow is imported, so that the command line can say what it takes before it has loaded PyTorch.
"""
# ruff: noqa: RUF009 (`option` makes a field)

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import Enum
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeVar

from lotto.core.errors import UsageError, text, unknown

if TYPE_CHECKING:
    from lotto.core.check import Few
    from lotto.pruning.allocation import Allocation
    from lotto.pruning.density import DensitySchedule
    from lotto.pruning.patterns import Pattern
    from lotto.pruning.scores import Score

R = TypeVar("R")


class Retraining(str, Enum):
    """What happens to the weights after a level's pruning.

    >>> Plan(after="lr").after is Retraining.LR
    True
    """

    WEIGHTS = "weights"
    """Weights and learning rate go back to the rewind step: the papers' IMP."""
    LR = "lr"
    """The trained weights stay, the learning rate goes back (Renda et al., 2003.02389)."""
    FINETUNE = "finetune"
    """The trained weights stay, the learning rate stays at its last value."""
    REINIT = "reinit"
    """New initial weights at every level, trained from the start."""


AUTO = "auto"
"""As a number of replicates: looked at once, and again with twice as many where a level is borderline."""
CONTROLS = ("reinit", "random")
NONE, ALL = "none", "all"
"""In the place of the controls, and of the levels at which they are trained."""
ORDERS = ("shared", "fresh")
END = "end"
PRUNE_AT = (END, "rewind", "init")
SHORT = ("levels", "rate", "density", "densities", "one_shot", "adaptive")
"""Options that make a schedule."""


def option(default: Any, about: str, *, keyword: bool = True) -> Any:
    """A field of `Plan`; the text is its documentation everywhere, lower case and without a full stop."""
    return field(default=default, kw_only=keyword, metadata={"about": about})


@dataclass(frozen=True, repr=False)
class Plan:
    """The options of `lotto.imp`: what is asked, of any recipe.

    It is made and checked before any recipe is known; `lotto.lottery.plan.make_plan` settles it for one.

    Attributes:
        {options}

    Raises:
        UsageError: for whatever cannot be meant.

    >>> Plan(densities=[0.5, 0.25, 0.1], replicates=3)
    Plan(replicates=3, densities=(0.5, 0.25, 0.1))
    """

    levels: int | None = option(
        None, "pruning levels after the dense one; default 16, or as many as `density` needs", keyword=False
    )
    rate: float | None = option(
        None, "fraction of the remaining weights pruned per level; default the recipe's, mostly 0.2", keyword=False
    )
    rewind_to: str | int | None = option(
        None, "the step k to which weights go back: `0it`, `500it`, `2ep`; default the recipe's", keyword=False
    )
    replicates: Few | str | None = option(
        None,
        "how many initialisations and data orders; default by data set: 5 on MNIST, MNIST-1D and the digits, 8 on "
        "CIFAR-10 (but for VGGs), 3 elsewhere. One decides nothing: verdicts are *not decided (n = 1)*. `auto`: that "
        "default number, and as many more where the first level that does not match is borderline; the bounds hold "
        "5 % over both looks",
        keyword=False,
    )
    controls: tuple[str, ...] = option(
        CONTROLS,
        "`reinit` (the mask on a new initialisation, trained from the start), `random` (a random mask with the same "
        "per-layer densities, on the same rewind point), both (the default) or `none`; in Python also ()",
        keyword=False,
    )
    control_levels: tuple[int, ...] | None = option(
        None, "levels at which controls are trained; default `all`, of adaptive pruning the last"
    )
    density: float | None = option(
        None, "prune until at most this fraction of the prunable weights is left, instead of `levels`"
    )
    densities: tuple[float, ...] | None = option(
        None, "fractions left at each level, such as 0.5, 0.25, 0.1, exact to the weight, instead of `levels`"
    )
    schedule: DensitySchedule | str | None = option(
        None,
        "`geometric` (the default), `cubic` (large cuts first, from the dense network to `density` in `levels` "
        "levels), `one-shot`, `adaptive`, or a class as `module:Name`; in Python also an object, such as "
        "`lotto.pruning.Cubic(0.05, levels=8)`",
    )
    one_shot: bool = option(False, "make a single cut to the density that `levels` levels (or `density`) would reach")
    after: str | Retraining = option(
        Retraining.WEIGHTS,
        "what follows pruning: `weights` (they go back to step k), `lr` (only the learning rate does), `finetune` "
        "(nothing does, at a constant rate), `reinit` (new initial weights)",
    )
    order: str = option("shared", "`shared`: all levels of a replicate see the same data order; `fresh`: each its own")
    rewind_optimizer: bool = option(
        False, "restore the optimizer's state at the rewind step (masked) instead of a new optimizer"
    )
    restart_dense: bool = option(
        False,
        "train level 0, too, from the rewind point with a new optimizer, as the frameworks of both papers do, instead "
        "of going on with the dense training's; they differ where there is momentum and k is not 0",
    )
    finetune_lr: float | None = option(
        None, "learning rate of `finetune`; default the schedule's last, but at least 1 % of the peak"
    )
    seed: int = option(0, "replicate r uses the seeds seed + r")
    adaptive: bool = option(
        False,
        "choose what is pruned at each level by trial; `density` is then where to stop and `levels` how many at most. "
        "It chooses on held-out examples: without `validation` in the recipe as many as are tested, at most a tenth "
        "of the training set",
    )
    particles: Few = option(
        1,
        "copies of each ticket, trained on different data orders; their average is the level's solution and is pruned "
        "(SWAMP, 2305.14852). BatchNorm statistics are re-estimated for it. Controls have one copy",
    )

    prune_at: str = option(
        END,
        "whose weights are pruned: `end` (trained ones, level by level), `init` (the initial ones, from which every "
        "level is then trained: pruning at initialisation) or `rewind` (those at the rewind step). Before training "
        "each level is one cut of what level 0 has, to its density",
    )

    score: Score | str | None = option(
        None,
        "which weights matter: `magnitude`, `random`, `magnitude-increase`, `snip`, `grasp`, `synflow` (the last three "
        "were made for `prune_at` `init`), the name of an installed package's, "
        "`package.module:function`; in Python also a function (context) -> {name: tensor}, or one of (weight, start, "
        "generator). One that reads the network and its data is computed by the engine and remembered; default the "
        "recipe's, mostly `magnitude`",
    )
    pattern: Pattern | str | None = option(
        None,
        "which sets of weights may be left: `2:4` (of every four in a row two), `channel`, `block:4x1`, in Python also "
        "an object with a method keep; default the recipe's, mostly any",
    )
    allocation: Allocation | str | None = option(
        None,
        "how many weights each layer keeps: `global`, `layer`, `erk`, `balanced`; in Python also a function (mask, "
        "total) -> {name: number}; default the recipe's, mostly `global`",
    )

    def __post_init__(self) -> None:
        from lotto.core import check
        from lotto.pruning import allocation, density, patterns, scores

        if isinstance(self.control_levels, str) and self.control_levels == ALL:
            object.__setattr__(self, "control_levels", None)
        check.read_fields(
            self, {**vars(check), **vars(scores), **vars(allocation), **vars(patterns), **vars(density), **globals()}
        )
        object.__setattr__(self, "controls", _controls(self.controls))
        _check_counts(self)
        _check_names(self)
        _check_schedule(self)
        object.__setattr__(self, "after", Retraining(self.after))
        if self.after is not Retraining.WEIGHTS and self.rewind_optimizer:
            raise UsageError(f"rewind_optimizer goes with after='weights'; got after={Retraining(self.after).value!r}.")
        if self.after is Retraining.REINIT and self.rewind_to is not None:
            raise UsageError("after='reinit' trains from a new start at every level, so it has no rewind step.")
        if self.prune_at != END:
            _check_before_training(self)

    def changed(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def __repr__(self) -> str:
        given = {n: value.value if isinstance(value, Enum) else value for n, value in self.changed().items()}
        return f"Plan({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _controls(given: tuple[str, ...]) -> tuple[str, ...]:
    """Names, of which a text may have several with commas, each once; none of them by that word."""
    names = tuple(dict.fromkeys(part.strip() for names in given for part in names.split(",")))
    if NONE in names and len(names) > 1:
        raise UsageError(f"controls={NONE!r} is no control, so it stands alone; got {', '.join(names)}.")
    return () if names == (NONE,) else names


def _check_counts(plan: Plan) -> None:
    from lotto.pruning.density import check_levels, check_target
    from lotto.pruning.rule import check_rate

    if plan.levels is not None:
        check_levels(plan.levels)
    if plan.rate is not None:
        check_rate(plan.rate)
    if plan.density is not None:
        check_target(plan.density)
    if isinstance(plan.replicates, int) and plan.replicates < 1:
        raise UsageError(f"replicates is 1 or more; got {plan.replicates}.")
    if isinstance(plan.replicates, str) and plan.replicates != AUTO:
        raise UsageError(f"replicates is a whole number from 1, or 'auto'; got {text(plan.replicates)}.")
    if plan.particles < 1:
        raise UsageError(f"particles is 1 or more; got {plan.particles}.")
    if plan.finetune_lr is not None and not plan.finetune_lr > 0:
        raise UsageError(f"A learning rate is greater than 0; got finetune_lr={plan.finetune_lr!r}.")


def _check_names(plan: Plan) -> None:
    from lotto.pruning.allocation import check_allocation
    from lotto.pruning.density import named_schedule
    from lotto.pruning.scores import score_function
    from lotto.pruning.structured import named_pattern

    if plan.score is not None:
        score_function(plan.score)
    if plan.allocation is not None:
        check_allocation(plan.allocation)
    if plan.pattern is not None:
        named_pattern(plan.pattern)
    for control in plan.controls:
        if control not in CONTROLS:
            raise unknown("control", control, (*CONTROLS, NONE))
    if plan.prune_at not in PRUNE_AT:
        raise unknown("time of pruning", plan.prune_at, PRUNE_AT)
    if plan.order not in ORDERS:
        raise unknown("order", plan.order, ORDERS)
    if plan.after not in [a.value for a in Retraining]:
        raise unknown("after-prune policy", str(plan.after), [a.value for a in Retraining])
    if isinstance(plan.schedule, str):
        named_schedule(plan.schedule)


def _check_before_training(plan: Plan) -> None:
    """What needs trained weights to prune does not go with pruning before training."""
    from lotto.pruning.density import Adaptive

    asked = f"prune_at={plan.prune_at!r} prunes before training"
    adaptive = plan.adaptive or plan.schedule == "adaptive" or isinstance(plan.schedule, Adaptive)
    if adaptive:
        raise UsageError(f"{asked}; adaptive pruning chooses its cuts by trained levels. Give densities or levels.")
    if plan.after is not Retraining.WEIGHTS:
        raise UsageError(
            f"{asked}, and trains every level from those weights: after='weights'; got "
            f"after={Retraining(plan.after).value!r}."
        )
    if plan.particles > 1:
        raise UsageError(f"{asked}; particles are averaged to be pruned when they are trained: particles=1.")


def _check_schedule(plan: Plan) -> None:
    """Options that make a schedule agree with each other."""
    from lotto.pruning.density import Explicit, ShortOptions, named_schedule

    kinds = {plan.schedule} if isinstance(plan.schedule, str) else set()
    kinds |= {name for name, asked in (("one-shot", plan.one_shot), ("adaptive", plan.adaptive)) if asked}
    given = [name for name in SHORT if getattr(plan, name) not in (None, False)]
    if plan.schedule is not None and not isinstance(plan.schedule, str) and given:
        raise UsageError(f"A schedule says by itself how far it goes; it does not go with {', '.join(given)}.")
    if plan.densities is not None and (len(given) > 1 or kinds):
        others = ", ".join([*(name for name in given if name != "densities"), *(f"schedule={k!r}" for k in kinds)])
        raise UsageError(f"densities say all levels, such as densities=[0.5, 0.25, 0.1]; they do not go with {others}.")
    if plan.densities is not None:
        Explicit(plan.densities)
    if {"one-shot", "adaptive"} <= kinds:
        raise UsageError("Adaptive pruning chooses its cuts; it does not go with one_shot.")
    if len(kinds) > 1:
        raise UsageError(f"There is one schedule; got {' and '.join(sorted(kinds))}.")
    name = next(iter(kinds), "geometric")
    named_schedule(name).check_options(ShortOptions(plan.rate, plan.levels, plan.density))


# --- functions made from the plan --------------------------------------------------------------------------


def about(option: Field[Any]) -> str:
    """What a field of `Plan` is for."""
    return str(option.metadata["about"])


def documented(indent: str) -> str:
    """The options as lines of a docstring."""
    lines = [textwrap.wrap(f"{f.name}: {about(f).replace('`', '``')}.", 119 - len(indent) - 4) for f in fields(Plan)]
    return f"\n{indent}".join(f"\n{indent}    ".join(wrapped) for wrapped in lines)


def made_from_plan(function: Callable[..., R]) -> Callable[..., R]:
    """Give a function of (recipe, plan, ...) the fields of `Plan` as arguments, in its signature and its docstring.

    The plan may be left out: then the fields make it. Given beside it they change it. The number of levels may stand in
    the plan's place, followed by what could always be given by position.
    """
    recipe, plan, *own = inspect.signature(function).parameters.values()
    options = {
        f.name: Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type) for f in fields(Plan)
    }
    positional = [f.name for f in fields(Plan) if not f.kw_only][1:]  # the plan stands where the levels stood
    signature = inspect.Signature(
        [
            recipe,
            plan,
            *(options.pop(name).replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for name in positional),
            *options.values(),
            *(parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own),
        ]
    )

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> R:
        arguments = _bound(function.__name__, signature, given, named)
        asked = {f.name: arguments.pop(f.name) for f in fields(Plan) if f.name in arguments}
        base = arguments.pop("plan", None)
        if base is not None and not isinstance(base, Plan):
            if "levels" in asked:
                raise UsageError(f"plan is a lotto.Plan, such as lotto.Plan(levels=5); got {text(base)}.")
            base, asked = None, {"levels": base, **asked}
        chosen = Plan(**asked) if base is None else replace(base, **asked)
        return function(arguments.pop("recipe"), chosen, **arguments)

    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = (function.__doc__ or "").replace("{options}", documented(" " * 8))
    return call


def _bound(name: str, signature: inspect.Signature, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name; raises ``UsageError`` for those that the signature does not take."""
    try:
        return dict(signature.bind(*given, **named).arguments)
    except TypeError as error:
        from lotto.core.check import misused

        raise misused(name, signature, named, error) from None


def _explaining(make: Callable[..., None]) -> Callable[..., None]:
    """The constructor, which says which options there are."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def call(self: Plan, *given: Any, **named: Any) -> None:
        _bound("Plan", signature, (self, *given), named)
        make(self, *given, **named)

    return call


Plan.__init__ = _explaining(Plan.__init__)  # type: ignore[method-assign]
Plan.__doc__ = (Plan.__doc__ or "").replace("{options}", documented(" " * 8))
