from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotto import Mask
from lotto.core.errors import UsageError
from lotto.core.weights import angle, distance, first_non_finite, lerp, norm, restrict

A = {"x": torch.tensor([3.0, 0.0]), "y": torch.tensor([[0.0, 1.0]]), "n": torch.tensor(4)}
B = {"x": torch.tensor([0.0, 4.0]), "y": torch.tensor([[0.0, 1.0]]), "n": torch.tensor(9)}


def test_lerp_is_exact_at_both_ends_and_takes_counters_from_the_nearer_one():
    for t, end in ((0.0, A), (1.0, B)):
        assert all(torch.equal(v, end[n]) for n, v in lerp(A, B, t).items())
    assert torch.equal(lerp(A, B, 0.25)["x"], torch.tensor([2.25, 1.0]))
    assert lerp(A, B, 0.25)["n"] == 4
    assert lerp(A, B, 0.75)["n"] == 9


def test_distance_and_angle_of_known_vectors():
    assert distance(A, B) == pytest.approx(5.0)
    assert distance(A, A) == 0.0
    assert norm(A) == pytest.approx(math.sqrt(10))
    x = {"x": torch.tensor([1.0, 0.0])}
    assert angle(x, {"x": torch.tensor([0.0, 2.0])}) == pytest.approx(90.0)
    assert angle(x, {"x": torch.tensor([5.0, 0.0])}) == 0.0
    assert angle(x, {"x": torch.tensor([-1.0, 0.0])}) == pytest.approx(180.0)


def test_a_mask_restricts_to_what_it_keeps():
    mask = Mask({"x": torch.tensor([True, False])})
    assert distance(A, B, mask) == pytest.approx(3.0)
    assert norm(B, mask) == 0.0
    with pytest.raises(UsageError, match="zero vector"):
        angle(A, B, mask)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_against_numpy_in_float64(seed, t):
    generator = np.random.default_rng(seed)
    a, b = ({n: torch.from_numpy(generator.normal(size=5)) for n in "pq"} for _ in range(2))
    flat = [np.concatenate([v["p"].numpy(), v["q"].numpy()]) for v in (a, b)]
    assert distance(a, b) == pytest.approx(np.linalg.norm(flat[0] - flat[1]))
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert angle(a, b) == pytest.approx(np.degrees(np.arccos(cosine)))
    mixed = lerp(a, b, t)
    assert np.allclose(np.concatenate([mixed["p"], mixed["q"]]), (1 - t) * flat[0] + t * flat[1])


def test_different_names_or_shapes_are_named():
    with pytest.raises(UsageError, match=r"'y' is in only one"):
        distance(A, restrict(A, ["x", "n"]))
    with pytest.raises(UsageError, match=r"'x' has shape \(2,\) in one and \(3,\) in the other"):
        distance({"x": torch.zeros(2)}, {"x": torch.zeros(3)})
    with pytest.raises(UsageError, match="does not fit the weights at 'z'"):
        norm(A, Mask({"z": torch.ones(2)}))


def test_first_non_finite():
    assert first_non_finite(A) is None
    assert first_non_finite({**A, "z": torch.tensor([1.0, math.inf])}) == "z"
