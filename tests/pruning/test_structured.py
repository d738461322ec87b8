"""Patterns of whole groups: exact for each group, by a slow reference, in levels, controls and from the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.pruning import Block, Channel, NByM, masks, prune
from lotto.pruning.structured import named_pattern


def drawn(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def whole(weights):
    return {name: torch.ones(w.shape, dtype=torch.bool) for name, w in weights.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(1, 4), st.sampled_from([2, 4, 8]), st.booleans())
def test_n_by_m_keeps_the_n_largest_of_every_m_inputs(seed, outputs, m, convolution):
    shape = (outputs, 2 * m, 3, 3) if convolution else (outputs, 3 * m)
    weights = {"a.weight": drawn(seed, *shape)}
    n = m // 2
    kept = prune(weights, whole(weights), density=n / m, pattern=NByM(n, m))["a.weight"].numpy()
    values = weights["a.weight"].abs().numpy()
    for place in np.ndindex(shape[0], *shape[2:]):
        row, left = values[(place[0], slice(None), *place[1:])], kept[(place[0], slice(None), *place[1:])]
        for at in range(0, len(row), m):
            expected = set(np.argsort(-row[at : at + m], kind="stable")[:n])
            assert set(np.flatnonzero(left[at : at + m])) == expected


def test_n_by_m_over_levels_is_nested_and_exact():
    weights = {"a.weight": drawn(0, 8, 16), "b.weight": drawn(1, 4, 8)}
    mask = whole(weights)
    for density in (0.75, 0.5, 0.25):
        former, mask = mask, prune(weights, mask, density=density, pattern="1:4")
        for name, keep in mask.items():
            assert (keep.reshape(-1, 4).sum(1) == round(4 * density)).all()
            assert not (keep & ~former[name]).any()


def test_n_by_m_keeps_what_is_left_though_its_scores_are_the_least():
    scores = {"a.weight": torch.tensor([[-torch.inf, -torch.inf, 3.0, 4.0]])}
    within = {"a.weight": torch.tensor([[True, True, False, False]])}
    kept = NByM(1, 4).keep(scores, 1, within)["a.weight"]
    assert kept.tolist() == [[True, False, False, False]]
    assert NByM(2, 4).keep(scores, 2, within)["a.weight"].tolist() == [[True, True, False, False]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.floats(0.1, 0.9))
def test_blocks_go_as_a_whole_those_of_the_least_mean_first(seed, rows, columns, density):
    weights = {"a.weight": drawn(seed, rows * 3, columns * 4), "b.weight": drawn(seed + 1, rows * 2, columns, 1)}
    kept = prune(weights, whole(weights), density=density, pattern=Block(rows, columns))
    means, left = [], []
    for name, w in weights.items():
        matrix, keep = w.abs().reshape(w.shape[0], -1), kept[name].reshape(w.shape[0], -1)
        for i in range(0, matrix.shape[0], rows):
            for j in range(0, matrix.shape[1], columns):
                means.append(float(matrix[i : i + rows, j : j + columns].mean()))
                block = keep[i : i + rows, j : j + columns]
                assert bool(block.all()) or not bool(block.any())
                left.append(bool(block.all()))
    total = sum(w.numel() for w in weights.values())
    assert sum(left) == round(density * total) // (rows * columns)
    assert not left or min([m for m, k in zip(means, left, strict=True) if k], default=9) >= max(
        [m for m, k in zip(means, left, strict=True) if not k], default=0
    )


def test_channels_go_as_a_whole_and_never_more_is_left_than_asked_for():
    weights = {"a.weight": drawn(0, 6, 4, 3, 3), "b.weight": drawn(1, 5, 10)}
    for density in (0.9, 0.5, 0.2):
        kept = prune(weights, whole(weights), density=density, pattern=Channel())
        for keep in kept.values():
            rows = keep.reshape(len(keep), -1)
            assert (rows.all(1) | ~rows.any(1)).all()
        total = sum(w.numel() for w in weights.values())
        assert round(density * total) - 36 < masks.count(kept) <= round(density * total)


@pytest.mark.parametrize(
    ("pattern", "density", "words"),
    [
        ("2:4", 0.35, "2 or more of every 4 weights, so densities=0.75, 0.5"),
        ("2:4", 0.25, "so densities=0.75, 0.5"),
        ("2:5", 0.4, "no multiple of the 5"),
        ("block:5x1", 0.5, "6 x 8 weights, which Block.rows=5, columns=1. does not divide"),
        ("3:2", 0.5, "1 <= n < m"),
        ("diamonds", 0.5, "pattern"),
    ],
)
def test_what_does_not_fit_is_said(pattern, density, words):
    weights = {"a.weight": drawn(0, 6, 8)}
    with pytest.raises(UsageError, match=words):
        prune(weights, whole(weights), density=density, pattern=pattern)


def test_a_mask_with_parts_of_blocks_pruned_is_refused():
    weights = {"a.weight": drawn(0, 4, 4)}
    part = prune(weights, whole(weights), density=0.6)
    with pytest.raises(UsageError, match="Parts of groups of 'a' have been pruned"):
        prune(weights, part, 0.5, pattern=Block(2, 2))


def test_a_layer_is_not_emptied_unsaid():
    weights = {"a.weight": drawn(0, 4, 4), "b.weight": drawn(1, 40, 4)}
    with pytest.raises(UsageError, match="less than one group"):
        prune(weights, whole(weights), density=0.1, allocation="layer", pattern="channel")


@pytest.mark.parametrize("pattern", ["2:4", "channel", "block:2x2"])
def test_imp_its_levels_and_random_masks_have_the_pattern(pattern, store):
    recipe = small_recipe(model="mlp-16-8", steps="5it").replace(pruning__exclude=("fc3",))
    result = lotto.imp(
        recipe, densities=[0.75, 0.5], pattern=pattern, replicates=2, controls=["random"], jobs=1, store=store
    )
    rule = named_pattern(pattern)
    for replicate in result.replicates:
        for level in replicate[1:]:
            for mask in (
                level.mask,
                {n: w != 0 for n, w in level.controls["random"].weights.items() if n in level.mask},
            ):
                kept = {name: keep.bool() for name, keep in mask.items()}
                counts = {name: int(keep.sum()) for name, keep in kept.items()}
                again = rule.keep({n: k.double() for n, k in kept.items()}, counts, whole(kept))
                assert all(torch.equal(again[name], keep) for name, keep in kept.items())
                assert counts == {name: int(keep.sum()) for name, keep in level.mask.items()}
    assert result.plan.describe()["pattern"]


def test_a_level_that_a_pattern_cannot_have_is_refused_before_training():
    recipe = small_recipe(model="mlp-16-8", steps="5it").replace(pruning__exclude=("fc3",))
    with pytest.raises(UsageError, match=r"asked for is 0[.]3"):
        lotto.imp(recipe, densities=[0.75, 0.5, 0.3], pattern="2:4", replicates=2, jobs=1)
    with pytest.raises(UsageError, match="no multiple of the 4"):
        lotto.imp(recipe.replace(model="mlp-15-8"), densities=[0.5], pattern="2:4", replicates=2, jobs=1)


def test_names_of_patterns():
    assert named_pattern("1:4") == NByM(1, 4)
    assert named_pattern("block:16x2") == Block(16, 2)
    assert named_pattern(Channel()) == Channel()
