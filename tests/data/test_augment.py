from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.data.augment import Augment


def pixels(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8))


def slow(x: torch.Tensor, crop: int, flip: bool, seed: int, step: int) -> torch.Tensor:
    """Pad, crop and mirror one image at a time, pixel by pixel, with the same draws."""
    generator = stream(seed, "augment", step)
    batch, _, height, width = x.shape
    tops, lefts = np.full((2, batch), crop)
    if crop:
        tops, lefts = generator.integers(0, 2 * crop + 1, (2, batch))
    mirrored = generator.integers(0, 2, batch) if flip else np.zeros(batch)
    out = torch.zeros_like(x)
    for n in range(batch):
        for i in range(height):
            for j in range(width):
                row = i + tops[n] - crop
                column = (width - 1 - j if mirrored[n] else j) + lefts[n] - crop
                if 0 <= row < height and 0 <= column < width:
                    out[n, :, i, j] = x[n, :, row, column]
    return out


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    crop=st.integers(0, 6),
    flip=st.booleans(),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
    floating=st.booleans(),
)
def test_a_batch_equals_a_slow_loop_over_its_images(shape, crop, flip, seed, step, floating):
    x = pixels(shape, seed % 1000)
    if floating:
        x = x.float() / 7
    before = x.clone()
    out = Augment(crop, flip)(x, seed, step)
    assert out.dtype == x.dtype
    assert torch.equal(out, slow(before, crop, flip, seed, step))
    assert torch.equal(x, before)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(0, 100), st.integers(0, 100))
def test_no_crop_and_no_flip_is_the_identity(shape, seed, step):
    x = pixels(shape)
    assert torch.equal(Augment()(x, seed, step), x)
    assert torch.equal(Augment(crop=0, flip=False)(x, seed, step), x)


def test_every_shift_and_both_directions_occur_about_equally_often():
    # A bright pixel in the middle of a 7x7 image marks where the window was.
    x = torch.zeros(4000, 1, 7, 7, dtype=torch.uint8)
    x[:, :, 3, 3] = 255
    at = Augment(crop=2)(x, 0, 0)[:, 0].flatten(1).int().argmax(1)
    counts = torch.bincount(at, minlength=49).reshape(7, 7)
    assert counts.sum() == counts[1:6, 1:6].sum() == 4000
    # 160 expected in each of 25 places: five standard deviations are 62.
    assert (counts[1:6, 1:6] - 160).abs().max() < 62

    marked = torch.zeros(4000, 1, 1, 2, dtype=torch.uint8)
    marked[..., 0] = 255
    mirrored = (Augment(flip=True)(marked, 0, 0)[..., 1] == 255).sum()
    assert abs(int(mirrored) - 2000) < 158


def test_the_whole_image_can_be_shifted_out_only_as_far_as_the_padding():
    x = torch.full((500, 1, 4, 4), 255, dtype=torch.uint8)
    bright = (Augment(crop=1)(x, 0, 0) == 255).flatten(1).sum(1)
    assert sorted(bright.unique().tolist()) == [9, 12, 16]


def test_the_result_is_a_function_of_seed_and_step():
    augment, x = Augment(crop=4, flip=True), pixels((16, 3, 8, 8))
    first = augment(x, 5, 7)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    for seed, step in ((5, 8), (6, 7), (7, 5), (0, 0)):
        assert not torch.equal(augment(x, seed, step), first)
    assert torch.equal(augment(x, 5, 7), first)
    assert torch.equal(Augment(crop=4, flip=True)(x.clone(), 5, 7), first)


def test_no_global_generator_is_changed():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    Augment(crop=4, flip=True)(pixels((16, 3, 8, 8)), 5, 7)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_negative_padding_is_refused():
    with pytest.raises(UsageError, match=r"^Augmentation pads by 0 or more pixels; got crop=-1, flip=False\.$"):
        Augment(crop=-1)


@pytest.mark.parametrize("shape", [(5,), (3, 8), (3, 2, 8, 8)])
def test_what_is_not_a_batch_of_images_is_refused(shape):
    text = r"^Augmentation needs images of shape \(channels, height, width\); got "
    with pytest.raises(UsageError, match=text):
        Augment(crop=1)(torch.zeros(2, *shape), 0, 0)
