"""Hashes of many files' contents; what has been hashed once is not read again while its size and times stay."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lotto.core import files
from lotto.core.errors import DataError

log = logging.getLogger(__name__)

MANY = 10_000


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """The hash of each file's content, 32 hexadecimal digits.

    Sizes and times are a shortcut: a file whose size, modification time, change time and inode are what they were is
    not read again. The change time is the system's own, no program sets it.

    Raises:
        DataError: if a file cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a"
    >>> _ = path.write_bytes(b"x")
    >>> len(file_digests([path])[path])
    32
    """
    paths = list(paths)
    known = _Known(os.path.commonpath([p.absolute() for p in paths]) if paths else "")
    marks = {path: _mark(path) for path in paths}
    new = [path for path in paths if known.get(path, marks[path]) is None]
    if len(new) > MANY:
        log.warning("Reading %s images once, so that a run is remembered for exactly these.", f"{len(new):,}")
    with ThreadPoolExecutor(4) as pool:
        for path, digest in zip(new, pool.map(_digest, new), strict=True):
            known.put(path, marks[path], digest)
    if new:
        known.save()
    return {path: str(known.get(path, marks[path])) for path in paths}


class _Known:
    """What has been hashed before, in a file of the cache for each folder."""

    def __init__(self, root: str) -> None:
        name = hashlib.blake2b(root.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        self.path = files.user_cache("digests") / f"{name}.json"
        self.entries: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads(self.path.read_text())
            self.entries = loaded if isinstance(loaded, dict) else {}

    def get(self, path: Path, mark: str) -> str | None:
        entry = self.entries.get(_name(path))
        return entry[1] if isinstance(entry, list) and len(entry) == 2 and entry[0] == mark else None

    def put(self, path: Path, mark: str, digest: str) -> None:
        self.entries[_name(path)] = [mark, digest]

    def save(self) -> None:
        with contextlib.suppress(Exception):  # without it, they are read once more next time
            files.write_json(self.path, self.entries)


def _name(path: Path) -> str:
    return str(path.absolute()).encode("utf-8", "surrogateescape").decode("latin-1")


def _mark(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {files.reason(error)}.") from error
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}:{found.st_dev}"


def _digest(path: Path) -> str:
    try:
        return files.checksum(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {files.reason(error)}.") from error
