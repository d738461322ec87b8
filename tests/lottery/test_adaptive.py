"""Adaptive pruning: every decision against its rule, every level against the same training by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import lotto
import lotto.papers
from conftest import same_tensors, small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.lottery.adaptive import (
    BACK_OFF,
    FIRST_FRACTION,
    FREE_FRACTIONS,
    LARGEST_BARRIER,
    LEAST_FRACTION,
    POINTS,
    scaled,
)
from lotto.lottery.plan import make_plan
from lotto.pruning import Pruning, masks


@pytest.fixture
def engine(store):
    return Serial(store)


@pytest.fixture
def nothing_is_free(monkeypatch):
    """The rule without the projections' say."""
    monkeypatch.setattr(lotto.lottery.adaptive, "EPSILON", -math.inf)


def chosen_by(levels):
    """Errors on the held-out examples."""
    return np.array([at.run.history[-1]["validation_error"] for at in levels])


def run(engine, *, replicates=2, tolerance=3.0, **options):
    recipe = small_recipe(steps="80it", tolerance=tolerance, validation=60)
    given = {"replicates": replicates, "rewind_to": "10it", "controls": (), "adaptive": True, **options}
    return lotto.imp(recipe, engine=engine, **given)


def test_decisions_follow_the_rule(engine, nothing_is_free):
    result = run(engine, levels=6)
    starts = chosen_by([chain[0] for chain in result.replicates])
    dense = starts.mean()
    share, last = FIRST_FRACTION, 0
    assert {t.kept for t in result.trials} == {True, False}, "both happen here"
    for trial in result.trials:
        assert trial.share == share
        assert trial.level == last + 1
        matches = trial.error <= dense + result.plan.recipe.tolerance
        assert trial.kept == (matches and trial.barrier <= max(LARGEST_BARRIER, result.plan.recipe.tolerance))
        if trial.kept:
            last += 1
            errors = chosen_by([chain[last] for chain in result.replicates])
            assert trial.error == pytest.approx(errors.mean())
            assert trial.density == masks.density(result.replicates[0][last].mask)
        else:
            share *= BACK_OFF
    assert len(result.replicates[0]) == last + 1
    assert last == 6 or share < LEAST_FRACTION
    assert result.trainings == 1 + len(result.trials)
    for trial in (t for t in result.trials if t.kept):  # two replicates: Student's t of one degree of freedom
        gaps = chosen_by([chain[trial.level] for chain in result.replicates]) - starts
        half = 6.313751514675043 * np.std(gaps, ddof=1) / math.sqrt(2)
        assert trial.gap_high == pytest.approx(np.mean(gaps) + half)
        assert trial.split == "validation"
    assert {"gap", "verdict"} < {*result.table()}, "of the test set, which has chosen nothing"


def test_levels_are_the_same_trainings_by_hand(engine):
    result = run(engine, levels=2, tolerance=50.0)
    for replicate, chain in enumerate(result.replicates):
        dense = lotto.train(result.plan.recipe, replicate, replicate, keep=["10it"], engine=engine)
        start, before, mask = dense.state(10).without_optimizer, dense, masks.ones(result.plan.recipe)
        for number, trial in enumerate([t for t in result.trials if t.kept], start=1):
            mask = lotto.pruning.prune(before.weights, mask, trial.share)
            assert same_tensors(mask, chain[number].mask)
            before = lotto.train(
                result.plan.recipe, order_seed=replicate, start=start, mask=mask, from_step=10, engine=engine
            )
            assert same_tensors(before.weights, chain[number].run.weights)
    first = result.trials[0]
    barriers = [
        lotto.landscape.barrier(result.plan.recipe, c[0].run.weights, c[1].run.weights, POINTS, "validation", "line")
        for c in result.replicates
    ]
    assert first.barrier == pytest.approx(np.mean(barriers))


@pytest.mark.parametrize("epsilon", [0.02, 0.3, 1e9])
def test_what_the_projection_says_is_free_is_cut_first(engine, monkeypatch, epsilon):
    monkeypatch.setattr(lotto.lottery.adaptive, "EPSILON", epsilon)
    result = run(engine, levels=2, tolerance=100.0)
    recipe = result.plan.recipe
    for number, trial in enumerate(result.trials):
        rises = []
        for chain in result.replicates:
            at = chain[number]
            loss = lotto.evaluate(recipe, at.run.weights, "train").loss
            cuts = [
                masks.apply(at.run.weights, lotto.pruning.prune(at.run.weights, at.mask, s)) for s in FREE_FRACTIONS
            ]
            rises.append([lotto.evaluate(recipe, w, "train").loss - loss for w in cuts])
        free = [s for s, rise in zip(FREE_FRACTIONS, np.mean(rises, axis=0), strict=True) if rise <= epsilon]
        assert trial.share == max([FIRST_FRACTION, *free])
    if epsilon == 1e9:
        assert [t.share for t in result.trials] == [0.9, 0.9]
    if epsilon == 0.02:
        assert [t.share for t in result.trials] == [0.5, 0.5]


