from __future__ import annotations

import math
import random
import re
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lotto
from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.data import NAMES, load
from lotto.data.augment import Augment
from lotto.data.in_memory import Arrays, image_statistics
from lotto.data.normalise import normalised, picker
from lotto.data.order import check_batch_size, permutation
from lotto.data.sources.catalog import PUBLISHED, Download, Packages
from lotto.data.sources.synthetic import digits


def floats(size: int = 23, seed: int = 0, **options: object) -> Arrays:
    """The first input feature is the number of the example, so that a batch tells which examples it holds."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(size + 5, 3)).astype(np.float32)
    x[:, 0] = np.arange(size + 5)
    y = generator.integers(0, 4, size + 5)
    y[0] = 3
    return Arrays(x[:size], y[:size], x[size:], y[size:], **options)


def pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def images(size: int = 13, channels: int = 3, **options: object) -> Arrays:
    y = np.arange(size) % 4
    return Arrays(pixels((size, channels, 4, 5)), y, pixels((6, channels, 4, 5), 1), y[:6], **options)


def drawn(data: Arrays, seed: int, start: int, stop: int, size: int) -> list[list[int]]:
    return [x[:, 0].int().tolist() for x, _ in data.batches(seed, start, stop, size)]


def slow_batch(x: np.ndarray, y: np.ndarray, seed: int, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Walk through whole epochs, one example at a time, until the batch of ``step`` is complete."""
    count, epoch = 0, 0
    while True:
        order = list(stream(seed, "order", epoch).permutation(len(x)))
        while len(order) >= size:
            rows = [order.pop(0) for _ in range(size)]
            if count == step:
                return np.stack([x[i].astype(np.float64) for i in rows]), np.array([y[i] for i in rows])
            count += 1
        epoch += 1


def generator_states() -> list[object]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, keys.tolist(), rest, torch.get_rng_state().tolist()]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40), st.integers(0, 2**40))
def test_the_batch_of_seed_and_step_equals_a_slow_walk_through_the_epochs(size, batch, step, seed):
    batch = min(batch, size)
    data = floats(size)
    ((x, y),) = data.batches(seed, step, step + 1, batch)
    expected_x, expected_y = slow_batch(data.x["train"].numpy(), data.y["train"].numpy(), seed, step, batch)
    np.testing.assert_array_equal(x.double().numpy(), expected_x)
    np.testing.assert_array_equal(y.numpy(), expected_y)


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_images_are_normalised_like_the_float64_formula(channels):
    mean, std = (0.49, 0.2, 0.7)[:channels], (0.25, 0.5, 0.01)[:channels]
    data = images(channels=channels, mean=mean, std=std)
    m, s = (np.array(v).reshape(-1, 1, 1) for v in (mean, std))

    def reference(raw: np.ndarray) -> np.ndarray:
        return (raw.astype(np.float64) / 255 - m) / s

    for step, (x, y) in enumerate(data.batches(3, 0, 7, 4)):
        raw, labels = slow_batch(data.x["train"].numpy(), data.y["train"].numpy(), 3, step, 4)
        assert x.dtype == torch.float32
        np.testing.assert_allclose(x.numpy(), reference(raw), rtol=2e-6, atol=2e-5)
        np.testing.assert_array_equal(y.numpy(), labels)
    whole = torch.cat([x for x, _ in data.evaluation("test", 4)]).numpy()
    np.testing.assert_allclose(whole, reference(data.x["test"].numpy()), rtol=2e-6, atol=2e-5)


def test_one_deviation_for_several_means_is_that_of_each():
    one, each = (images(mean=(0.1, 0.4, 0.8), std=std) for std in ((0.25,), (0.25, 0.25, 0.25)))
    for feature_major in (False, True):
        (x, _), (expected, _) = (next(iter(d.batches(0, 0, 1, 4, feature_major=feature_major))) for d in (one, each))
        assert torch.equal(x, expected)


@pytest.mark.parametrize("shape", [(7, 1, 5, 5), (7, 3, 4, 6), (9, 12), (1, 3, 2, 2), (0, 3, 2, 2), (6, 2, 3, 3)])
def test_one_pass_gives_the_bits_of_three(shape, monkeypatch):
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.integers(0, 256, shape).astype(np.uint8))
    channels = shape[1] if len(shape) == 4 else 1
    scale, shift = (torch.from_numpy(generator.normal(size=channels).astype(np.float32)) for _ in range(2))
    scale, shift = (t.view(-1, *[1] * (len(shape) - 2)) for t in (scale, shift))
    once = normalised(x, scale, shift)
    monkeypatch.setattr(lotto.data.normalise, "can_compile", lambda: False)
    thrice = normalised(x, scale, shift)
    assert once.dtype == torch.float32
    assert torch.equal(once, thrice)
    assert torch.equal(thrice, x.float() * scale + shift)


