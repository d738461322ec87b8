from __future__ import annotations

import pickle
import random
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lotto.core.errors import UsageError
from lotto.data.augment import Augment
from lotto.data.image_folder import ImageFolder, _Images
from lotto.data.order import permutation

CLASSES = ("ant", "bee", "cat")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(path: Path, value: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def make(root: Path, test: str = "test") -> Path:
    """Thirteen training images of one grey each, 10 to 130 in the order of their paths; six test images."""
    value = 0
    for label, count in zip(CLASSES, (4, 6, 3), strict=True):
        for i in range(count):
            value += 10
            picture(root / "train" / label / f"{i:02d}.png", value)
    for i in range(6):
        picture(root / test / CLASSES[i // 2] / f"{i}.png", 200 + i)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "pets")


def grey(x: torch.Tensor) -> list[int]:
    """The pixel value of every image of a normalised batch."""
    return (255 * (x[:, 0, 0, 0].double() * STD[0] + MEAN[0])).round().int().tolist()


def drawn(data: ImageFolder, seed: int, start: int, stop: int, size: int) -> list[tuple[list[int], list[int]]]:
    return [(grey(x), y.tolist()) for x, y in data.batches(seed, start, stop, size)]


def label_of(value: int) -> int:
    return 0 if value <= 40 else 1 if value <= 100 else 2


def test_sizes_classes_and_labels(root):
    data = ImageFolder(root, size=8)
    assert (data.size(), data.size("test"), data.size("validation")) == (13, 6, 0)
    assert (data.shape, data.classes, data.name) == ((3, 8, 8), 3, "pets")
    assert data.labels == {"ant": 0, "bee": 1, "cat": 2}


def test_the_batch_of_seed_and_step_is_the_batch_of_the_permutation(root):
    data = ImageFolder(root, size=8)
    batches = drawn(data, 3, 0, 9, 4)
    for step, (values, labels) in enumerate(batches):
        epoch, within = divmod(step, 3)
        order = permutation(3, epoch, 13)[4 * within : 4 * within + 4]
        assert values == [10 * (i + 1) for i in order]
        assert labels == [label_of(v) for v in values]
    assert len(batches) == 9


def test_batches_can_start_and_stop_at_any_step(root):
    data = ImageFolder(root, size=4)
    whole = drawn(data, 1, 0, 8, 5)
    for start in range(8):
        for stop in range(start, 9):
            assert drawn(data, 1, start, stop, 5) == whole[start:stop]


def test_every_epoch_is_without_repeats_and_another_order(root):
    data = ImageFolder(root, size=4)
    epochs = [list(chain(*(v for v, _ in drawn(data, 0, 13 * e, 13 * (e + 1), 1)))) for e in range(3)]
    assert all(sorted(values) == [10 * i for i in range(1, 14)] for values in epochs)
    assert len({tuple(values) for values in epochs}) == 3
    assert drawn(data, 0, 0, 2, 5) != drawn(data, 1, 0, 2, 5)
    assert drawn(data, 0, 0, 2, 5) == drawn(ImageFolder(root, size=4), 0, 0, 2, 5)


def test_images_are_normalised_like_the_float64_formula(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    for i, array in enumerate(pixels):
        path = tmp_path / ("test" if i == 4 else "train") / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    data = ImageFolder(tmp_path, size=6, mean=mean, std=std)
    expected = ((pixels.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    x = torch.cat([x for x, _ in data.evaluation("train", 3)])
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), expected[:4], atol=1e-5)
    order = permutation(0, 0, 4)
    ((x, _),) = data.batches(0, 0, 1, 4)
    np.testing.assert_allclose(x.numpy(), expected[order], atol=1e-5)


def test_a_batch_is_augmented_by_seed_and_step_before_it_is_normalised(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    for i, array in enumerate(pixels):
        for split in ("train", "test"):
            path = tmp_path / split / "a" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    data, augment = ImageFolder(tmp_path, size=6), Augment(crop=2, flip=True)
    raw = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for step, (x, _) in enumerate(data.batches(7, 2, 6, 2, augment), start=2):
        order = permutation(7, step // 2, 4)[2 * (step % 2) : 2 * (step % 2) + 2]
        assert torch.equal(x, data.normalise(augment(raw[order], 7, step)))


def test_evaluation_gives_every_image_once_in_order(root):
    data = ImageFolder(root, size=4)
    batches = list(data.evaluation("test", 4))
    assert [len(y) for _, y in batches] == [4, 2]
    assert list(chain(*(grey(x) for x, _ in batches))) == [200, 201, 202, 203, 204, 205]
    assert torch.cat([y for _, y in batches]).tolist() == [0, 0, 1, 1, 2, 2]


def test_evaluation_of_a_split_that_is_not_there_says_how_to_get_it(root):
    with pytest.raises(UsageError, match=r"'pets' has no validation split; set validation=N"):
        list(ImageFolder(root, size=4).evaluation("validation", 4))


def test_val_is_the_test_split_when_there_is_no_test_folder(tmp_path):
    data = ImageFolder(make(tmp_path, test="val"), size=4)
    assert [p.parts[-3] for p, _ in data.items["test"]] == ["val"] * 6


def test_test_goes_before_val(root):
    picture(root / "val" / "ant" / "0.png", 1)
    data = ImageFolder(root, size=4)
    assert {p.parts[-3] for p, _ in data.items["test"]} == {"test"}
    assert data.size("test") == 6


def test_images_are_scaled_by_their_shorter_side_and_cropped_in_the_centre(tmp_path):
    # Left third black, middle white, right black: the centre square of a 12x4 image is white.
    for split in ("train", "test"):
        for name, turn in (("wide", False), ("tall", True)):
            array = np.zeros((4, 12, 3), np.uint8)
            array[:, 4:8] = 255
            path = tmp_path / split / "a" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.transpose(1, 0, 2) if turn else array).save(path)
    data = ImageFolder(tmp_path, size=4, mean=(0,) * 3, std=(1,) * 3)
    ((x, _),) = data.evaluation("test", 2)
    assert torch.equal(x, torch.ones(2, 3, 4, 4))
    ((x, _),) = ImageFolder(tmp_path, size=8, mean=(0,) * 3, std=(1,) * 3).evaluation("test", 2)
    assert x.shape == (2, 3, 8, 8)
    assert torch.equal(x[..., 2:6, 2:6], torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize(("turn", "box"), [(False, (7, 0, 13, 6)), (True, (0, 7, 6, 13))])
def test_the_longer_side_is_rounded_to_whole_pixels(turn, box, tmp_path):
    # 33 x 10 pixels at 6/10: 19.8 x 6, so 20 x 6, of which columns 7 to 12 are the centre.
    array = np.random.default_rng(0).integers(0, 256, (10, 33, 3), dtype=np.uint8)
    image = Image.fromarray(array.transpose(1, 0, 2) if turn else array)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        image.save(tmp_path / split / "a" / "0.png")
    expected = np.asarray(image.resize((6, 20) if turn else (20, 6)).crop(box)).transpose(2, 0, 1)
    ((x, _),) = ImageFolder(tmp_path, size=6, mean=(0,) * 3, std=(1,) * 3).evaluation("test", 1)
    np.testing.assert_array_equal((255 * x[0]).round().byte().numpy(), expected)


@pytest.mark.parametrize("size", [(7, 5), (5, 7), (33, 10), (10, 33), (1, 9), (6, 6)])
@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_image_becomes_a_square_in_rgb(size, mode, tmp_path):
    for split in ("train", "test"):
        path = tmp_path / split / "a" / "0.png"
        path.parent.mkdir(parents=True)
        image = Image.new(mode, size, {"L": 40, "RGBA": (40, 40, 40, 128), "P": 1}[mode])
        if mode == "P":
            image.putpalette([0, 0, 0, 40, 40, 40])
        image.save(path)
    data = ImageFolder(tmp_path, size=6, mean=(0,) * 3, std=(1,) * 3)
    ((x, _),) = data.evaluation("test", 1)
    assert x.shape == (1, 3, 6, 6)
    assert (255 * x).unique().round().tolist() == [40]


def test_other_files_and_suffixes_in_capitals(root):
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / "readme.png").write_text("not in a class")
    picture(root / "train" / "ant" / "UPPER.PNG", 7)
    assert ImageFolder(root, size=4).size() == 14


def test_a_class_that_is_only_in_the_test_folder_is_refused(root):
    picture(root / "test" / "dog" / "0.png", 1)
    with pytest.raises(UsageError, match=r"^The class 'dog' in .*test has no training images\.$"):
        ImageFolder(root)


def test_a_test_class_whose_training_folder_is_empty_is_refused(root):
    (root / "train" / "dog").mkdir()
    picture(root / "test" / "dog" / "0.png", 1)
    with pytest.raises(UsageError, match=r"^The class 'dog' in .*test has no training images\.$"):
        ImageFolder(root)


@pytest.mark.parametrize("missing", ["train", "test", "both"])
def test_a_folder_without_the_layout_is_refused(missing, root):
    for name in ("train", "test") if missing == "both" else (missing,):
        shutil.rmtree(root / name)
    with pytest.raises(UsageError, match=r"pets needs the folders 'train' and 'test' \(or 'val'\)\.$"):
        ImageFolder(root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_images_is_refused(split, root):
    for path in (root / split).rglob("*.png"):
        path.unlink()
    if split == "train":
        shutil.rmtree(root / "test")
        (root / "test").mkdir()
    with pytest.raises(UsageError, match=rf"pets has no images in its {split} folder\.$"):
        ImageFolder(root)


@pytest.mark.parametrize("size", [0, 14])
def test_a_batch_that_does_not_fit_is_refused(size, root):
    text = rf"^The batch size must be between 1 and the 13 training examples; got {size}\.$"
    with pytest.raises(UsageError, match=text):
        next(iter(ImageFolder(root, size=4).batches(0, 0, 1, size)))


def test_hold_out_is_disjoint_complete_and_always_the_same(root):
    data = ImageFolder(root, size=4)
    for count in (1, 5, 12):
        held, again = data.hold_out(count), ImageFolder(root, size=4).hold_out(count)
        assert held.items == again.items
        assert (held.size(), held.size("validation"), held.size("test")) == (13 - count, count, 6)
        assert sorted(held.items["train"] + held.items["validation"]) == data.items["train"]
        assert held.labels == data.labels
    assert data.size("validation") == 0
    assert data.hold_out(0) is data


def test_the_held_out_images_are_evaluated_and_not_trained_on(root):
    held = ImageFolder(root, size=4).hold_out(5)
    validation = list(chain(*(grey(x) for x, _ in held.evaluation("validation", 2))))
    trained = list(chain(*(v for v, _ in drawn(held, 0, 0, 8, 1))))
    assert sorted(validation + trained) == [10 * i for i in range(1, 14)]
    labels = torch.cat([y for _, y in held.evaluation("validation", 2)]).tolist()
    assert labels == [label_of(v) for v in validation]


@pytest.mark.parametrize("count", [-1, 13, 20])
def test_hold_out_of_an_impossible_count_is_refused(count, root):
    with pytest.raises(UsageError, match=rf"^Can hold out 1 to 12 images for validation; got {count}\.$"):
        ImageFolder(root, size=4).hold_out(count)


def test_identity_depends_on_the_files_and_the_options_and_not_on_the_place(root, tmp_path):
    first = ImageFolder(root, size=4)
    found = [first.fingerprint, first.hold_out(3).fingerprint, first.hold_out(4).fingerprint]
    assert ImageFolder(shutil.copytree(root, tmp_path / "elsewhere"), size=4).fingerprint == first.fingerprint
    for changed in (
        ImageFolder(root, size=5),
        ImageFolder(root, 4, mean=(0.5,) * 3),
        ImageFolder(root, 4, std=(0.5,) * 3),
    ):
        found.append(changed.fingerprint)
    (root / "train" / "ant" / "00.png").rename(root / "train" / "bee" / "00b.png")
    found.append(ImageFolder(root, size=4).fingerprint)
    picture(root / "train" / "bee" / "00b.png", 10, size=(90, 90))
    found.append(ImageFolder(root, size=4).fingerprint)
    assert len(set(found)) == 8


def test_no_global_generator_is_read_or_changed(root):
    def use() -> str:
        held = ImageFolder(root, size=4).hold_out(3)
        batches = drawn(held, 1, 0, 5, 4), [grey(x) for x, _ in held.evaluation("validation", 2)]
        augmented = [x.sum().item() for x, _ in held.batches(1, 0, 3, 4, Augment(crop=1, flip=True))]
        return str((batches, augmented))

    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = states()
    first = use()
    assert states() == before
    torch.manual_seed(2), np.random.seed(2), random.seed(2)
    assert use() == first


def test_moving_to_a_device_keeps_the_images(root):
    data = ImageFolder(root, size=4)
    moved = data.to(torch.device("cpu"))
    assert moved.fingerprint == data.fingerprint
    assert drawn(moved, 0, 0, 4, 5) == drawn(data, 0, 0, 4, 5)
    ((x, y),) = data.to(torch.device("meta")).batches(0, 0, 1, 3)
    assert (x.device.type, y.device.type) == ("meta", "meta")
    ((x, _),) = data.batches(0, 0, 1, 3)
    assert x.device.type == "cpu"


def test_what_a_reading_process_is_given_survives_pickling(root):
    images = _Images(ImageFolder(root, size=4).items["train"], 4, 4)
    copy = pickle.loads(pickle.dumps(images))
    assert len(copy) == 13
    assert torch.equal(copy[5, None][0], images[5, None][0])
    assert copy[5, None][0].dtype == torch.uint8
    assert copy[5, None][1] == 1


def test_the_shorter_side_can_be_longer_than_the_crop(tmp_path):
    root = make(tmp_path / "pets")
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (24, 24, 3))
    for path in root.glob("t*/*/*.png"):
        Image.fromarray(np.ascontiguousarray(ramp)).save(path)
    ((x, _),) = ImageFolder(root, size=16, shorter=24).evaluation("test", 10)
    assert [round(255 * (float(v) * STD[0] + MEAN[0])) for v in x[0, 0, 0]] == list(range(40, 200, 10))
    with pytest.raises(UsageError, match="shorter side is at least the size, 16; got 8"):
        ImageFolder(root, size=16, shorter=8)


def test_random_crops_follow_seed_and_step_and_leave_evaluation_alone(tmp_path):
    root = make(tmp_path / "pets")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for path in root.glob("t*/*/*.png"):
        Image.fromarray(noise).save(path)
    centre, crops = ImageFolder(root, size=8), ImageFolder(root, size=8, random_crop=True)
    assert centre.fingerprint != crops.fingerprint
    whole = list(crops.batches(3, 0, 4, 4))
    later = list(crops.batches(3, 2, 4, 4))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[2:], later, strict=True))
    assert not torch.equal(whole[0][0][0], whole[0][0][1]), "one image, another crop"
    assert not torch.equal(whole[0][0], next(crops.batches(4, 0, 1, 4))[0])
    assert all(
        torch.equal(a, b)
        for (a, _), (b, _) in zip(crops.evaluation("test", 4), centre.evaluation("test", 4), strict=True)
    )


@pytest.mark.parametrize(
    "draws", [(0.0, 0.0, 0.0, 0.0), (0.999, 0.999, 0.999, 0.999), (0.999, 0.0, 0.5, 0.5), (0.3, 0.5, 0.9, 0.1)]
)
def test_a_random_crop_lies_in_the_image(draws, tmp_path):
    width, height = 90, 60
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8)
    image = _Images([], 6, 6)._random(Image.fromarray(picture), draws)
    pixels = np.array(image).astype(float)
    covered = (np.ptp(pixels[..., 0]) + 1) * (np.ptp(pixels[..., 1]) + 1)
    wanted = (0.08 + 0.92 * draws[0]) * width * height
    assert pixels[..., 2].max() == 0, "nothing but the image"
    assert 0.5 * wanted < covered <= 1.2 * wanted
