"""What pattern a mask has is found, whatever made it."""

from __future__ import annotations

import pytest
import torch

from lotto.inference.pattern_runtimes import patterns_of, who_uses
from lotto.pruning import prune


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("2:4", "2:4"), ("1:4", "1:4"), ("channel", "channel"), ("block:4x2", "block:4x2"), ("block:16x1", "block:16x1")],
)
def test_what_prune_made_is_found(pattern, found):
    weights = {"a.weight": drawn(32, 16), "b.weight": drawn(16, 32, 3, 3, seed=1), "last.weight": drawn(10, 7)}
    whole = {name: torch.ones(w.shape, dtype=torch.bool) for name, w in weights.items()}
    part = {name: keep for name, keep in whole.items() if name != "last.weight"}
    density = 0.25 if pattern == "1:4" else 0.5
    mask = whole | dict(prune(weights, part, density=density, pattern=pattern))
    assert found in patterns_of(mask)
    assert f"Pattern {found}: " in who_uses(mask)


def test_single_weights_are_for_our_kernels_alone():
    weights = {"a.weight": drawn(32, 16)}
    mask = prune(weights, {"a.weight": torch.ones(32, 16, dtype=torch.bool)}, density=0.5)
    assert patterns_of(mask) == {}
    assert "lotto's kernels" in who_uses(mask)
