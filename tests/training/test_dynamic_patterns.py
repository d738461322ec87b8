"""A mask of whole groups, or of n of every m weights, that changes along a training and stays one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import same_tensors, small_recipe
from lotto import DynamicSparsity, Job
from lotto.core.errors import UsageError
from lotto.pruning import Pruning, masks, prune
from lotto.pruning.structured import Block, Channel, NByM
from lotto.training.loop import train

NAMES = ("2:4", "block:4x1", "channel")
EXCLUDED = ("fc3",)
"""The last layer's outputs are the classes."""


def recipe_of(**changes):
    return small_recipe(pruning=Pruning(exclude=EXCLUDED), **changes)


def start_of(recipe, pattern):
    return prune(recipe.initial(0), masks.ones(recipe, EXCLUDED), density=0.5, allocation="layer", pattern=pattern)


def groups_of(pattern, keep):
    """The parts of a weight's mask that go together, or n of which are kept."""
    if pattern == "channel":
        return keep.reshape(len(keep), -1)
    if pattern == "2:4":
        return keep.movedim(1, -1).reshape(-1, 4)
    return torch.stack([keep[r : r + 4, c] for r in range(0, len(keep), 4) for c in range(keep.shape[1])])


@pytest.mark.parametrize("kind", ["set", "rigl"])
@pytest.mark.parametrize("pattern", NAMES)
def test_every_update_leaves_a_mask_of_the_pattern_with_as_many_weights(kind, pattern):
    recipe = recipe_of()
    start = start_of(recipe, pattern)
    sparsity = DynamicSparsity(kind, every=5, pattern=pattern)
    run = train(Job(recipe, mask=start, sparsity=sparsity, keep=tuple(range(41))))
    seen = [run.mask_at(step) for step in range(41)]
    for mask, before in zip(seen[1:], seen, strict=False):
        for name, keep in mask.items():
            assert keep.sum() == start[name].sum()
            groups = groups_of(pattern, keep)
            if pattern == "2:4":
                assert (groups.sum(1) == 2).all()
                changed = (groups != groups_of(pattern, before[name])).sum(1)
                assert set(changed.tolist()) <= {0, 2}, "one of a group at a time"
            else:
                assert (groups.all(1) | ~groups.any(1)).all()
    changed = {step for step in range(40) if not same_tensors(seen[step], seen[step + 1])}
    assert changed, "a few channels may round to none in the last updates"
    assert changed <= set(sparsity.updates(recipe).steps)


@pytest.mark.parametrize(
    ("pattern", "density", "possible"),
    [("2:4", 0.5, {1.0, 0.75, 0.5}), ("block:4x1", 0.3, None), ("channel", 0.5, None)],
)
def test_gradual_pruning_ends_at_its_density_in_whole_groups(pattern, density, possible):
    recipe = recipe_of()
    sparsity = DynamicSparsity("gradual", every=3, density=density, pattern=pattern, allocation="layer")
    run = train(Job(recipe, mask=masks.ones(recipe, EXCLUDED), sparsity=sparsity, keep=tuple(range(41))))
    seen = [run.mask_at(step) for step in range(41)]
    for mask, before in zip(seen[1:], seen, strict=False):
        assert not any(bool((keep & ~before[name]).any()) for name, keep in mask.items())
    if possible:
        assert {masks.density(mask) for mask in seen} == possible
    kept, count = masks.count(run.mask), round(density * masks.size(run.mask))
    widths = [groups_of(pattern, keep).shape[1] if pattern != "2:4" else 1 for keep in run.mask.values()]
    assert count - sum(widths) < kept <= count, "as many groups of each layer as its number has room for"


@pytest.mark.parametrize("pattern", NAMES)
def test_stopped_anywhere_and_continued_ends_in_the_same_bits(pattern):
    recipe, points = recipe_of(steps="15it"), []
    job = Job(recipe, mask=start_of(recipe, pattern), sparsity=DynamicSparsity("rigl", every=3, pattern=pattern))
    whole = train(job, on_checkpoint=lambda p: points.append(replace(p, kept=dict(p.kept), history=[*p.history])),
                  checkpoint_seconds=0)  # fmt: skip
    for point in points[::4]:
        again = train(job, resume=point)
        assert same_tensors(again.weights, whole.weights)
        assert same_tensors(again.mask, whole.mask)


def test_a_pattern_is_a_part_of_the_key_and_none_is_as_before():
    recipe = recipe_of()
    start = start_of(recipe, "channel")
    keys = [
        Job(recipe, mask=start, sparsity=DynamicSparsity("set", every=5, **given)).key
        for given in ({}, {"pattern": "unstructured"}, {"pattern": "channel"}, {"pattern": Channel()})
    ]
    assert keys[0] == keys[1] != keys[2] == keys[3]


