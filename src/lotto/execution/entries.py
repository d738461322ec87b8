"""Entries on disk by key: whole, verified, locked. What is in them is the store's business.

    ROOT/ab/abcdef.../...              the files of an entry
                      manifest.json    written last: checksums of the files, the job, versions, duration
    ROOT/ab/abcdef....lock             held by the process that makes the entry

An entry without a manifest is not finished. An entry whose checksums are wrong, or whose job is not the one its
key stands for, is reported, moved out of the way and made again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from lotto.core import files, fingerprint
from lotto.core.errors import StorageError

log = logging.getLogger(__name__)

T = TypeVar("T")
MANIFEST = "manifest.json"


class Entries:
    """The folder of a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """The folder of an entry."""
        return self.root / key[:2] / key

    def read(self, key: str, parse: Callable[[Path, dict[str, Any]], T]) -> T | None:
        """Verify an entry and parse it; None if it is not there, not finished or damaged.

        Args:
            key: the entry.
            parse: called with its folder and manifest; may raise what a wrong format raises.
        """
        folder = self.folder(key)
        try:
            if not (folder / MANIFEST).exists():
                return None
            manifest = json.loads((folder / MANIFEST).read_text())
            if fingerprint.digest(manifest["job"]) != key:
                raise ValueError("its manifest describes another job")
            for name, expected in manifest["checksums"].items():
                if files.checksum(folder / name) != expected:
                    raise ValueError(f"the checksum of {name} is wrong")
            return parse(folder, manifest)
        except PermissionError as error:
            raise StorageError(f"Cannot read the store {self.root}: {files.reason(error)}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
            log.warning("The stored %s is damaged (%s); it is moved to %s and made again.", key, error, aside.name)
            with contextlib.suppress(OSError):
                folder.rename(aside)
            return None

    def finish(self, key: str, description: Mapping[str, Any], checksums: Mapping[str, str], **more: Any) -> None:
        """Write the manifest, which makes the entry valid."""
        manifest = {
            "job": description,
            "checksums": checksums,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            **more,
        }
        files.write_json(self.folder(key) / MANIFEST, manifest)

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold the lock of an entry; waits for another process that makes it."""
        path = self.folder(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("Another process works on this job; waiting for it.")
                lock.acquire()
        except OSError as error:
            raise StorageError(f"Cannot use the store {self.root}: {files.reason(error)}.") from error
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove every entry, and nothing else that the folder may hold."""
        for path in self.root.glob("??/*"):
            if re.match(r"[0-9a-f]{32}(\.|$)", path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def versions() -> dict[str, str]:
    """Versions of what computes, for manifests and reports."""
    return {
        "lotto": version("lotto-tickets"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