@pytest.mark.parametrize("shape", [(40, 1, 4, 6), (40, 3, 4, 6), (40, 3, 5, 3), (40, 28), (40, 7), (40, 1)])
@pytest.mark.parametrize("batch", [1, 17, 64])
def test_picked_inputs_have_the_bits_of_those_picked_turned_and_normalised_one_after_another(shape, batch):
    generator = np.random.default_rng(batch)
    x = torch.from_numpy(generator.integers(0, 256, shape).astype(np.uint8))
    index = torch.from_numpy(generator.integers(0, len(x), batch))
    channels = shape[1] if len(shape) == 4 else 1
    scale, shift = (torch.from_numpy(generator.normal(size=channels).astype(np.float32)) for _ in range(2))
    scale, shift = (t.view(-1, *[1] * (len(shape) - 2)) for t in (scale, shift))
    expected = x[index].float() * scale + shift
    assert torch.equal(picker(x, scale, shift)(index), expected)
    feature_major = picker(x, scale, shift, feature_major=True)(index)
    assert feature_major.is_contiguous()
    assert torch.equal(feature_major, expected.flatten(1).t())


def test_uint8_images_are_by_default_normalised_with_their_own_statistics():
    data = images(200)
    x = data.normalise(data.x["train"]).double()
    assert x.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-6)
    assert x.std((0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(3), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6))
def test_image_statistics_equal_the_float64_mean_and_deviation(count, channels, width, seed):
    raw = pixels((count, channels, 3, width), seed)
    mean, std = image_statistics(torch.from_numpy(raw))
    scaled = raw.astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)), abs=1e-12)
    assert std == pytest.approx(np.maximum(scaled.std((0, 2, 3)), 1e-8), abs=1e-12)


def test_a_constant_channel_is_normalised_to_a_finite_number():
    x = np.full((4, 1, 2, 2), 7, np.uint8)
    data = Arrays(x, np.arange(4), x, np.arange(4))
    assert torch.isfinite(data.normalise(data.x["train"])).all()


@pytest.mark.parametrize("given_", ["mean", "std"])
def test_a_given_mean_or_std_is_used_when_the_other_is_left_to_the_images(given_):
    own = dict(zip(("mean", "std"), image_statistics(images().x["train"]), strict=True))
    wanted = {**own, given_: (0.1, 0.2, 0.3)}
    data = images(**{given_: (0.1, 0.2, 0.3)})
    expected = images(**wanted)
    found = data.normalise(data.x["train"]).numpy()
    np.testing.assert_array_equal(found, expected.normalise(expected.x["train"]).numpy())


@pytest.mark.parametrize("count", [2, 4])
def test_a_mean_of_the_wrong_length_is_refused_before_training(count):
    with pytest.raises(UsageError, match=rf"mean.*{count}"):
        images(mean=(0.5,) * count, std=(0.5,) * count)


def test_uint8_vectors_are_normalised_together():
    raw = pixels((50, 6))
    data = Arrays(raw, np.arange(50) % 2, raw, np.arange(50) % 2)
    scaled = raw.astype(np.float64) / 255
    expected = (scaled - scaled.mean()) / scaled.std()
    np.testing.assert_allclose(data.normalise(data.x["train"]).numpy(), expected, atol=2e-6)


def test_floating_inputs_are_used_as_they_are_and_float64_becomes_float32():
    x = np.random.default_rng(0).normal(size=(6, 3))
    data = Arrays(x, np.arange(6), x, np.arange(6))
    ((batch, _),) = data.evaluation("train", 6)
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.numpy(), x.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 10), st.integers(1, 9))
def test_starting_in_the_middle_gives_the_same_batches(start, more, size):
    data = floats()
    whole = drawn(data, 5, 0, start + more, size)
    assert drawn(data, 5, start, start + more, size) == whole[start:]


def test_every_epoch_is_a_permutation_and_drops_only_the_incomplete_last_batch():
    data = floats(size=24)
    orders = []
    for epoch in range(4):
        seen = list(chain(*drawn(data, 1, epoch * 4, epoch * 4 + 4, 6)))
        assert sorted(seen) == list(range(24))
        orders.append(seen)
    assert len({tuple(o) for o in orders}) == 4
    short = list(chain(*drawn(data, 1, 0, 3, 7)))
    assert len(short) == len(set(short)) == 21


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 200))
def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch(seed, epoch, size):
    order = permutation(seed, epoch, size)
    assert sorted(order.tolist()) == list(range(size))
    assert order.tolist() == permutation(seed, epoch, size).tolist()
    if size >= 50:
        assert order.tolist() != permutation(seed + 1, epoch, size).tolist()
        assert order.tolist() != permutation(seed, epoch + 1, size).tolist()


