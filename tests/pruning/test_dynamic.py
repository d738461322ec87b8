"""Masks that change keep exact counts: compared with slow sorting, weight by weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.dynamic import exchange, exchange_counts, random_growth, thinned


@st.composite
def layers(draw):
    """Weights with many ties, a mask, and scores."""
    found = {}
    for name in ("a.weight", "b.weight"):
        size = draw(st.integers(1, 12))
        keep = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        drawn = [draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size)) for _ in range(2)]
        weight, score = (torch.tensor(values, dtype=torch.float32) for values in drawn)
        found[name] = weight * keep, keep, score
    return tuple({name: parts[i] for name, parts in found.items()} for i in range(3))


@given(layers(), st.floats(0, 1))
def test_each_layer_drops_its_smallest_weights_and_as_many_grow_where_none_was(given_, fraction):
    weights, mask, scores = given_
    counts = exchange_counts(mask, fraction)
    found = exchange(weights, mask, counts, scores)
    for name, keep in mask.items():
        kept, pruned = ([i for i, k in enumerate(keep.tolist()) if k is wanted] for wanted in (True, False))
        number = counts[name]
        assert number == min(round(fraction * len(kept)), len(pruned))
        stays = sorted(kept, key=lambda i: (-abs(float(weights[name][i])), i))[: len(kept) - number]
        grows = sorted(pruned, key=lambda i: (-float(scores[name][i]), i))[:number]
        assert sorted([*stays, *grows]) == [i for i, k in enumerate(found[name].tolist()) if k]
        assert int(found[name].sum()) == int(keep.sum())


@given(layers(), st.floats(0, 1), st.sampled_from(["global", "layer", "erk"]))
def test_thinning_leaves_exactly_so_many_of_those_that_were_left(given_, density, allocation):
    weights, mask, _ = given_
    found = thinned(weights, mask, density, allocation)
    assert masks.count(found) == min(round(density * masks.size(mask)), masks.count(mask))
    assert all(not bool((found[n] & ~mask[n]).any()) for n in mask)
    if allocation == "global" and masks.count(found) > 0:
        smallest = min(float(weights[n].abs()[found[n]].min()) for n in mask if bool(found[n].any()))
        gone = [weights[n].abs()[mask[n] & ~found[n]] for n in mask]
        assert all(float(g.max()) <= smallest for g in gone if len(g))


def test_random_growth_is_another_one_for_each_layer_and_step_and_the_same_again():
    mask = {name: torch.ones(8, 8, dtype=torch.bool) for name in ("a.weight", "b.weight")}
    first, again, later, other = (random_growth(mask, *which) for which in ((0, 10), (0, 10), (0, 20), (1, 10)))
    assert all(torch.equal(first[n], again[n]) for n in mask)
    assert not any(torch.equal(first[n], one[n]) for n in mask for one in (later, other))
    assert not torch.equal(first["a.weight"], first["b.weight"])


def test_growth_at_random_favours_no_place():
    weights, mask = {"a": torch.zeros(10)}, {"a": torch.arange(10) < 4}
    counts = torch.zeros(10)
    for step in range(2000):
        counts += exchange(weights, mask, {"a": 2}, random_growth(mask, 0, step))["a"]
    assert counts[:2].tolist() == [2000, 2000]  # of equal ones the first stay
    assert counts[2:4].tolist() == [0, 0]
    assert ((counts[4:] / 2000 - 2 / 6).abs() < 0.04).all()


def test_scores_that_are_no_numbers_and_parts_beyond_one_are_refused():
    mask, bad = {"a": torch.tensor([True, False])}, {"a": torch.tensor([0.0, torch.nan])}
    with pytest.raises(UsageError, match="NaN"):
        exchange({"a": torch.ones(2)}, mask, {"a": 1}, bad)
    with pytest.raises(UsageError, match="fraction is a number from 0 to 1"):
        exchange_counts(mask, 1.5)
