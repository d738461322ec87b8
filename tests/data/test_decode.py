from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lotto.core.errors import DataError
from lotto.data.sources import decode
from lotto.data.sources.catalog import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, Package

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("package")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def png_sheet(images: np.ndarray) -> bytes:
    """One image per row: its pixels in row-major order, red green blue."""
    rows = [[images[n, :, i, j] for i in range(32) for j in range(32)] for n in range(len(images))]
    out = io.BytesIO()
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(out, "png")
    return out.getvalue()


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    return b"".join(bytes([*(int(part[n]) for part in labels)]) + images[n].tobytes() for n in range(len(images)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans())
def test_idx_comes_back_as_it_was_plain_or_gzipped(shape, zipped):
    array = pixels(tuple(shape))
    content = idx_bytes(array)
    found = decode.idx(gzip.compress(content) if zipped else content, "a")
    assert found.dtype == np.uint8
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_idx_is_read_in_row_major_order():
    content = bytes.fromhex("00000802 00000002 00000003 010203 040506")
    assert decode.idx(content, "a").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("change", [-1, 1])
def test_idx_of_the_wrong_length_is_refused(zipped, change):
    content = idx_bytes(pixels((3, 4)))
    content = content[:-1] if change < 0 else content + b"\0"
    with pytest.raises(DataError, match=rf"^images is truncated: {12 + change} bytes for the shape \(3, 4\)\.$"):
        decode.idx(gzip.compress(content) if zipped else content, "images")


def test_truncated_gzip_is_refused():
    content = gzip.compress(idx_bytes(pixels((30, 40))))
    for keep in (len(content) - 1, len(content) // 2, 12):
        with pytest.raises(DataError, match=r"^images is truncated or not gzip: "):
            decode.idx(content[:keep], "images")


def test_damaged_gzip_is_refused():
    content = bytearray(gzip.compress(idx_bytes(pixels((30, 40)))))
    for at in (10, 11, len(content) // 2, len(content) - 6):
        damaged = content.copy()
        damaged[at] ^= 0xFF
        with pytest.raises(DataError, match=r"^images is truncated"):
            decode.idx(bytes(damaged), "images")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", b"<html>404</html>"])
def test_wrong_magic_is_refused(content):
    with pytest.raises(DataError, match=r"^images is not an IDX file of unsigned bytes\.$"):
        decode.idx(content, "images")


@pytest.mark.parametrize("keep", [4, 7, 8, 15])
def test_idx_cut_inside_its_header_is_refused(keep):
    with pytest.raises(DataError, match=r"^images is truncated"):
        decode.idx(idx_bytes(pixels((3, 4, 5)))[:keep], "images")


def idx_four() -> dict[str, np.ndarray]:
    shapes = {"x_train": (5, 3, 4), "y_train": (5,), "x_test": (2, 3, 4), "y_test": (2,)}
    return {key: pixels(shape, i) for i, (key, shape) in enumerate(shapes.items())}


def test_the_four_files_of_mnist_become_images_with_a_channel():
    arrays = idx_four()
    contents = {decode.IDX_FILES[key]: idx_bytes(array) for key, array in arrays.items()}
    found = decode.idx_set(contents.__getitem__)
    assert {key: a.shape for key, a in found.items()} == {
        "x_train": (5, 1, 3, 4),
        "y_train": (5,),
        "x_test": (2, 1, 3, 4),
        "y_test": (2,),
    }
    assert all(np.array_equal(found[key].squeeze(), array) for key, array in arrays.items())


@pytest.mark.parametrize("published", [MNIST, FASHION_MNIST], ids=lambda p: p.name)
def test_mnists_download_is_decoded(published, tmp_path):
    source, arrays = published.sources[0], idx_four()
    for key, name in decode.IDX_FILES.items():
        assert f"{name}.gz" in source.checksums
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(arrays[key])))
    found = source.decode(tmp_path)
    assert all(np.array_equal(found[key].squeeze(), array) for key, array in arrays.items())


def mnist_package() -> Package:
    (package,) = (s for s in MNIST.sources if isinstance(s, Package))
    return package


def test_mnists_package_is_decoded(tmp_path):
    arrays = idx_four()
    contents = {f"data/{decode.IDX_FILES[key]}": idx_bytes(array) for key, array in arrays.items()}
    found = mnist_package().decode(tar(tmp_path / "a.tgz", contents))
    assert all(np.array_equal(found[key].squeeze(), array) for key, array in arrays.items())


def test_mnists_package_without_a_file_names_it_and_lists_the_others(tmp_path):
    archive = tar(tmp_path / "a.tgz", {"package.json": b"{}", "digits.json": b"[]"})
    text = r"has no file 'train-images-idx3-ubyte'; it holds digits\.json, package\.json"
    with pytest.raises(DataError, match=text):
        mnist_package().decode(archive)


def test_members_are_found_by_their_base_names(tmp_path):
    archive = tar(tmp_path / "a.tgz", {"one": b"1", "deep/er/two": b"2", "empty": b""})
    assert decode.members(archive) == {"one": b"1", "two": b"2", "empty": b""}
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_an_archive_that_is_not_one_is_refused(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataError, match=r"^a\.tgz is truncated or not a tar archive: "):
        decode.members(path)


def test_a_truncated_archive_is_refused(tmp_path):
    path = tar(tmp_path / "a.tgz", {"one": pixels((5000,)).tobytes(), "two": pixels((5000,), 1).tobytes()})
    whole = path.read_bytes()
    for keep in (0, 5, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"^a\.tgz is truncated or not a tar archive: "):
            decode.members(path)


def test_a_damaged_archive_raises_nothing_but_a_data_error(tmp_path):
    path = tar(tmp_path / "a.tgz", {"one": bytes(pixels((5000,)) % 7), "two": bytes(pixels((5000,), 1) % 5)})
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 31):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            decode.members(path)
        except DataError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifars_binary_version_is_decoded(label_bytes, tmp_path):
    x, fine, coarse = pixels((7, 3, 32, 32)), pixels((7,), 1), pixels((7,), 2)
    labels = (fine,) if label_bytes == 1 else (coarse, fine)

    def part(chosen: slice) -> bytes:
        return records(x[chosen], *(a[chosen] for a in labels))

    members = {"b.bin": part(slice(0, 2)), "a.bin": part(slice(2, 5)), "t.bin": part(slice(5, 7))}
    archive = tar(tmp_path / "c.tar.gz", members)
    found = decode.cifar_binary(archive, ("b.bin", "a.bin"), "t.bin", label_bytes)
    assert np.array_equal(found["x_train"], x[:5])
    assert np.array_equal(found["x_test"], x[5:])
    assert found["y_train"].tolist() == fine[:5].tolist()
    assert found["y_test"].tolist() == fine[5:].tolist()
    assert all(a.dtype == np.uint8 and a.flags.c_contiguous for a in found.values())