def test_different_seeds_give_different_batches():
    data = floats()
    assert len({str(drawn(data, seed, 0, 2, 8)) for seed in range(20)}) == 20


def test_images_are_augmented_before_they_are_normalised():
    data = images(mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.1))
    augment = Augment(crop=2, flip=True)
    for step, (x, _) in enumerate(data.batches(9, 0, 5, 4, augment)):
        raw, _ = slow_batch(data.x["train"].numpy(), data.y["train"].numpy(), 9, step, 4)
        expected = data.normalise(augment(torch.from_numpy(raw.astype(np.uint8)), 9, step))
        assert torch.equal(x, expected)


def test_batches_leave_the_data_unchanged():
    for data in (floats(), images(mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.1))):
        before = {split: x.clone() for split, x in data.x.items()}
        for x, _ in data.batches(0, 0, 4, 4):
            x.add_(1)
        list(data.evaluation("test", 4))
        assert all(torch.equal(before[split], data.x[split]) for split in before)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.data())
def test_hold_out_is_disjoint_complete_and_always_the_same(size, draw):
    count = draw.draw(st.integers(1, size - 1))
    data = floats(size)
    held, again = data.hold_out(count), floats(size).hold_out(count)
    train, validation = (held.x[s][:, 0].int().tolist() for s in ("train", "validation"))
    assert (held.size("train"), held.size("validation"), held.size("test")) == (size - count, count, 5)
    assert sorted(train + validation) == list(range(size))
    for part in ("x", "y"):
        for split in ("train", "validation", "test"):
            assert torch.equal(getattr(held, part)[split], getattr(again, part)[split])
    for split, rows in (("train", train), ("validation", validation)):
        assert torch.equal(held.y[split], data.y["train"][rows])
    assert data.size() == size
    assert data.size("validation") == 0


def test_hold_out_is_spread_over_the_training_set_and_changes_the_identity():
    data = floats(200)
    rows = data.hold_out(50).x["validation"][:, 0]
    assert 60 < rows.mean() < 140
    assert data.hold_out(0) is data
    assert len({d.fingerprint for d in (data, data.hold_out(50), data.hold_out(51))}) == 3


def test_held_out_images_are_normalised_with_the_statistics_of_all_training_images():
    data = images(40)
    held = data.hold_out(10)
    raw = held.x["validation"]
    ((x, _),) = held.evaluation("validation", 10)
    assert torch.equal(x, data.normalise(raw))


def test_hold_out_keeps_the_number_of_classes():
    # The only example of the last class may be the one that is held out.
    x = np.zeros((6, 2), np.float32)
    for only in range(6):
        y = np.zeros(6, np.int64)
        y[only] = 4
        data = Arrays(x, y, x[:2], np.zeros(2, np.int64))
        assert data.hold_out(3).classes == data.classes == 5


@pytest.mark.parametrize("count", [-1, 23, 24])
def test_hold_out_of_an_impossible_count_is_refused(count):
    with pytest.raises(UsageError, match=rf"^Can hold out 1 to 22 examples for validation; got {count}\.$"):
        floats().hold_out(count)


def test_evaluation_gives_every_example_once_in_its_own_order():
    data = floats()
    batches = list(data.evaluation("train", 10))
    assert [len(y) for _, y in batches] == [10, 10, 3]
    assert torch.equal(torch.cat([x for x, _ in batches]), data.x["train"])
    assert torch.equal(torch.cat([y for _, y in batches]), data.y["train"])


def test_evaluation_of_a_split_that_is_not_there_says_how_to_get_it():
    with pytest.raises(UsageError, match=r"^The data set 'mine' has no validation split; set validation=N"):
        next(iter(floats(name="mine").evaluation("validation", 4)))


@pytest.mark.parametrize("size", [0, -3, 24])
def test_a_batch_that_does_not_fit_is_refused(size):
    text = rf"^The batch size must be between 1 and the 23 training examples; got {size}\.$"
    with pytest.raises(UsageError, match=text):
        next(iter(floats().batches(0, 0, 1, size)))
    with pytest.raises(UsageError, match=text):
        check_batch_size(size, 23)