def test_a_free_cut_that_fails_is_followed_by_the_ordinary_one(engine, monkeypatch):
    monkeypatch.setattr(lotto.lottery.adaptive, "EPSILON", math.inf)
    errors = iter([0.0, 100.0, 0.0, 100.0, 100.0, 100.0, 100.0])
    monkeypatch.setattr(lotto.lottery.adaptive, "_errors", lambda runs, split: np.full(2, next(errors)))
    result = run(engine)
    assert [t.share for t in result.trials] == [0.9, 0.5, 0.9, 0.5, 0.25, 0.125]
    assert [t.kept for t in result.trials] == [False, True, False, False, False, False]


def test_it_ends_at_the_target_density(engine, nothing_is_free):
    result = run(engine, density=0.3, tolerance=100.0)
    last = result.replicates[0][-1].mask
    assert abs(masks.count(last) - 0.3 * masks.size(last)) <= 1
    assert [t.share for t in result.trials] == pytest.approx([0.5, 0.4], abs=0.01)


def test_when_nothing_can_go_the_dense_network_is_left(engine, monkeypatch, nothing_is_free):
    errors = iter([0.0, *[100.0] * 3])
    monkeypatch.setattr(lotto.lottery.adaptive, "_errors", lambda runs, split: np.full(2, next(errors)))
    result = run(engine, controls=("random",))
    assert [t.share for t in result.trials] == pytest.approx([FIRST_FRACTION * BACK_OFF**i for i in range(3)])
    assert not any(t.kept for t in result.trials)
    assert len(result.table()) == 1
    assert result.sparsest_matching().density == 1.0


def test_controls_are_at_the_last_level_and_all_is_remembered(engine):
    result = run(engine, levels=2, tolerance=50.0, controls=("random", "reinit"))
    table = result.table()
    assert table["random"].isna().tolist() == [True, True, False]
    events: list = []
    again = run(engine, levels=2, tolerance=50.0, controls=("random", "reinit"), progress=events.append)
    assert not any(e.trained for e in events if isinstance(e, JobFinished))
    assert again.trials == result.trials
    pd.testing.assert_frame_equal(again.table(), table)


@pytest.mark.parametrize(("given", "held"), [(60, 60), (0, 24)])
def test_held_out_examples_decide_and_are_set_aside_if_there_are_none(engine, given, held):
    recipe = small_recipe(validation=given, tolerance=50.0)
    result = lotto.imp(recipe, levels=1, replicates=1, controls=(), adaptive=True, engine=engine)
    (chain,) = result.replicates
    assert result.plan.recipe.validation == held
    assert result.plan.recipe.arrays.size("validation") == held
    assert result.trials[0].error == chain[1].run.history[-1]["validation_error"]
    assert result.trials[0].split == "validation"
    assert result.trials[0].verdict == "not decided (n = 1)"


def test_the_experiment_trains_all_that_it_compares_without_the_held_out_examples():
    chosen = papers.get("unmasking.adaptive").options(small_recipe(), {"levels": 1})
    assert chosen.recipe.validation == 24
    assert lotto.papers.get("unmasking.projection").options(small_recipe(), {"levels": 1}).recipe.validation == 0


def test_layers_with_their_own_rate_go_as_many_levels_further():
    rule = scaled(Pruning(0.2, scope="layer", rates={"fc3": 0.1}), 1 - 0.8**3)
    assert rule.rate == pytest.approx(1 - 0.8**3)
    assert rule.rates["fc3"] == pytest.approx(1 - 0.9**3)


def test_bad_options():
    with pytest.raises(UsageError, match="does not go with one_shot"):
        make_plan(small_recipe(), adaptive=True, one_shot=True)
    with pytest.raises(UsageError, match="greater than 0 and less than 1; got 2"):
        make_plan(small_recipe(), adaptive=True, density=2)
    with pytest.raises(UsageError, match="has one look"):
        make_plan(small_recipe(), adaptive=True, replicates="auto")
    assert make_plan(small_recipe(), adaptive=True).jobs is None


def test_command(tmp_path, capsys, nothing_is_free):
    main(
        ["imp", "mlp-mnist1d", "--steps", "60it", "--adaptive", "--levels", "2", "--replicates", "1", "--jobs", "1",
         "--controls", "none", "--set", "tolerance=100", "--out", str(tmp_path)]
    )  # fmt: skip
    shown = " ".join(capsys.readouterr().out.split())
    assert "Adaptive: 3 trainings per replicate, 0 of them not kept; 20% per level takes 8 to 25 %." in shown
    assert list(pd.read_csv(tmp_path / "trials.csv")["kept"]) == [True, True]
