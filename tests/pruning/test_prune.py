from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto import Mask
from lotto.core.errors import UsageError
from lotto.pruning import erk_counts, keep_top, masks, prune

rates = st.floats(0.01, 0.99)


def random_case(seed: int, ties: bool = False):
    generator = np.random.default_rng(seed)
    shapes = {"a.weight": (4, 6), "b.weight": (5, 4), "c.weight": (3, 5)}
    weights = {
        n: torch.from_numpy(generator.integers(-2, 3, s).astype(np.float32) if ties else generator.normal(size=s))
        for n, s in shapes.items()
    }
    mask = Mask({n: torch.from_numpy(generator.random(s) < 0.7) for n, s in shapes.items()})
    return weights, mask


def slow_keep(scores, kept, mask):
    """Sort all candidates by (score descending, position) and keep the first ones."""
    candidates = [
        (-float(scores[n].flatten()[i]), layer, i)
        for layer, n in enumerate(mask)
        for i in range(mask[n].numel())
        if mask[n].flatten()[i]
    ]
    chosen = {(layer, i) for _, layer, i in sorted(candidates)[:kept]}
    return {
        n: torch.tensor([(layer, i) in chosen for i in range(mask[n].numel())]).reshape(mask[n].shape)
        for layer, n in enumerate(mask)
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), rates, st.booleans())
def test_global_pruning_equals_a_slow_sort_and_is_exact(seed, rate, ties):
    weights, mask = random_case(seed, ties)
    before = masks.count(mask)
    new = prune(weights, mask, rate=rate)
    assert before - masks.count(new) == round(rate * before)
    expected = slow_keep({n: w.abs() for n, w in weights.items()}, before - round(rate * before), mask)
    assert all(torch.equal(new[n], expected[n]) for n in mask)
    assert all(not (new[n] & ~mask[n]).any() for n in mask)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), rates)
def test_layer_scope_is_exact_in_every_layer(seed, rate):
    weights, mask = random_case(seed)
    new = prune(weights, mask, rate=rate, scope="layer")
    for n in mask:
        before = int(mask[n].sum())
        assert before - int(new[n].sum()) == round(rate * before)


def test_global_compares_raw_magnitudes_without_normalisation():
    weights = {"big": torch.tensor([10.0, 11.0]), "small": torch.tensor([0.1, 0.2])}
    new = prune(weights, {n: torch.ones(2, dtype=torch.bool) for n in weights}, rate=0.5)
    assert new["big"].tolist() == [True, True]
    assert new["small"].tolist() == [False, False]


def test_ties_are_broken_by_position():
    weights = {"a": torch.ones(4), "b": torch.ones(4)}
    new = prune(weights, masks.Mask({n: torch.ones(4) for n in weights}), rate=0.5)
    assert new["a"].tolist() == [True] * 4
    assert new["b"].tolist() == [False] * 4


def test_own_rates_leave_the_pool_and_zero_keeps_a_layer():
    weights, mask = random_case(3)
    new = prune(weights, mask, rate=0.5, rates={"c": 0.0, "a.weight": 0.25})
    assert torch.equal(new["c.weight"], mask["c.weight"])
    count = {n: int(mask[n].sum()) for n in mask}
    assert count["a.weight"] - int(new["a.weight"].sum()) == round(0.25 * count["a.weight"])
    assert count["b.weight"] - int(new["b.weight"].sum()) == round(0.5 * count["b.weight"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), rates)
def test_erk_counts_add_up_and_never_exceed_a_layer(seed, rate):
    _, mask = random_case(seed)
    total = masks.count(mask) - round(rate * masks.count(mask))
    counts = erk_counts(mask, total)
    assert sum(counts.values()) == total
    assert all(0 <= counts[n] <= int(mask[n].sum()) for n in mask)


def test_erk_densities_follow_the_formula():
    mask = Mask({"wide": torch.ones(100, 100), "narrow": torch.ones(20, 20)})
    counts = erk_counts(mask, 1000)
    ratio = (counts["narrow"] / 400) / (counts["wide"] / 10_000)
    assert ratio == pytest.approx((40 / 400) / (200 / 10_000), rel=0.02)
    new = prune({n: torch.randn(m.shape) for n, m in mask.items()}, mask, rate=0.9, scope="erk")
    assert masks.count(new) == 10_400 - round(0.9 * 10_400)


def test_scores():
    weights = {"a": torch.tensor([1.0, -4.0, 3.0, 0.5])}
    start = {"a": torch.tensor([0.0, -4.0, 3.0, -0.1])}
    mask = Mask({"a": torch.ones(4)})
    assert prune(weights, mask, 0.5).get("a").tolist() == [False, True, True, False]
    grew = prune(weights, mask, 0.5, "magnitude-increase", start=start)
    assert grew["a"].tolist() == [True, False, False, True]
    one, other = (prune(weights, mask, 0.5, "random", seed=s) for s in (1, 3))
    assert masks.count(one) == masks.count(other) == 2
    assert torch.equal(one["a"], prune(weights, mask, 0.5, "random", seed=1)["a"])
    own = prune(weights, mask, 0.25, score=lambda weight, start, generator: weight)
    assert own["a"].tolist() == [True, False, True, True]


def test_bad_input_is_named():
    weights, mask = random_case(0)
    for rate in (0, 1, -0.2, 1.5, math.nan, "0.2"):
        with pytest.raises(UsageError, match="greater than 0 and less than 1"):
            prune(weights, mask, rate=rate)
    with pytest.raises(UsageError, match=r"Unknown score 'magnitud'.*Did you mean 'magnitude'"):
        prune(weights, mask, score="magnitud")
    with pytest.raises(UsageError, match="Unknown allocation 'globl'"):
        prune(weights, mask, scope="globl")
    with pytest.raises(UsageError, match=r"rate is given for 'z', which is no prunable layer"):
        prune(weights, mask, rates={"z": 0.1})
    with pytest.raises(UsageError, match="needs the weights at the rewind point"):
        prune(weights, mask, score="magnitude-increase")
    weights["b.weight"][0, 0] = math.nan
    with pytest.raises(UsageError, match=r"'b\.weight' hold NaN"):
        prune(weights, mask)
    with pytest.raises(UsageError, match="score is NaN"):
        keep_top(weights, 3, {n: torch.ones_like(m) for n, m in mask.items()})
    with pytest.raises(UsageError, match="returns a tensor of the weight's shape"):
        prune(random_case(0)[0], mask, score=lambda w, s, g: w.sum())


def test_of_nothing_nothing_goes():
    assert dict(prune({}, {}, 0.5)) == {}
