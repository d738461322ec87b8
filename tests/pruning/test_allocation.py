"""How many weights each layer keeps, in which sets, and down to which density: counts are exact."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import same_tensors, small_recipe
from lotto import Mask
from lotto.core.errors import UsageError
from lotto.pruning import Pruning, Unstructured, balanced_counts, erk_counts, keep_top, layer_counts, masks, prune
from lotto.pruning.allocation import random_erk

SHAPES = {"a.weight": (4, 6), "b.weight": (5, 4), "c.weight": (3, 5)}


def case(seed: int):
    generator = np.random.default_rng(seed)
    weights = {n: torch.from_numpy(generator.normal(size=s)) for n, s in SHAPES.items()}
    return weights, Mask({n: torch.from_numpy(generator.random(s) < 0.7) for n, s in SHAPES.items()})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.sampled_from(["global", "layer", "erk", "balanced"]))
def test_a_density_is_reached_to_the_weight(seed, density, allocation):
    weights, mask = case(seed)
    wanted = round(density * masks.size(mask))
    if wanted > masks.count(mask):
        with pytest.raises(UsageError, match="Cannot prune to a density"):
            prune(weights, mask, density=density, allocation=allocation)
        return
    new = prune(weights, mask, density=density, allocation=allocation)
    assert masks.count(new) == wanted
    assert all(not (new[n] & ~mask[n]).any() for n in mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_layers_keep_the_same_fraction_as_nearly_as_whole_numbers_do(seed, part):
    _, mask = case(seed)
    left = {n: int(m.sum()) for n, m in mask.items()}
    total = round(part * sum(left.values()))
    counts = layer_counts(mask, total)
    assert sum(counts.values()) == total
    for name, count in counts.items():
        exact = Fraction(total * left[name], sum(left.values()))
        assert math.floor(exact) <= count <= math.ceil(exact)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_balanced_layers_keep_the_same_number_as_far_as_they_have_it(seed, part):
    _, mask = case(seed)
    left = {n: int(m.sum()) for n, m in mask.items()}
    total = round(part * sum(left.values()))
    counts = balanced_counts(mask, total)
    assert sum(counts.values()) == total
    assert list(counts) == list(mask)
    most = max(counts.values())
    for name, count in counts.items():
        assert count == left[name] or most - 1 <= count <= most  # capped by its size, or the common number


def test_rates_of_single_layers_leave_the_rest_to_make_up_the_density():
    weights, mask = case(3)
    new = prune(weights, mask, density=0.4, rates={"c": 0.0})
    assert torch.equal(new["c.weight"], mask["c.weight"])
    assert masks.count(new) == round(0.4 * masks.size(mask))
    with pytest.raises(UsageError, match="layers with rates of their own keep"):
        prune(weights, mask, density=0.01, rates={"c": 0.0})


def test_an_allocation_of_ones_own_decides_how_many_and_the_score_which():
    weights, mask = case(5)

    def thirds(kept, total):
        assert total == masks.count(mask) - round(0.5 * masks.count(mask))
        return {"a.weight": total // 3, "b.weight": total // 3, "c.weight": total - 2 * (total // 3)}

    new = prune(weights, mask, 0.5, allocation=thirds)
    total = masks.count(new)
    assert [int(m.sum()) for m in new.values()] == [total // 3, total // 3, total - 2 * (total // 3)]
    for name, m in new.items():
        assert weights[name].abs()[m].min() >= weights[name].abs()[mask[name] & ~m].max()


@pytest.mark.parametrize(
    ("allocation", "said"),
    [
        (lambda mask, total: {"a.weight": total}, "KeyError"),
        (lambda mask, total: dict.fromkeys(mask, 1), "keeps 3 weights of a.weight, b.weight, c.weight; asked for are"),
        (lambda mask, total: dict.fromkeys(mask, total), "of the .* weights of 'a.weight'"),
        (lambda mask, total: dict.fromkeys(mask, 0.5), r"keeps 0\.5 of the .* weights of 'a.weight'"),
        (lambda mask, total: {"a.weight": -1, "b.weight": 0, "c.weight": total + 1}, "keeps -1 of the"),
        (lambda mask, total: {**dict.fromkeys(mask, 0), "d.weight": 0}, "d.weight; asked for are"),
        (lambda mask, total: None, "TypeError"),
        ("globl", "Unknown allocation 'globl'.*Did you mean 'global'"),
    ],
)
def test_counts_that_do_not_add_up_are_refused(allocation, said):
    weights, mask = case(1)
    with pytest.raises(UsageError, match=said):
        prune(weights, mask, 0.5, allocation=allocation)


@dataclass(frozen=True)
class Rows:
    """Keeps whole rows of the matrices, the nearest number of weights."""

    def keep(self, scores, counts, within):
        result = {}
        for name, mask in within.items():
            rows = round(counts[name] / mask.shape[1])
            best = scores[name].sum(1).argsort(descending=True)[:rows]
            result[name] = torch.zeros_like(mask)
            result[name][best] = mask[best]
        return result


def test_a_pattern_decides_which_sets_are_left():
    weights, full = case(2)[0], Mask({n: torch.ones(s, dtype=torch.bool) for n, s in SHAPES.items()})
    new = prune(weights, full, 0.5, allocation="layer", pattern=Rows())
    for name, mask in new.items():
        rows = mask.all(1)
        assert torch.equal(rows, mask.any(1))
        assert weights[name].abs().sum(1)[rows].min() >= weights[name].abs().sum(1)[~rows].max()
    assert same_tensors(prune(weights, full, 0.5, pattern=Unstructured()), prune(weights, full, 0.5))


def test_a_pattern_that_keeps_what_was_pruned_is_refused():
    class Everything:
        def keep(self, scores, counts, within):
            return {n: torch.ones_like(m) for n, m in within.items()}

    weights, mask = case(2)
    with pytest.raises(UsageError, match="keeps weights that were pruned"):
        prune(weights, mask, 0.5, pattern=Everything())
    with pytest.raises(UsageError, match="pattern is a Pattern"):
        prune(weights, mask, 0.5, pattern=3)


def test_scores_that_have_been_computed_are_taken_as_they_are():
    weights, mask = case(4)
    by_size = {n: w.abs() for n, w in weights.items()}
    assert same_tensors(prune(weights, mask, 0.3, by_size), prune(weights, mask, 0.3))
    with pytest.raises(UsageError, match=r"The score 'given' has nothing for 'c\.weight'"):
        prune(weights, mask, 0.3, {n: by_size[n] for n in ("a.weight", "b.weight")})
    by_size["b.weight"][mask["b.weight"]] = math.nan
    with pytest.raises(UsageError, match=r"The score 'given' is NaN for \d+ of the \d+ weights kept of 'b\.weight'"):
        prune(weights, mask, 0.3, by_size)


def test_scope_is_the_old_name_of_allocation():
    weights, mask = case(6)
    assert same_tensors(prune(weights, mask, 0.3, scope="erk"), prune(weights, mask, 0.3, allocation="erk"))
    assert same_tensors(prune(weights, mask, 0.3, "magnitude", "layer"), prune(weights, mask, 0.3, allocation="layer"))
    rule = Pruning(0.3, scope="layer")
    assert rule == Pruning(0.3, allocation="layer") == Pruning(0.3, "magnitude", "layer")
    assert rule.scope == rule.allocation == "layer"
    assert dataclasses.replace(rule, scope="erk").allocation == "erk"
    assert dataclasses.replace(rule, allocation="erk").scope == "erk"
    assert small_recipe(pruning__scope="erk").pruning == small_recipe(pruning__allocation="erk").pruning
    with pytest.raises(UsageError, match="scope is the old name of allocation"):
        prune(weights, mask, 0.3, scope="erk", allocation="layer")
    with pytest.raises(UsageError, match="Give a rate or a density, not both"):
        prune(weights, mask, 0.3, density=0.3)


def test_texts_of_results_are_those_of_before():
    assert repr(Pruning(0.1, allocation="erk")) == (
        "Pruning(rate=0.1, score='magnitude', scope='erk', rates={}, exclude=())"
    )
    assert repr(Pruning(pattern=Rows())).endswith("exclude=(), pattern=Rows())")


def test_infinite_scores_decide_and_nan_of_pruned_weights_does_not():
    _, mask = case(7)
    scores = {n: torch.where(m, 1.0, math.nan) for n, m in mask.items()}
    first = mask["c.weight"].nonzero()[0]
    scores["c.weight"][tuple(first)] = math.inf
    kept = prune({n: torch.ones(s) for n, s in SHAPES.items()}, mask, 0.9, scores)
    assert bool(kept["c.weight"][tuple(first)])
    assert same_tensors(kept, keep_top(scores, masks.count(kept), mask))


@pytest.mark.parametrize("total", [-1, 60])
def test_no_allocation_keeps_more_than_there_is(total):
    weights, mask = case(0)
    there = masks.count(mask)
    for counts in (erk_counts, layer_counts, balanced_counts):
        with pytest.raises(UsageError, match=f"Cannot keep {total} of {there} weights"):
            counts(mask, total)
    with pytest.raises(UsageError, match=f"Cannot keep {total} of {there} weights"):
        keep_top(weights, total, mask)
    for counts in (erk_counts, layer_counts, balanced_counts):  # and the two ends are none of these
        assert sum(counts(mask, there).values()) == there
        assert sum(counts(mask, 0).values()) == 0


def test_an_allocation_is_a_name_or_a_function():
    weights, mask = case(0)
    with pytest.raises(UsageError, match="allocation is text or a function of 2 arguments or None; got 3"):
        prune(weights, mask, density=0.2, allocation=3)


def test_a_random_mask_has_the_counts_of_erk_and_is_another_for_another_seed():
    _, mask = case(0)
    drawn = [random_erk(mask, 20, seed) for seed in (0, 0, 1)]
    for each in drawn:
        assert {n: int(m.sum()) for n, m in each.items()} == erk_counts(mask, 20)
        assert all(not bool((each[n] & ~mask[n]).any()) for n in mask)
    assert same_tensors(drawn[0], drawn[1])
    assert not same_tensors(drawn[0], drawn[2])
