"""Masks that settle, against sets of positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.pruning.early_bird import mask_distance, settled

BITS = st.lists(st.booleans(), min_size=7, max_size=7)


def mask(bits):
    return {"a": torch.tensor(bits[:4]).reshape(2, 2), "b": torch.tensor(bits[4:])}


def slow_distance(a, b):
    one, other = ({i for i, bit in enumerate(bits) if bit} for bits in (a, b))
    return len(one ^ other) / max(1, len(one) + len(other))


@given(BITS, BITS)
def test_the_distance_is_the_part_of_the_kept_weights_that_only_one_mask_keeps(a, b):
    assert mask_distance(mask(a), mask(b)) == slow_distance(a, b) == mask_distance(mask(b), mask(a))


@given(st.lists(BITS, max_size=8), st.floats(0.0, 1.0), st.integers(2, 4))
def test_a_mask_has_settled_at_the_first_check_that_is_near_those_before_it(kept, threshold, last):
    near = [
        number for number in range(len(kept))
        if number >= last - 1 and max(slow_distance(kept[number], kept[number - i]) for i in range(1, last)) < threshold
    ]  # fmt: skip
    assert settled([mask(bits) for bits in kept], threshold, last) == (near[0] if near else None)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UsageError, match="last is 2 or more"):
        settled([], last=1)
    with pytest.raises(UsageError):
        mask_distance({"a": torch.ones(2, dtype=torch.bool)}, {"b": torch.ones(2, dtype=torch.bool)})
