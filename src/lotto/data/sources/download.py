"""Download a data set once into the cache, verified, trying one source after the other."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lotto.core import files
from lotto.core.errors import DataError, StorageError, UsageError
from lotto.core.weights import digest
from lotto.data.sources.catalog import Computed, Download, Package, Packages, Published
from lotto.data.sources.decode import Decoded
from lotto.data.sources.packages import FOLDER, obtain

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all or 0 when unknown)."""

CONNECT_SECONDS = 4
"""A mirror that does not answer in this time is skipped, so that a closed network costs seconds."""
READ_SECONDS = 60
PACKAGE_SECONDS = 900


def cache_folder() -> Path:
    """``LOTTO_DATA``, or ``lotto/data`` in the XDG cache."""
    if named := os.environ.get("LOTTO_DATA"):
        return Path(named).expanduser()
    return files.user_cache("data")


def get(published: Published, folder: Path | None = None, progress: Progress | None = None) -> dict[str, Tensor]:
    """Return the decoded arrays of a published set, from the cache or from its first source that works.

    Raises:
        DataError: if no source works; the text names each that was tried and why it failed.
        StorageError: if the cache cannot be written; nothing half-written stays.
    """
    folder = folder or cache_folder()
    path = folder / f"{published.name}.safetensors"
    if (cached := _cached(published, path)) is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{published.name}.lock")
        lock.acquire()
    except OSError as error:
        raise StorageError(
            f"Cannot use the data cache {folder}: {files.reason(error)}. Set LOTTO_DATA to another folder."
        ) from error
    try:
        # Another process may have fetched it while this one waited.
        if (cached := _cached(published, path, warn=False)) is not None:
            return cached
        arrays = _from_sources(published, folder, progress or (lambda *_: None))
        tensors = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
        digests = {name: _sha256(a) for name, a in arrays.items()}
        files.save_tensors(path, tensors, {"format": "lotto.data", "name": published.name, **digests})
        return tensors
    except OSError as error:
        raise StorageError(f"Cannot write to the data cache {folder}: {files.reason(error)}.") from error
    finally:
        lock.release()


def _cached(published: Published, path: Path, warn: bool = True) -> dict[str, Tensor] | None:
    level = logging.WARNING if warn else logging.DEBUG
    try:
        if not path.exists():
            return None
        tensors, metadata = files.load_tensors(path, "lotto.data", verify=False)  # by its checksums, below
    except UsageError as error:
        log.log(level, "The cached %s is damaged and will be fetched again: %s", published.name, error)
        return None
    if published.digest and digest(tensors) != published.digest:
        log.log(level, "The cached %s is damaged and will be fetched again.", published.name)
        return None
    for name, shape in published.shapes.items():
        expected = published.sha256.get(name, metadata.get(name))
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or _sha256(tensor.numpy()) != expected:
            log.log(level, "The cached %s is damaged (%s) and will be fetched again.", published.name, name)
            return None
    return tensors


def _from_sources(published: Published, folder: Path, progress: Progress) -> Decoded:
    tried: list[str] = []
    for source in published.sources:
        # Beside the cache, so that a full disk is met before anything is decoded; always removed.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            scratch = Path(temporary)
            try:
                arrays = _obtain(source, folder, scratch, progress, tried)
                if arrays is None:
                    continue
                _verify(published, arrays)
                return arrays
            except DataError as error:
                tried.append(f"{_named(source)}: {error}")
            except (ValueError, KeyError, OSError, zlib.error) as error:  # content no decoder foresaw
                tried.append(f"{_named(source)}: the content cannot be decoded ({type(error).__name__}: {error})")
    raise DataError(
        f"Could not get the {published.kind} {published.name!r}. Tried:\n"
        + "\n".join(f"  - {line}" for line in tried)
        + f"\nWith a network connection, try again; the cache is {folder} (set LOTTO_DATA to move it)."
    )


def _obtain(
    source: Download | Package | Packages | Computed, folder: Path, scratch: Path, progress: Progress, tried: list[str]
) -> Decoded | None:
    """What a source gives; None if it cannot be reached, which is added to what was tried."""
    if isinstance(source, Computed):
        return source.make(lambda done, total: progress(source.title, done, total))
    if isinstance(source, Download):
        fetched = _download(source, scratch, progress, tried)
        return None if fetched is None else source.decode(fetched)
    paths = []
    for number, archive in enumerate(source.archives):
        own = scratch / str(number)
        own.mkdir()
        path = obtain(archive, folder / FOLDER, own, progress, tried, PACKAGE_SECONDS)
        if path is None:
            return None
        paths.append(path)
    return source.decode(*paths)


def _verify(published: Published, arrays: Decoded) -> None:
    if published.digest and digest({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}) != published.digest:
        raise DataError(f"{published.name}: the checksum of the decoded {published.kind} is wrong.")
    for name, shape in published.shapes.items():
        if arrays[name].shape != shape:
            raise DataError(f"{published.name}: {name} has shape {arrays[name].shape}, expected {shape}.")
        expected = published.sha256.get(name)
        if expected is not None and _sha256(arrays[name]) != expected:
            raise DataError(f"{published.name}: the checksum of the decoded {name} is wrong.")


def _named(source: Download | Package | Packages | Computed) -> str:
    if isinstance(source, Computed):
        return source.title
    return " or ".join(source.mirrors) if isinstance(source, Download) else " and ".join(map(str, source.archives))


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _download(source: Download, scratch: Path, progress: Progress, tried: list[str]) -> Path | None:
    import pooch  # a tenth of a second to import, which most commands do without
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    for mirror in source.mirrors:
        try:
            for name, md5 in source.checksums.items():
                pooch.retrieve(
                    f"{mirror}/{name}",
                    known_hash=f"md5:{md5}",
                    fname=name,
                    path=scratch,
                    downloader=pooch.HTTPDownloader(
                        timeout=(CONNECT_SECONDS, READ_SECONDS), progressbar=_Bar(name, progress)
                    ),
                )
            return scratch
        except requests.exceptions.ConnectionError:
            tried.append(f"{mirror}: no connection")
        except requests.exceptions.Timeout:
            tried.append(f"{mirror}: no answer in time")
        except requests.exceptions.RequestException as error:
            tried.append(f"{mirror}: {error}")
        except ValueError as error:  # pooch's answer to a wrong checksum
            tried.append(f"{mirror}: {str(error).splitlines()[0]}")
        except OSError as error:
            raise StorageError(f"Cannot write to {scratch.parent}: {files.reason(error)}.") from error
    return None


class _Bar:
    """The little interface pooch asks of a progress bar, passed on to a callback."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress = what, progress
        self.total, self.done = 0, 0

    def update(self, amount: int) -> None:
        self.done += amount  # pooch counts whole chunks, the last one too
        if self.total:
            self.done = min(self.done, self.total)
        self.progress(self.what, self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.progress(self.what, self.total, self.total)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