def test_a_batch_of_the_whole_set_is_allowed():
    assert sorted(drawn(floats(), 0, 0, 1, 23)[0]) == list(range(23))


X, Y = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)


UNUSABLE = "holds NaN or infinity in 4 of 4 examples, the first at 0; leave them out or fill them in before training."


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ((X, Y[:3], X, Y), "x_train has 4 examples and y_train has 3; they must be equal and not 0."),
        ((X, Y, X[:2], Y), "x_test has 2 examples and y_test has 4; they must be equal and not 0."),
        ((X[:0], Y[:0], X, Y), "x_train has 0 examples and y_train has 0; they must be equal and not 0."),
        ((X, Y, X[:0], Y[:0]), "x_test has 0 examples and y_test has 0; they must be equal and not 0."),
        ((X, Y, X[:, :1], Y), "Training inputs have shape (2,), test inputs (1,); they must be equal."),
        ((X * math.nan, Y, X, Y), f"x_train {UNUSABLE}"),
        ((X, Y, X + math.inf, Y), f"x_test {UNUSABLE}"),
    ],
)
def test_unusable_arrays_are_refused(arrays, text):
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        Arrays(*arrays)


@pytest.mark.parametrize("swapped", [False, True])
def test_uint8_images_beside_floating_ones_are_refused(swapped):
    # Only one of the two would be normalised.
    pair = pixels((4, 1, 2, 2)), np.zeros((4, 1, 2, 2), np.float32)
    train, test = pair[::-1] if swapped else pair
    with pytest.raises(UsageError, match="uint8"):
        Arrays(train, Y, test, Y)


@pytest.mark.parametrize("option", ["mean", "std"])
def test_normalisation_of_floating_inputs_is_refused(option):
    text = r"^mean and std are for uint8 images; floating inputs are used as they are\.$"
    with pytest.raises(UsageError, match=text):
        Arrays(X, Y, X, Y, **{option: (0.5,)})


def test_identity_depends_on_every_array_and_not_on_the_name():
    def changed(**parts: np.ndarray) -> str:
        base = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
        return Arrays(**{**base, **parts}).fingerprint

    one = {"x_train": X.copy(), "y_train": Y.copy(), "x_test": X.copy(), "y_test": Y.copy()}
    for array in one.values():
        array[(1,) * array.ndim] = 1
    found = [changed(), *(changed(**{name: array}) for name, array in one.items())]
    assert len(set(found)) == 5
    assert floats(name="a").fingerprint == floats(name="b").fingerprint
    assert Arrays(X, Y, X, Y, name="other").fingerprint == changed()
    assert changed(x_train=X.reshape(4, 2, 1), x_test=X.reshape(4, 2, 1)) != changed()


def test_identity_depends_on_the_normalisation_and_not_on_the_memory_layout():
    pairs = [(mean, std) for mean in (0.0, 0.2) for std in (0.4, 0.5)]
    assert len({images(mean=(mean,) * 3, std=(std,) * 3).fingerprint for mean, std in pairs}) == 4
    turned = Arrays(np.asfortranarray(X), Y, torch.zeros(2, 4).t(), torch.zeros(4, dtype=torch.int32))
    assert turned.fingerprint == Arrays(X, Y, X, Y).fingerprint


def test_shape_and_classes():
    assert images().shape == (3, 4, 5)
    assert images().classes == 4
    assert Arrays(X, Y, X, Y + 6).classes == 7
    assert Arrays(X, Y.astype(np.float32), X, Y.astype(np.float32)).classes == 1
    assert Arrays(X, np.zeros((4, 3)), X, np.zeros((4, 3))).classes == 3


def test_moving_to_the_device_it_is_on_changes_nothing():
    data = floats()
    assert data.to(torch.device("cpu")) is data


def test_moving_to_another_device_moves_inputs_targets_and_normalisation():
    data = images().hold_out(3)
    moved = data.to(torch.device("meta"))
    assert {t.device.type for part in (moved.x, moved.y) for t in part.values()} == {"meta"}
    assert moved._scale.device.type == moved._shift.device.type == "meta"
    assert moved.normalise(moved.x["train"]).device.type == "meta"
    assert (moved.size(), moved.size("validation"), moved.shape, moved.name) == (10, 3, data.shape, data.name)
    assert data.x["train"].device.type == "cpu"


def test_no_global_generator_is_read_or_changed():
    def use() -> list[str]:
        data = images(40)
        held = data.hold_out(8)
        taken = [x.sum() for x, _ in held.batches(1, 0, 12, 5, Augment(crop=1, flip=True))]
        return [data.fingerprint, held.fingerprint, *map(str, taken), *map(str, held.evaluation("validation", 3))]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = generator_states()
    first = use()
    assert generator_states() == before
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert use() == first


