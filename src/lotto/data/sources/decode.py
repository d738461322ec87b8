"""From the bytes of a published archive to arrays: IDX, CIFAR's binary format, CIFAR as PNG sheets."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lotto.core.errors import DataError

Decoded = dict[str, np.ndarray]
"""x_train, y_train, x_test, y_test as uint8; images in (examples, channels, height, width)."""

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def idx(content: bytes, name: str) -> np.ndarray:
    """Decode one IDX file (gzipped or not) of unsigned bytes; checks the length against the header."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{name} is truncated or not gzip: {error}.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is not an IDX file of unsigned bytes.")
    dims = content[3]
    if len(content) < 4 + 4 * dims:
        raise DataError(f"{name} is truncated: it ends within its header.")
    shape = struct.unpack(f">{dims}I", content[4 : 4 + 4 * dims])
    body = content[4 + 4 * dims :]
    if len(body) != int(np.prod(shape)):
        raise DataError(f"{name} is truncated: {len(body)} bytes for the shape {shape}.")
    return np.frombuffer(body, np.uint8).reshape(shape)


def idx_set(read: Callable[[str], bytes]) -> Decoded:
    """Decode the four IDX files of MNIST's kind; ``read`` gives the bytes of a file by its plain name."""
    arrays = {key: idx(read(name), name) for key, name in IDX_FILES.items()}
    for key in ("x_train", "x_test"):
        arrays[key] = arrays[key][:, None]
    return arrays


def members(archive: Path) -> Mapping[str, bytes]:
    """Contents of a tar archive by base name, read without unpacking anything to disk."""
    try:
        with tarfile.open(archive) as tar:
            found = {}
            for member in tar.getmembers():
                handle = tar.extractfile(member) if member.isfile() else None
                if handle is not None:
                    found[Path(member.name).name] = handle.read()
            return found
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive.name} is truncated or not a tar archive: {error}.") from error


def member(found: Mapping[str, bytes], name: str) -> bytes:
    """One file of an archive; raises ``DataError`` with the names there are if it is missing."""
    if name not in found:
        raise DataError(f"The archive has no file {name!r}; it holds {', '.join(sorted(found))}.")
    return found[name]


def cifar_binary(archive: Path, train: tuple[str, ...], test: str, label_bytes: int) -> Decoded:
    """Decode CIFAR's binary version: records of ``label_bytes`` labels (the last is used) and 3072 pixels."""
    found = members(archive)

    def split(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        raw = np.concatenate([np.frombuffer(member(found, n), np.uint8) for n in names])
        if raw.size % (label_bytes + 3072):
            raise DataError(f"{archive.name} is truncated: {raw.size} bytes are not whole records.")
        records = raw.reshape(-1, label_bytes + 3072)
        images = np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32)
        return images, records[:, label_bytes - 1].copy()

    x_train, y_train = split(train)
    x_test, y_test = split((test,))
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def cifar_sheets(archive: Path, train: tuple[str, ...], test: str, labels: tuple[str, str]) -> Decoded:
    """Decode CIFAR-10 stored as PNG sheets: one image per row, its 1024 pixels in row-major RGB."""
    found = members(archive)

    def sheet(name: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(member(found, name))) as image:
                pixels = np.asarray(image.convert("RGB"))
            return pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{name} is damaged or not a sheet of images: {error}.") from error

    def label_list(name: str) -> np.ndarray:
        try:
            return np.array(json.loads(member(found, name)), dtype=np.uint8)
        except (ValueError, OverflowError, TypeError) as error:
            raise DataError(f"{name} is damaged or not a list of labels: {error}.") from error

    y_train, y_test = map(label_list, labels)
    return {
        "x_train": np.ascontiguousarray(np.concatenate([sheet(n) for n in train])),
        "y_train": y_train,
        "x_test": np.ascontiguousarray(sheet(test)),
        "y_test": y_test,
    }