def test_cifars_planes_are_red_green_blue(tmp_path):
    record = bytes([4]) + b"\x01" * 1024 + b"\x02" * 1024 + b"\x03" * 1023 + b"\x09"
    archive = tar(tmp_path / "c.tar.gz", {"a": record, "t": record})
    found = decode.cifar_binary(archive, ("a",), "t", 1)
    image = found["x_train"][0]
    assert [image[c, 0, 0] for c in range(3)] == [1, 2, 3]
    assert image[2, 31, 31] == 9
    assert found["y_train"].tolist() == [4]


def test_cifars_binary_version_cut_inside_a_record_is_refused(tmp_path):
    whole = records(pixels((2, 3, 32, 32)), pixels((2,)))
    archive = tar(tmp_path / "c.tar.gz", {"a": whole, "t": whole[:-1]})
    with pytest.raises(DataError, match=r"^c\.tar\.gz is truncated: 6145 bytes are not whole records\.$"):
        decode.cifar_binary(archive, ("a",), "t", 1)


def test_a_missing_member_is_named_and_the_others_are_listed(tmp_path):
    archive = tar(tmp_path / "c.tar.gz", {"b.bin": b"", "a.bin": b"", "readme.html": b""})
    text = r"^The archive has no file 't\.bin'; it holds a\.bin, b\.bin, readme\.html\.$"
    with pytest.raises(DataError, match=text):
        decode.cifar_binary(archive, ("a.bin", "b.bin"), "t.bin", 1)
    with pytest.raises(DataError, match=r"has no file 'l\.json'; it holds a\.bin, b\.bin, readme\.html\.$"):
        decode.cifar_sheets(archive, ("a.bin",), "t.bin", ("l.json", "m.json"))