def test_mnist1d_is_the_published_set_and_leaves_the_global_generators_alone(tmp_path, monkeypatch):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = generator_states()
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path / "empty"))
    data = load("mnist1d")
    assert generator_states() == before
    assert (data.size(), data.size("test"), data.shape, data.classes) == (4000, 1000, (40,), 10)
    assert data.x["train"].dtype == torch.float32
    # Rounded to 5 digits, so that another platform's last bits give the same identity.
    raw = data.x["train"].double().numpy()
    np.testing.assert_allclose(raw, np.round(raw, 5), rtol=0, atol=1e-6)
    assert np.array_equal(raw.astype(np.float32), np.round(raw, 5).astype(np.float32))
    assert torch.bincount(data.y["train"]).min() > 300


def test_digits_are_scikit_learns_with_every_fifth_image_for_the_test():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = digits()
    assert (data.size(), data.size("test"), data.shape, data.classes) == (1437, 360, (1, 8, 8), 10)
    np.testing.assert_array_equal(data.y["test"].numpy(), bunch.target[::5])
    np.testing.assert_allclose(data.x["test"][:, 0].numpy(), bunch.images[::5] / 16 - 0.3053, atol=1e-6)
    rest = [i for i in range(len(bunch.target)) if i % 5]
    np.testing.assert_array_equal(data.y["train"].numpy(), bunch.target[rest])
    np.testing.assert_allclose(data.x["train"][:, 0].numpy(), bunch.images[rest] / 16 - 0.3053, atol=1e-6)
    assert data.x["train"].mean().item() == pytest.approx(0, abs=1e-3)


def test_loading_by_name_gives_the_same_object_again():
    assert load("digits") is load("digits")
    assert load("digits").fingerprint == digits().fingerprint


def test_an_unknown_data_set_lists_the_choices():
    text = r"^Unknown data set 'minst1d'\. Choices: cifar10, cifar100, diamonds, digits, fashion-mnist, imagenet, imagenet-299, japanese-vowels, mnist, "
    with pytest.raises(UsageError, match=text + r"mnist1d, mnist1d-50k, spam-assassin\. Did you mean 'mnist1d'\?$"):
        load("minst1d")


def test_the_published_sets_have_the_published_shapes():
    expected = {
        "mnist1d": (4_000, 1_000, (40,)),
        "mnist1d-50k": (40_000, 10_000, (40,)),
        "mnist": (60_000, 10_000, (1, 28, 28)),
        "fashion-mnist": (60_000, 10_000, (1, 28, 28)),
        "cifar10": (50_000, 10_000, (3, 32, 32)),
        "cifar100": (50_000, 10_000, (3, 32, 32)),
        "spam-assassin": (4_819, 1_000, (128,)),
        "diamonds": (43_794, 10_000, (26,)),
        "japanese-vowels": (270, 370, (13, 29)),
    }
    assert set(PUBLISHED) == set(expected)
    assert set(NAMES) == set(expected) | {"digits", "imagenet", "imagenet-299"}
    for name, (train, test, image) in expected.items():
        shapes, target = PUBLISHED[name].shapes, () if PUBLISHED[name].classes else (1,)
        assert shapes == {
            "x_train": (train, *image),
            "y_train": (train, *target),
            "x_test": (test, *image),
            "y_test": (test, *target),
        }


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_every_published_set_can_be_verified(published):
    image = published.shapes["x_train"][1:]
    assert len(published.mean) == len(published.std) == (image[0] if len(image) == 3 else 0)
    assert all(0.2 < v < 0.6 for v in (*published.mean[1:], *published.std))
    downloads = [s for s in published.sources if isinstance(s, Download)]
    packs = [s for s in published.sources if isinstance(s, Packages)]
    assert downloads[:1] == list(published.sources[:1]) or packs or not image[1:]
    for archive in (a for source in packs for a in source.archives):
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert archive.file.endswith({"npm": ".tgz", "PyPI": ".whl"}[archive.registry])
    for source in downloads:
        assert all(m.startswith("https://") and not m.endswith("/") for m in source.mirrors)
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in source.checksums.values())
        assert len(set(source.checksums.values())) == len(source.checksums) > 0
    # A second kind of source must give the same bits, so it needs the checksums of the decoded arrays.
    if len(published.sources) > len(downloads):
        assert set(published.sha256) == set(published.shapes)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in published.sha256.values())
