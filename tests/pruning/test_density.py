"""Schedules of densities, against counts by hand."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.pruning import (
    Adaptive,
    Cubic,
    DensitySchedule,
    Explicit,
    Geometric,
    Mask,
    OneShot,
    Pruning,
    ToDensity,
    densities_of,
    levels_for,
    masks,
    prune,
    to_density,
)

SIZES = {"fc1.weight": (61, 50), "fc2.weight": (20, 61), "fc3.weight": (7, 20)}
SIZE = 61 * 50 + 20 * 61 + 7 * 20


def ones() -> Mask:
    return Mask({name: torch.ones(shape, dtype=torch.bool) for name, shape in SIZES.items()})


def counts(schedule: DensitySchedule, rule: Pruning | None = None) -> list[int]:
    return [round(d * SIZE) for d in densities_of(schedule, rule or Pruning(), ones())]


def test_geometric_removes_exactly_the_rounded_share_of_what_remains():
    left, expected = SIZE, []
    for _ in range(12):
        left -= round(Fraction(3, 10) * left)
        expected.append(left)
    assert counts(Geometric(0.3, levels=12)) == expected


def test_the_rate_is_the_recipes_unless_the_schedule_has_one():
    rule = Pruning(rate=0.5, rates={"fc3": 0.25})
    assert Geometric(levels=3).next_cut(rule, ones(), 0) is rule
    assert counts(Geometric(levels=1), Pruning(0.5)) == [SIZE // 2]
    assert ToDensity(0.3, rate=0.5).next_cut(Pruning(), ones(), 0) == Pruning(0.5)


def test_to_density_ends_at_the_first_level_that_is_not_above_it():
    found = densities_of(ToDensity(0.25), Pruning(), ones())
    assert len(found) == 7 == levels_for(ones(), Pruning(), 0.25)  # 0.8 ** 6 = 0.262, 0.8 ** 7 = 0.21
    assert found[-1] <= 0.25 < found[-2]


@pytest.mark.parametrize("scope", ["global", "erk"])
@pytest.mark.parametrize("rates", [{}, {"fc3": 0.1}, {"fc3": 0.0}, {"fc1": 0.15, "fc3": 0.3}])
def test_explicit_densities_are_exact_to_the_weight(scope, rates):
    wanted = (0.77, 0.5, 0.251, 0.1)
    assert counts(Explicit(wanted), Pruning(scope=scope, rates=rates)) == [round(d * SIZE) for d in wanted]


def test_layers_with_own_rates_go_as_many_ordinary_levels_further():
    # Two ordinary levels: 0.8 ** 2 of the pool, 0.9 ** 2 of fc3.
    pool, own = SIZE - 140, 140
    target = (pool * 0.64 + own * 0.81) / SIZE
    rule = to_density(Pruning(rates={"fc3": 0.1}), ones(), target)
    assert rule.rate == pytest.approx(0.36, abs=1e-3)
    assert rule.rates["fc3"] == pytest.approx(0.19, abs=1e-2)
    mask = prune(ones(), ones(), rule.rate, "random", rates=rule.rates)
    assert masks.count(mask) == round(target * SIZE)


def test_by_layer_every_layer_loses_the_same_share():
    rule = to_density(Pruning(scope="layer"), ones(), 0.3)
    mask = prune(ones(), ones(), rule.rate, "random", "layer")
    for name, shape in SIZES.items():
        size = shape[0] * shape[1]
        assert int(mask[name].sum()) == size - round((SIZE - round(0.3 * SIZE)) / SIZE * size)


def test_a_cubic_schedule_follows_zhu_and_gupta():
    # 1710.01878, equation 1, in sparsities.
    final, first, n = 0.95, 0.2, 8
    sparsity = [final + (first - final) * (1 - t / n) ** 3 for t in range(1, n + 1)]
    assert Cubic(0.05, n, start=0.8).densities == pytest.approx([1 - s for s in sparsity], abs=1e-12)
    assert counts(Cubic(0.05, n, start=0.8)) == [round(d * SIZE) for d in Cubic(0.05, n, 0.8).densities]
    assert counts(Cubic(0.05, n))[-1] == round(0.05 * SIZE)


def test_one_shot_cuts_once_to_a_density_or_as_far_as_levels_would():
    assert counts(OneShot(0.1)) == [round(0.1 * SIZE)]
    assert counts(OneShot(like_levels=3)) == [SIZE - round((1 - 0.8**3) * SIZE)]
    rule = OneShot(like_levels=3).next_cut(Pruning(rates={"fc3": 0.1}), ones(), 0)
    assert rule is not None
    assert rule.rates == {"fc3": pytest.approx(1 - 0.9**3)}


def test_adaptive_says_the_largest_cut_that_may_be_tried():
    half = prune(ones(), ones(), 0.5, "random")
    assert Adaptive(0.2).next_cut(Pruning(), half, 1).rate == pytest.approx(0.6)
    assert Adaptive().next_cut(Pruning(), half, 1).rate == 0.9
    assert Adaptive(0.5).next_cut(Pruning(), half, 1) is None
    assert Adaptive(levels=1).next_cut(Pruning(), half, 1) is None
    assert (Adaptive().levels, Adaptive(0.1).levels, Adaptive(0.1, 4).levels) == (16, 200, 4)


@settings(max_examples=30, deadline=None)
@given(
    wanted=st.lists(st.integers(1, SIZE - 1), min_size=1, max_size=6, unique=True),
    rate=st.floats(0, 0.6),
    scope=st.sampled_from(["global", "erk"]),
)
def test_any_falling_densities_are_exact_or_refused(wanted, rate, scope):
    levels = sorted(wanted, reverse=True)
    schedule, rule = Explicit(tuple(count / SIZE for count in levels)), Pruning(scope=scope, rates={"fc3": rate})
    if levels[-1] > 140 + 1:  # fewer than fc3 may keep
        assert counts(schedule, rule) == levels
    else:
        with contextlib.suppress(UsageError):
            assert counts(schedule, rule) == levels


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Explicit((0.5, 0.6)), "Densities fall from level to level.*got 0.6 at level 2 after 0.5"),
        (lambda: Explicit((0.5, 0.5)), "got 0.5 at level 2 after 0.5"),
        (lambda: Explicit(()), "The number of densities is between 1 and 200; got 0"),
        (lambda: Explicit((1.0,)), "greater than 0 and less than 1; got 1"),
        (lambda: Explicit("0.5"), "densities is a list of numbers"),
        (lambda: Cubic(0.5, start=0.4), "falls from start, at most 1, to density; got start=0.4, density=0.5"),
        (lambda: Cubic(0.05, levels=0), "levels is between 1 and 200; got 0"),
        (lambda: Cubic(), "density"),
        (lambda: Geometric(1.5), "rate is a number"),
        (lambda: OneShot(), "either a density or like_levels"),
        (lambda: OneShot(0.1, 3), "either a density or like_levels"),
        (lambda: ToDensity(0), "greater than 0 and less than 1; got 0"),
        (lambda: Adaptive(2.0), "greater than 0 and less than 1; got 2"),
        (lambda: Geometric(levles=2), "has no argument 'levles'.*levels"),
    ],
)
def test_what_no_schedule_can_be_is_refused_in_one_sentence(make, text):
    with pytest.raises(UsageError, match=text):
        make()


def test_what_a_network_cannot_reach_is_refused():
    with pytest.raises(UsageError, match="The density 1e-09 cannot be reached"):
        counts(ToDensity(1e-9))
    with pytest.raises(UsageError, match=r"density 0.0001 cannot be reached from 0.5: of 4,410 .* 2,205 are left.* 0"):
        counts(Explicit((0.5, 0.0001)))
    with pytest.raises(UsageError, match=r"cannot be reached.*layers with rates of their own keep 3,050"):
        counts(Explicit((0.5,)), Pruning(rates={"fc1": 0.0}))


class Rising(DensitySchedule):
    def next_cut(self, rule, mask, level):
        return to_density(rule, mask, 0.5 + 0.1 * level)


class Endless(DensitySchedule):
    def next_cut(self, rule, mask, level):
        return Pruning(1e-3 if level < 500 else 0.5)


class Steady(DensitySchedule):
    def next_cut(self, rule, mask, level):
        return to_density(rule, mask, 1 - 0.1 * (level + 1)) if level < 9 else None


def test_schedules_of_ones_own():
    assert counts(Steady()) == [round((1 - 0.1 * i) * SIZE) for i in range(1, 10)]
    with pytest.raises(UsageError, match=r"density 0.6 cannot be reached from 0.5"):
        counts(Rising())
    with pytest.raises(UsageError, match=r"Endless.* does not end within 200 levels"):
        counts(Endless())


def test_a_schedule_of_ones_own_has_the_same_text_in_every_process():
    steady = Steady()
    assert repr(steady) == "Steady()"
    steady.pace = 0.1
    assert repr(steady) == "Steady(pace=0.1)"


def test_a_cut_that_is_none_is_refused():
    class Number(DensitySchedule):
        def next_cut(self, rule, mask, level):
            return 0.5

    with pytest.raises(UsageError, match=r"Number\(\): next_cut returns a Pruning, or None at the end; got 0.5"):
        counts(Number())
