from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lotto import Constant, Cosine, Exponential, Linear, MultiStep, recipes
from lotto.core.errors import UsageError


def test_multistep_drops_at_its_milestones():
    schedule = MultiStep(milestones=("2ep", "30it"), gamma=0.1)
    assert [schedule.factor(s, 40, 10) for s in (0, 19)] == [1.0, 1.0]
    assert [schedule.factor(s, 40, 10) for s in (20, 29, 30)] == pytest.approx([0.1, 0.1, 0.01])


def test_linear_and_cosine():
    assert [Linear().factor(s, 10, 1) for s in (0, 5)] == pytest.approx([1.0, 0.5])
    assert Linear(end=0.5).factor(5, 10, 1) == pytest.approx(0.75)
    for s in range(10):
        assert Cosine().factor(s, 10, 1) == pytest.approx(0.5 * (1 + math.cos(math.pi * s / 10)))


def test_exponential_falls_by_one_factor():
    rates = [Exponential(end=1e-4).factor(s, 10, 1) for s in range(11)]
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([1e-4**0.1] * 10)
    assert (rates[0], rates[10]) == pytest.approx((1.0, 1e-4))
    with pytest.raises(UsageError, match="ends above 0"):
        Exponential(end=0.0)


@pytest.mark.parametrize(
    "schedule", [Constant(warmup=4), Linear(warmup=4), Cosine(warmup=4), MultiStep(warmup=4), Exponential(warmup=4)]
)
def test_warmup_rises_to_one_and_joins_the_schedule(schedule):
    assert [schedule.factor(s, 20, 1) for s in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_milestones_must_increase():
    with pytest.raises(UsageError, match="must increase"):
        MultiStep(milestones=("30it", "20it")).resolved(10)


def test_the_papers_schedules():
    # STAB figure 2, with the swapped cells put right: ResNet-20 drops at 20K and 25K of 30K.
    standard = recipes.resnet20_cifar10()
    rates = {s: standard.learning_rate(s) for s in (0, 19_999, 20_000, 25_000, 29_999)}
    assert rates == pytest.approx({0: 0.1, 19_999: 0.1, 20_000: 0.01, 25_000: 0.001, 29_999: 0.001})
    warm = recipes.resnet20_cifar10_warmup()
    assert warm.learning_rate(9_999) == pytest.approx(0.015)
    assert warm.learning_rate(19_999) == pytest.approx(0.03)
    assert warm.learning_rate(20_000) == pytest.approx(0.003)


def test_the_papers_imagenet_schedules():
    # STAB figure 2; 351 iterations stand for an epoch here.
    resnet, inception, squeeze = (recipes.get(f"{n}-imagenet") for n in ("resnet50", "inception-v3", "squeezenet"))
    rates = [resnet.learning_rate(351 * epoch) for epoch in (5, 29, 30, 60, 80)]
    assert rates == pytest.approx([0.4, 0.4, 0.04, 0.004, 0.0004])
    assert inception.learning_rate(0) == pytest.approx(0.03)
    assert inception.learning_rate(inception.total - 1) == pytest.approx(0.005, rel=1e-4)
    assert squeeze.learning_rate(0) == pytest.approx(0.66)
    assert squeeze.learning_rate(squeeze.total // 2) == pytest.approx(0.0066)


@pytest.fixture(autouse=True)
def _without_downloads(monkeypatch):
    # The schedules need only the size of an epoch.
    monkeypatch.setattr(recipes.Recipe, "per_epoch", 351)
