"""How many replicates a verdict takes: the spread that is estimated, the counts, the command."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

import lotto
from conftest import same_tensors, small_recipe
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.lottery import GapSpread, gap_spread


def test_the_spread_is_that_of_copies_on_another_data_order(store):
    recipe, engine = small_recipe(), Serial(store)
    found = gap_spread(recipe, "7it", 3, seed=5, engine=engine)
    gaps = []
    for seed in (5, 6, 7):
        dense = lotto.train(recipe, seed, seed, keep=["7it"], engine=engine)
        start = dense.state(7).without_optimizer
        other = derived_seed(seed, "another-order", 1)
        copy = lotto.train(recipe, order_seed=other, start=start, from_step="7it", engine=engine)
        assert not same_tensors(dense.weights, copy.weights)
        gaps.append(copy.test_error - dense.test_error)
    assert found.gaps == pytest.approx(gaps)
    assert found.std == pytest.approx(math.sqrt(sum(g * g for g in gaps) / 3))
    assert found.tolerance == 5.0


def test_the_test_sets_part_is_what_the_disagreements_make(store):
    recipe, engine = small_recipe(), Serial(store)
    found = gap_spread(recipe, "7it", 2, engine=engine)
    variances = []
    for seed in (0, 1):
        dense = lotto.train(recipe, seed, seed, keep=["7it"], engine=engine)
        other = derived_seed(seed, "another-order", 1)
        copy = lotto.train(
            recipe, order_seed=other, start=dense.state(7).without_optimizer, from_step="7it", engine=engine
        )
        differences = copy.mistakes.wrong.astype(float) - dense.mistakes.wrong.astype(float)
        variances.append(1e4 * differences.var(ddof=1) / len(differences))
    assert found.test_std == pytest.approx(math.sqrt(np.mean(variances)))


def test_its_dense_networks_are_those_of_imp(store):
    recipe, engine = small_recipe(), Serial(store)
    gap_spread(recipe, "7it", 2, engine=engine)
    events: list = []
    lotto.imp(recipe, 1, rewind_to="7it", replicates=2, controls=(), engine=engine, progress=events.append)
    assert sorted(e.trained for e in events if isinstance(e, JobFinished)) == [False, False, True, True]


def test_counts_grow_towards_the_tolerance_and_with_the_spread():
    found = GapSpread((10.0, 11.0, 10.5), (0.1, -0.12, 0.11), 0.2)
    table = found.table()
    assert list(table["gap"]) == pytest.approx([0.0, 0.1, 0.3, 0.4])
    assert list(table["shown"]) == ["matching", "matching", "failing", "failing"]
    assert list(table["replicates"]) == list(table["replicates"])[::-1], "as far below as above"
    assert table["replicates"][1] > table["replicates"][0]
    assert (table["replicates_high"] >= table["replicates"]).all()
    assert found.std_high == pytest.approx(found.std * math.sqrt(3 / scipy.stats.chi2(3).ppf(0.1)))


def test_the_bound_of_the_spread_holds_in_nine_of_ten_cases():
    gaps = np.random.default_rng(0).normal(0, 0.3, (2000, 5))
    above = [GapSpread((), tuple(row), 0.2).std_high > 0.3 for row in gaps]
    assert np.mean(above) == pytest.approx(0.9, abs=0.025)


def test_what_cannot_be_estimated_is_refused_before_training():
    with pytest.raises(UsageError, match="two or more replicates; got 1"):
        gap_spread(small_recipe(), replicates=1)
    with pytest.raises(UsageError, match="rewind step 40 is not before the end of training at 40"):
        gap_spread(small_recipe(), "40it")


def test_command(capsys):
    main(["power", "mlp-mnist1d", "--steps", "20it", "--replicates", "2", "--rewind-to", "5it", "--jobs", "1"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Replicates that decide in 80% of all cases" in shown
    for gap in ("+0.00 matching", "+0.50 matching", "+1.50 failing", "+2.00 failing"):
        assert gap in shown
    assert "4 computed, 0 remembered." in shown
    assert "lotto imp mlp-mnist1d --replicates" in shown
