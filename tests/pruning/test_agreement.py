"""How far masks agree, against every pair of random masks counted one by one, and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product

import pytest
import torch

from lotto.core.errors import UsageError
from lotto.pruning import Mask, masks, overlap
from lotto.pruning.agreement import expected_jaccard


def by_counting(layers):
    """The mean over all pairs of masks, one by one."""

    def every(n, kept):
        return [set(chosen) for chosen in combinations(range(n), kept)]

    found = []
    for pairs in product(*(product(every(n, a), every(n, b)) for n, a, b in layers)):
        common, either = sum(len(x & y) for x, y in pairs), sum(len(x | y) for x, y in pairs)
        found.append(Fraction(common, either))
    return sum(found, Fraction(0)) / len(found)


def by_fractions(n, a, b):
    """The mean for one layer, in whole numbers."""
    chances = {x: math.comb(a, x) * math.comb(n - a, b - x) for x in range(max(0, a + b - n), min(a, b) + 1)}
    return sum((Fraction(c * x, a + b - x) for x, c in chances.items()), Fraction(0)) / math.comb(n, b)


@pytest.mark.parametrize(
    "layers",
    [[(4, 2, 2)], [(5, 1, 4)], [(3, 0, 2)], [(4, 4, 4)], [(4, 2, 3), (3, 1, 1)], [(3, 2, 0), (2, 1, 1), (3, 1, 2)]],
)
def test_the_expected_index_is_that_of_all_pairs_of_masks(layers):
    assert expected_jaccard(layers) == pytest.approx(float(by_counting(layers)), rel=1e-14)


@pytest.mark.parametrize(("n", "a", "b"), [(3000, 300, 320), (3000, 2900, 2950), (2000, 3, 1000), (2000, 2000, 7)])
def test_of_large_layers_it_is_exact_but_for_rounding(n, a, b):
    assert expected_jaccard([(n, a, b)]) == pytest.approx(float(by_fractions(n, a, b)), rel=1e-12)


def test_layers_of_millions_are_as_exact_and_equal_layers_add_up():
    # One layer of which no weight is left changes nothing; of many weights the index is that of the densities.
    one = expected_jaccard([(4_000_000, 400_000, 80_000)])
    assert expected_jaccard([(4_000_000, 400_000, 80_000), (10, 0, 0)]) == pytest.approx(one, rel=1e-12)
    x = 4_000_000 * 0.1 * 0.02
    assert one == pytest.approx(x / (480_000 - x), rel=1e-4)


def test_random_masks_agree_as_expected_and_others_do_not():
    first = Mask({"a": torch.arange(3000).reshape(60, 50) % 5 == 0, "b": torch.arange(400) < 37})
    found = [overlap(masks.random_like(first, 2 * s), masks.random_like(first, 2 * s + 1)) for s in range(60)]
    mean = sum(at.jaccard for at in found) / len(found)
    spread = (sum((at.jaccard - mean) ** 2 for at in found) / (len(found) - 1)) ** 0.5
    assert {at.expected for at in found} == {found[0].expected}
    assert abs(mean - found[0].expected) < 4 * spread / len(found) ** 0.5
    assert overlap(first, first).jaccard == 1


def test_nested_disjoint_and_empty_masks():
    large, small = torch.arange(10) < 8, torch.arange(10) < 2
    nested = overlap({"a": large}, {"a": small})
    assert (nested.common, nested.either, nested.jaccard) == (2, 8, 0.25)
    assert overlap({"a": small}, {"a": ~large}).jaccard == 0
    empty = overlap({"a": small & ~small}, {"a": small & ~small})
    assert math.isnan(empty.jaccard)
    assert math.isnan(empty.expected)


def test_masks_over_other_weights_are_refused():
    mask = {"a": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(UsageError, match="The mask has 'b', which the model has not"):
        overlap(mask, {**mask, "b": mask["a"]})
    with pytest.raises(UsageError, match=r"has shape \(4,\)"):
        overlap({"a": torch.ones(4, dtype=torch.bool)}, mask)
    with pytest.raises(UsageError, match="A layer leaves from none to all"):
        expected_jaccard([(3, 4, 1)])