def sheets(path: Path, **changes: bytes) -> tuple[Path, dict[str, np.ndarray]]:
    x, y = pixels((7, 3, 32, 32)), pixels((7,), 1) % 10
    members = {
        "one.png": png_sheet(x[:3]),
        "two.png": png_sheet(x[3:5]),
        "test.png": png_sheet(x[5:]),
        "train.json": json.dumps(y[:5].tolist()).encode(),
        "test.json": json.dumps(y[5:].tolist()).encode(),
    }
    changed = {name.replace("_", "."): content for name, content in changes.items()}
    expected = {"x_train": x[:5], "y_train": y[:5], "x_test": x[5:], "y_test": y[5:]}
    return tar(path, {**members, **changed}), expected


def decode_sheets(archive: Path) -> decode.Decoded:
    return decode.cifar_sheets(archive, ("one.png", "two.png"), "test.png", ("train.json", "test.json"))


def test_png_sheets_hold_one_image_per_row(tmp_path):
    archive, expected = sheets(tmp_path / "p.tgz")
    found = decode_sheets(archive)
    for key, array in expected.items():
        assert found[key].dtype == np.uint8
        assert found[key].flags.c_contiguous
        assert np.array_equal(found[key], array)


@pytest.mark.parametrize(
    "change",
    [
        {"two_png": b"not a picture"},
        {"two_png": png_sheet(pixels((2, 3, 32, 32)))[:-2000]},
        {"test_json": b"[1, 2"},
        {"test_json": b"[1, 256]"},
    ],
    ids=["not a PNG", "a truncated PNG", "truncated labels", "labels over a byte"],
)
def test_a_damaged_package_of_sheets_is_a_data_error(change, tmp_path):
    archive, _ = sheets(tmp_path / "p.tgz", **change)
    with pytest.raises(DataError, match=r"two\.png|test\.json"):
        decode_sheets(archive)


def test_cifar10s_two_sources_give_the_same_bits(tmp_path):
    x, y = pixels((7, 3, 32, 32)), pixels((7,), 1) % 10
    cuts = {name: slice(i, i + 1) for i, name in enumerate(BATCHES)} | {"test_batch": slice(5, 7)}
    download, package = CIFAR10.sources
    tar(tmp_path / "cifar-10-binary.tar.gz", {f"{n}.bin": records(x[c], y[c]) for n, c in cuts.items()})
    images = {f"{n}.png": png_sheet(x[c]) for n, c in cuts.items()}
    labels = {"train_lables.json": y[:5], "test_lables.json": y[5:]}
    sheets_ = tar(tmp_path / "p.tgz", images | {n: json.dumps(v.tolist()).encode() for n, v in labels.items()})
    first, second = download.decode(tmp_path), package.decode(sheets_)
    expected = {"x_train": x[:5], "y_train": y[:5], "x_test": x[5:], "y_test": y[5:]}
    for key, array in expected.items():
        assert first[key].dtype == second[key].dtype == np.uint8
        assert first[key].tobytes() == second[key].tobytes() == array.tobytes()


def test_cifar100_uses_the_fine_labels(tmp_path):
    x, coarse, fine = pixels((3, 3, 32, 32)), np.array([1, 2, 3]), np.array([99, 50, 7])
    members = {"train.bin": records(x[:2], coarse[:2], fine[:2]), "test.bin": records(x[2:], coarse[2:], fine[2:])}
    tar(tmp_path / "cifar-100-binary.tar.gz", members)
    found = CIFAR100.sources[0].decode(tmp_path)
    assert found["y_train"].tolist() == [99, 50]
    assert found["y_test"].tolist() == [7]
    assert np.array_equal(found["x_train"], x[:2])
