import math

import numpy as np
import pytest
from scipy import stats

import lotto
from conftest import small_arrays, small_recipe
from lotto.core.errors import UsageError


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    recipe = small_recipe(data=small_arrays(test=300), steps="30it")
    store = lotto.Store(tmp_path_factory.mktemp("store"))
    return lotto.imp(recipe, levels=2, rate=0.5, replicates=3, jobs=1, store=store, progress=False)


def wrong(result, replicate, weights):
    """One example at a time, by hand."""
    arrays = result.plan.recipe.arrays
    network = lotto.models.build("mlp-24-16", (12,), arrays.classes).eval()
    network.load_state_dict(dict(weights))
    return np.array(
        [int(network(x[None]).argmax() != y) for x, y in zip(arrays.x["test"], arrays.y["test"], strict=True)]
    )


def test_gaps_their_variance_and_mcnemars_test_are_those_of_slow_references(result):
    found = result.compare(0, 2)
    one, two = (
        [wrong(result, r, levels[at].run.weights) for r, levels in enumerate(result.replicates)] for at in (0, 2)
    )
    gaps = [100 * (b.mean() - a.mean()) for a, b in zip(one, two, strict=True)]
    assert found.gaps == pytest.approx(gaps)
    assert found.gap == pytest.approx(np.mean(gaps))
    assert found.variance == pytest.approx(np.var(gaps, ddof=1))
    half = stats.t.ppf(0.975, 2) * np.std(gaps, ddof=1) / math.sqrt(3)
    assert found.interval == pytest.approx((np.mean(gaps) - half, np.mean(gaps) + half))
    parts = [np.var(100.0 * (b - a), ddof=1) / 300 for a, b in zip(one, two, strict=True)]
    assert found.test_variance == pytest.approx(np.mean(parts))
    for a, b, p in zip(one, two, found.p_values, strict=True):
        only_a, only_b = int((a & ~b & 1).sum()), int((b & ~a & 1).sum())
        assert p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0)
    assert repr(found).startswith("Comparison(level 2 minus the dense network: ")


def test_controls_are_compared_and_a_network_equals_itself(result):
    control = result.compare(2, (2, "random"))
    errors = [(levels[2].controls["random"].test_error, levels[2].run.test_error) for levels in result.replicates]
    assert control.gaps == pytest.approx([a - b for a, b in errors])
    same = result.compare(1, 1)
    assert same.gaps == (0.0,) * 3
    assert same.p_values == (1.0,) * 3


def test_what_was_not_trained_is_named(result):
    with pytest.raises(UsageError, match=r"both level 9 and the dense network\. There are the levels 0, 1, 2"):
        result.compare(9, 0)
    with pytest.raises(UsageError, match="both nothing of level 1 and level 1"):
        result.compare((1, "nothing"), 1)
    with pytest.raises(UsageError):
        result.compare("dense", 1)


def test_a_regression_has_gaps_but_no_mistakes(tmp_path):
    recipe = small_recipe(loss="mse", error="mse", tolerance="5%", steps="10it")
    result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1, store=lotto.Store(tmp_path), progress=False)
    found = result.compare(0, 1)
    assert len(found.gaps) == 2
    assert math.isnan(found.test_variance)
    assert found.p_values == ()