# --- one exchange against a slow one --------------------------------------------------------------------


def by_hand(pattern, weight, keep, count, growth):
    """Python's own loops over one layer's groups, as lists of places."""
    places = np.arange(weight.numel()).reshape(weight.shape)
    groups = groups_of(pattern, torch.from_numpy(places)).tolist()
    flat, on, score = weight.abs().flatten().tolist(), keep.flatten().tolist(), growth.abs().flatten().tolist()
    if pattern == "2:4":
        least = {}
        for number, group in enumerate(groups):
            kept = [p for p in group if on[p]]
            if 0 < len(kept) < len(group):
                least[number] = min(kept, key=lambda p: (flat[p], -p))
        for number in sorted(least, key=lambda n: (flat[least[n]], n))[:count]:
            grows = max((p for p in groups[number] if not on[p]), key=lambda p: (score[p], -p))
            on[least[number]], on[grows] = False, True
        return torch.tensor(on).reshape(keep.shape)
    mean = [sum(flat[p] for p in group) / len(group) for group in groups]
    grown = [sum(score[p] for p in group) / len(group) for group in groups]
    kept = [n for n, group in enumerate(groups) if on[group[0]]]
    gone = [n for n in range(len(groups)) if n not in kept]
    for number in sorted(kept, key=lambda n: (mean[n], -n))[:count]:
        for place in groups[number]:
            on[place] = False
    for number in sorted(gone, key=lambda n: (-grown[n], n))[:count]:
        for place in groups[number]:
            on[place] = True
    return torch.tensor(on).reshape(keep.shape)


@given(st.integers(0, 10_000), st.sampled_from([*NAMES]), st.sampled_from([(8, 4), (4, 8, 3), (4, 4, 1, 2)]),
       st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.booleans())  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_an_exchange_is_that_of_a_slow_obvious_loop(seed, pattern, shape, fraction, ties):
    generator = torch.Generator().manual_seed(seed)
    weight, growth = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    if ties:
        weight, growth = weight.round(), growth.round()
    if pattern == "block:4x1":
        weight, growth = weight.flatten(1), growth.flatten(1)  # a matrix of outputs and all else
    rule = {"2:4": NByM(2, 4), "block:4x1": Block(4, 1), "channel": Channel()}[pattern]
    ones = {"a.weight": torch.ones(weight.shape, dtype=torch.bool)}
    keep = prune({"a.weight": torch.randn(weight.shape, generator=generator)}, ones, density=0.5, pattern=rule)
    weight = weight * keep["a.weight"]
    found = rule.exchange({"a.weight": weight}, keep, fraction, {"a.weight": growth.abs()})["a.weight"]
    groups = groups_of(pattern, keep["a.weight"])
    if pattern == "2:4":
        count = min(round(fraction * int(groups.sum())), len(groups))
    else:
        kept = int(groups.any(1).sum())
        count = min(round(fraction * kept), len(groups) - kept)
    assert torch.equal(found, by_hand(pattern, weight, keep["a.weight"], count, growth))


# --- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", NAMES)
def test_a_mask_that_is_not_of_the_pattern_is_refused_before_training(pattern):
    recipe = recipe_of()
    mask = {name: keep.clone() for name, keep in start_of(recipe, pattern).items()}
    mask["fc1.weight"][:4, :4] = False
    mask["fc1.weight"][0, 0] = True
    with pytest.raises(UsageError, match=r"have been pruned|fewer than 2 left"):
        Job(recipe, mask=mask, sparsity=DynamicSparsity("set", every=5, pattern=pattern))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "gradual", "density": 0.3, "pattern": "2:4"}, "The next one is 0.5"),
        ({"kind": "gradual", "density": 0.25, "pattern": "2:4"}, "2 or more; got density=0.25"),
        ({"kind": "set", "pattern": "3:2"}, "1 <= n < m"),
        ({"kind": "set", "pattern": "triangle"}, "Unknown pattern"),
    ],
)
def test_settings_that_nobody_can_mean_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        DynamicSparsity(**given)


def test_a_pattern_of_ones_own_is_refused():
    class Own:
        def keep(self, scores, counts, within):
            return within

    with pytest.raises(UsageError, match="has a pattern of lotto's"):
        DynamicSparsity("rigl", pattern=Own())


def test_layers_that_a_pattern_does_not_divide_are_refused():
    recipe = small_recipe(model="mlp-10-6")
    mask = {name: keep.clone() for name, keep in masks.ones(recipe).items()}
    with pytest.raises(UsageError, match="10 inputs, no multiple of the 4"):
        Job(recipe, mask=mask, sparsity=DynamicSparsity("set", every=5, pattern="2:4"))
