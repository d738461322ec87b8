"""The plan: each option is written once, and means the same in Python, by position and on the command line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from itertools import pairwise

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto.cli.imp_command import imp as command
from lotto.cli.plan_options import plan_of
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.lottery import options
from lotto.lottery.options import Plan, Retraining
from lotto.lottery.plan import make_plan
from lotto.pruning import Adaptive, Cubic, DensitySchedule, Explicit, Geometric, OneShot, ToDensity, masks

NAMES = {f.name for f in fields(Plan)}


@pytest.fixture
def engine(store):
    return Serial(store)


def flags(**given: object) -> dict[str, object]:
    """The options of the command at their defaults, but for those that are given."""
    parameters = inspect.signature(command).parameters
    return {n: p.default for n, p in parameters.items() if n in NAMES} | given


def test_every_option_is_an_argument_of_imp_and_a_flag_of_the_command_and_documented_in_each():
    for function in (lotto.imp, make_plan, command):
        assert set(inspect.signature(function).parameters) >= NAMES, function
    for name in NAMES:
        for text in (lotto.imp.__doc__, Plan.__doc__, make_plan.__doc__):
            assert f"\n        {name}: " in text
    assert all(f.default is not MISSING and options.about(f) for f in fields(Plan))


def test_a_field_that_is_added_is_an_option_everywhere():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class More(Plan):
        colour: str | None = options.option(None, "a new option")

    before, options.Plan = options.Plan, More
    try:

        def call(recipe, plan=None):
            """{options}"""
            return plan

        assert options.made_from_plan(call)("recipe", colour="red").colour == "red"
        assert "colour: a new option." in options.made_from_plan(call).__doc__
    finally:
        options.Plan = before


def test_the_command_line_says_what_the_defaults_of_the_plan_say():
    assert plan_of(flags()) == Plan()


def test_flags_are_read_as_the_options_they_are():
    read = plan_of(
        flags(
            controls="none", control_levels="8,14", densities="0.5,0.25", replicates="auto", after="lr",
            restart_dense=True, finetune_lr=0.1, rewind_to="5it",
        )
    )  # fmt: skip
    assert read == Plan(
        controls=(), control_levels=(8, 14), densities=(0.5, 0.25), replicates="auto", after=Retraining.LR,
        restart_dense=True, finetune_lr=0.1, rewind_to="5it",
    )  # fmt: skip
    assert plan_of(flags(control_levels="all", controls="random")) == Plan(controls=("random",))
    with pytest.raises(UsageError, match=r"--densities takes numbers separated by commas, such as .*; got .half'"):
        plan_of(flags(densities="half"))


@pytest.mark.parametrize(
    ("given", "controls"),
    [
        ("none", ()), (["none"], ()), ((), ()), ("random", ("random",)), ("random, reinit", ("random", "reinit")),
        (["random", "random"], ("random",)),
    ],
)  # fmt: skip
def test_controls_are_named_in_one_way_everywhere(given, controls):
    assert Plan(controls=given).controls == controls
    assert make_plan(small_recipe(), 1, controls=given, replicates=2).trained_controls == controls
    if isinstance(given, str):
        assert plan_of(flags(controls=given)).controls == controls


def test_what_is_no_control_is_said_wherever_it_is_asked_for():
    for ask in (lambda given: Plan(controls=given), lambda given: plan_of(flags(controls=given))):
        with pytest.raises(UsageError, match="controls='none' is no control, so it stands alone; got none, random"):
            ask("none,random")
        with pytest.raises(UsageError, match=r"Unknown control 'nothing'. Choices: none, random, reinit"):
            ask("nothing")
    assert Plan(control_levels="all") == Plan() == plan_of(flags(control_levels="all"))
    with pytest.raises(UsageError, match="control_levels is a list of whole numbers or None"):
        Plan(control_levels="some")


def test_the_old_positions_and_keywords_a_plan_and_a_changed_plan_are_the_same():
    recipe = small_recipe()
    wanted = make_plan(recipe, Plan(3, 0.5, "7it", 2, ("random",), seed=4))
    assert make_plan(recipe, 3, 0.5, "7it", 2, ["random"], seed=4) == wanted
    assert make_plan(recipe, levels=3, rate=0.5, rewind_to=7, replicates=2, controls="random", seed=4) == replace(
        wanted, options=replace(wanted.options, rewind_to=7)
    )
    assert make_plan(recipe, Plan(5, 0.5, "7it", 2, ("random",)), levels=3, seed=4) == wanted


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        ({}, Geometric(0.2, 16)),
        ({"levels": 3, "rate": 0.5}, Geometric(0.5, 3)),
        ({"density": 0.25}, ToDensity(0.25, 0.2)),
        ({"density": 0.25, "rate": 0.5}, ToDensity(0.25, 0.5)),
        ({"levels": 3, "one_shot": True}, OneShot(like_levels=3)),
        ({"density": 0.25, "one_shot": True}, OneShot(like_levels=7)),  # 0.8 ** 7 = 0.21
        ({"density": 0.25, "schedule": "one-shot"}, OneShot(like_levels=7)),
        ({"densities": [0.5, 0.25, 0.1]}, Explicit((0.5, 0.25, 0.1))),
        ({"schedule": "cubic", "density": 0.1, "levels": 4}, Cubic(0.1, 4)),
        ({"schedule": "geometric", "levels": 4}, Geometric(0.2, 4)),
        ({"adaptive": True, "density": 0.1}, Adaptive(0.1)),
        ({"schedule": "adaptive", "levels": 5}, Adaptive(levels=5)),
        ({"schedule": OneShot(0.1)}, OneShot(0.1)),
    ],
)
def test_the_short_options_make_schedules(given, schedule):
    plan = make_plan(small_recipe(), **given)
    assert plan.schedule == schedule
    assert plan.adaptive == isinstance(schedule, Adaptive) == bool(plan.recipe.validation)
    if not plan.adaptive:
        assert len(plan.densities) == plan.levels


class Halving(DensitySchedule):
    def next_cut(self, rule, mask, level):
        return replace(rule, rate=0.5) if level < 2 else None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"densities": [0.5, 0.25, 0.1]}, [0.5, 0.25, 0.1]),
        ({"schedule": Cubic(0.1, levels=3)}, [0.1 + 0.9 * (1 - t / 3) ** 3 for t in (1, 2, 3)]),
        ({"schedule": OneShot(0.3)}, [0.3]),
        ({"schedule": Halving()}, [0.5, 0.25]),
    ],
)
def test_levels_have_exactly_the_densities_of_the_schedule(given, kept, engine):
    recipe = small_recipe(steps="10it")
    result = lotto.imp(recipe, rewind_to="2it", replicates=2, controls=(), engine=engine, **given)
    size = masks.size(masks.ones(recipe))
    for levels in result.replicates:
        assert [masks.count(at.mask) for at in levels] == [size, *(round(d * size) for d in kept)]
        for before, at in pairwise(levels):
            cut = lotto.pruning.prune(
                before.run.weights, before.mask, rate=1 - masks.count(at.mask) / masks.count(before.mask)
            )
            assert same_tensors(at.mask, cut)
    assert result.plan.densities == pytest.approx(kept, abs=1 / size)


def test_a_schedule_that_ends_by_which_weights_are_left_is_refused(engine):
    class Once(DensitySchedule):
        asked = 0

        def next_cut(self, rule, mask, level):
            self.asked += 1
            return replace(rule, rate=0.5) if level < 2 and self.asked < 4 else None

    with pytest.raises(UsageError, match=r"Once\(asked=\d\) ends at level 0 here, and at level 2"):
        lotto.imp(small_recipe(steps="3it"), schedule=Once(), replicates=2, controls=(), engine=engine)


def test_texts_of_plans_are_those_of_before_where_the_schedule_is_geometric_and_name_it_where_it_is_not():
    recipe = small_recipe(pruning__rates={"fc3": 0.1})
    told = make_plan(recipe, 3, one_shot=True).describe()
    assert told["levels"] == 1
    assert told["rate"] == pytest.approx(1 - 0.8**3)
    assert told["rates"] == {"fc3": pytest.approx(1 - 0.9**3)}
    assert "schedule" not in told
    assert make_plan(recipe, densities=[0.5]).describe()["schedule"] == "Explicit(densities=(0.5,))"
    assert [*make_plan(recipe, 2).describe()] == [
        "levels", "rate", "score", "scope", "rates", "exclude", "rewind_step", "rewind_optimizer", "after", "order",
        "replicates", "controls", "control_levels", "seed", "adaptive", "particles",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"levles": 3}, "has no argument 'levles'.*Did you mean 'levels'"),
        ({"levels": "three"}, "levels is a whole number or None; got 'three'"),
        ({"densities": [0.5, 0.6]}, "Densities fall from level to level"),
        ({"densities": [0.5], "levels": 2}, "densities say all levels.*do not go with levels"),
        ({"densities": [0.5], "adaptive": True}, "do not go with adaptive"),
        ({"schedule": "cubik"}, "Unknown schedule 'cubik'.*Did you mean 'cubic'"),
        ({"schedule": "cubic"}, "A cubic schedule takes a density, where it ends"),
        ({"schedule": "cubic", "one_shot": True}, "There is one schedule; got cubic and one-shot"),
        ({"schedule": Cubic(0.1), "levels": 3}, "says by itself how far it goes; it does not go with levels"),
        ({"schedule": [0.5]}, "schedule is a DensitySchedule or text or None, such as lotto.pruning.Cubic"),
        ({"particles": 0}, "particles is 1 or more"),
        ({"one_shot": 1}, "one_shot is True or False; got 1"),
    ],
)
def test_what_no_plan_can_be_is_refused_in_one_sentence(given, text):
    for make in (Plan, lambda **options: make_plan(small_recipe(), **options)):
        with pytest.raises(UsageError, match=text):
            make(**given)


def test_what_the_recipe_cannot_follow_is_refused_before_training(engine):
    events: list = []
    for given, text in (
        ({"densities": [0.5, 1e-6]}, "density 1e-06 cannot be reached from 0.5"),
        ({"schedule": Cubic(0.5, levels=200)}, "cannot be reached"),
        ({"densities": [0.5], "control_levels": [2]}, "Control levels are between 1 and 1"),
    ):
        with pytest.raises(UsageError, match=text):
            lotto.imp(small_recipe(), engine=engine, progress=events.append, **given)
    assert not events


def test_what_is_in_the_plans_place_is_a_plan_or_a_number_of_levels():
    with pytest.raises(UsageError, match="levels is a whole number or None; got 'x'"):
        lotto.imp(small_recipe(), "x")
    with pytest.raises(UsageError, match=r"plan is a lotto.Plan, such as lotto.Plan\(levels=5\); got 3"):
        lotto.imp(small_recipe(), 3, levels=3)
    with pytest.raises(UsageError, match="imp has no argument 'rates'"):
        lotto.imp(small_recipe(), rates=3)


def test_the_options_are_read_without_pytorch():
    script = "import lotto.lottery.options, sys; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


class Halving(lotto.pruning.DensitySchedule):
    """One of somebody else's, with a name on the command line."""

    def __init__(self, levels=2):
        self.levels = levels

    @classmethod
    def of_options(cls, short, rule, mask):
        return cls(short.levels or 2)

    def next_cut(self, rule, mask, level):
        return replace(rule, rate=0.5) if level < self.levels else None


def test_a_schedule_of_anybody_has_a_name_that_the_short_options_make(monkeypatch):
    name = f"{__name__}:Halving"
    assert make_plan(small_recipe(), schedule=name, levels=3, replicates=1).densities == [0.5, 0.25, 0.125]
    monkeypatch.setitem(lotto.pruning.density.NAMED, "halving", Halving)
    assert make_plan(small_recipe(), schedule="halving", replicates=1).densities == [0.5, 0.25]
    with pytest.raises(UsageError, match="A schedule is a subclass of"):
        Plan(schedule="lotto.pruning.density:check_levels")
    with pytest.raises(UsageError, match=r"Explicit is made in Python: schedule=Explicit\(\.\.\.\)"):
        make_plan(small_recipe(), schedule="lotto.pruning.density:Explicit")
