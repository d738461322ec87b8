"""Entries on disk by key: whole, verified, locked. What is in them is the store's business.

    ROOT/ab/abcdef.../...                files of an entry, which never change once a manifest names them
                      manifest.json      written last: checksums of the files, the job, versions, duration
                      manifest-1.json    what was there and what has been added; and so on
    ROOT/locks/abcdef....lock            there while a process makes or extends the entry, or after it was killed

An entry without a manifest is not finished. Readers take the newest manifest whose files are whole, so they see an
entry as it was before an extension or as it is after it. An entry without any such manifest, or of another job than
the one its key stands for, is damaged: whoever holds its lock reports it, moves it away and makes it once more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from lotto.core import files, fingerprint
from lotto.core.errors import StorageError, UsageError
from lotto.core.locks import PathLock

log = logging.getLogger(__name__)

T = TypeVar("T")
LOCKS = "locks"
MARKER, SCHEMA = "store.json", {"schema": fingerprint.SCHEMA}
KEY = re.compile(r"[0-9a-f]{32}(\.|$)")
LOCK = re.compile(r"[0-9a-f]{32}\.lock")
CHECKPOINT = "checkpoint.safetensors"
NUMBERED = re.compile(r"manifest(?:-(\d+))?\.json")


def manifest_name(number: int) -> str:
    """File name of an entry's manifest: 0 is the first."""
    return f"manifest-{number}.json" if number else "manifest.json"


def numbers_of(names: Iterable[str]) -> list[int]:
    """Numbers of the manifests among the files of an entry, in order."""
    return sorted(int(found[1] or 0) for name in names if (found := NUMBERED.fullmatch(name)))


def state_name(step: int) -> str:
    """File name of the state at a step."""
    return f"state-{step}.safetensors"


class StoreFolder:
    """Where a store is, and its entries by key, whatever they mean; enough to list, verify and remove them.

    Args:
        root: the folder; default ``LOTTO_STORE``, or ``lotto/runs`` in the XDG cache.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        if root is None:
            root = os.environ.get("LOTTO_STORE") or files.user_cache("runs")
        self.root = Path(root).expanduser().absolute()
        self.entries = Entries(self.root)


class Entries:
    """The folder of a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """The folder of an entry."""
        return self.root / key[:2] / key

    def read(self, key: str, parse: Callable[[Path, dict[str, Any]], T], *, locked: bool = False) -> T | None:
        """Verify an entry and parse it; None if it is not there, not finished or damaged.

        Args:
            key: the entry.
            parse: called with its folder and manifest; may raise what a wrong format raises.
            locked: whether the caller holds the entry's lock; only then a damaged entry is moved out of the way, since
                another process may have made it anew meanwhile.

        Raises:
            StorageError: if the system refuses to read it, which is no damage.
        """
        found, problem = self._newest(key, parse)
        if problem and found is None and locked:
            self._set_aside(key, problem)
        return found

    def problem(self, key: str) -> str:
        """What is wrong with the newest manifest of an entry, or what it names; empty if nothing is."""
        return self._newest(key, lambda *_: True)[1]

    def _newest(self, key: str, parse: Callable[[Path, dict[str, Any]], T]) -> tuple[T | None, str]:
        """What the newest whole manifest gives, and what is wrong with newer ones."""
        folder, problem = self.folder(key), ""
        with files.attempting(f"read the store {self.root}"):
            for number in reversed(self.manifests(folder)):
                try:
                    manifest = json.loads((folder / manifest_name(number)).read_text())
                    if fingerprint.digest(manifest["job"]) != key:
                        raise ValueError("its manifest describes another job")
                    for name, expected in manifest["checksums"].items():
                        if files.checksum(folder / name) != expected:
                            raise ValueError(f"the checksum of {name} is wrong")
                    return parse(folder, manifest), problem
                except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError, IsADirectoryError) as error:
                    problem = problem or str(error)
        return None, problem

    def _set_aside(self, key: str, problem: str) -> None:
        folder = self.folder(key)
        aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
        log.warning("The stored %s is damaged (%s); it is moved to %s and made again.", key, problem, aside.name)
        try:
            folder.rename(aside)
        except FileNotFoundError:  # somebody has removed it
            pass
        except OSError as error:  # what is made now stands beside it, under a newer manifest
            log.warning("Cannot move the damaged %s: %s.", folder, files.reason(error))

    def prepare(self, key: str) -> None:
        """Make the folder of an entry, whose lock is held, before anything is computed for it."""
        folder = self.folder(key)
        try:
            if folder.exists() and not folder.is_dir():
                self._set_aside(key, "it is a file, not a folder")
            files.make_folder(folder)
            inner = [path.name for path in folder.iterdir() if path.is_dir()]
        except OSError as error:
            raise refusal(self.root, error) from error
        if inner:
            self._set_aside(key, f"{inner[0]} is a folder, not a file")
            files.make_folder(folder)

    def finish(self, key: str, description: Mapping[str, Any], checksums: Mapping[str, str], **more: Any) -> None:
        """Write a manifest beside those that are there: the entry is what it names.

        Args:
            key: the entry, whose lock is held.
            description: what the key stands for.
            checksums: of all files of the entry, those of earlier manifests that still hold among them.
            more: further entries.
        """
        manifest = {
            "job": description,
            "checksums": checksums,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            **more,
        }
        folder = self.folder(key)
        number = max(self.manifests(folder), default=-1) + 1
        files.write_json(folder / manifest_name(number), manifest)

    def manifests(self, folder: Path) -> list[int]:
        """Numbers of an entry's manifests, in order."""
        with files.attempting(f"read the store {self.root}"):
            try:
                names = [path.name for path in folder.iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return numbers_of(names)

    def lock(self, key: str) -> PathLock:
        """The lock of an entry."""
        return PathLock(self.root / LOCKS / f"{key}.lock")

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold the lock of an entry; waits for another process that makes it.

        Raises:
            StorageError: if the store cannot be used; its cause is what the system said.
        """
        lock = self.lock(key)
        try:
            lock.path.parent.mkdir(parents=True, exist_ok=True)
            if not lock.acquire(wait=False):
                log.info("Another process works on this job; waiting for it.")
                lock.acquire()
        except OSError as error:
            raise refusal(self.root, error) from error
        try:
            self._sweep(key)
            yield
        finally:
            with contextlib.suppress(OSError):  # if nothing came of it
                self.folder(key).rmdir()
            lock.release()

    def sweep(self) -> None:
        """Remove what killed processes have left: their locks, and files on their way in the entries they held."""
        with contextlib.suppress(OSError):  # a store that cannot be swept can still be read
            for path in list((self.root / LOCKS).iterdir()):
                lock = PathLock(path)
                if LOCK.fullmatch(path.name) and lock.acquire(wait=False):
                    self._sweep(path.stem)
                    lock.release()

    def say_former(self) -> None:
        """Say of a store, once, how many of its entries are of former versions; it then says that it is of this one."""
        marker = self.root / MARKER
        with contextlib.suppress(OSError, ValueError, StorageError):
            if not self.root.is_dir() or (marker.exists() and json.loads(marker.read_text()) == SCHEMA):
                return
            paths = self.root.glob("??/*/manifest.json")
            found = (parsed(path) for path in paths if KEY.fullmatch(path.parent.name))
            if former := sum(is_former(manifest) for manifest in found if manifest):
                log.warning(
                    "The store %s holds %s of a former version, whose keys meant something else: ignored, and what is "
                    "wanted of them is computed anew. `lotto store gc` removes them.",
                    self.root, "1 entry" if former == 1 else f"{former} entries",
                )  # fmt: skip
            files.write_json(marker, SCHEMA)

    def _sweep(self, key: str) -> None:
        """Remove what is on its way in an entry whose lock is held, so that nobody is writing there."""
        with contextlib.suppress(OSError):
            for path in list(self.folder(key).glob(".*.tmp")):
                path.unlink(missing_ok=True)
            self.folder(key).rmdir()  # if it is empty

    def clear(self) -> None:
        """Remove every entry, and nothing else that the folder may hold."""
        self.sweep()
        for path in self.root.glob("??/*"):
            if KEY.match(path.name):
                with contextlib.suppress(FileNotFoundError):  # somebody else removes it
                    remove_whole(path) if path.is_dir() else path.unlink()


def remove_whole(folder: Path) -> None:
    """Remove an entry's folder.

    Under another name first: whoever reads sees all of it or nothing, and nobody writes into what goes.
    """
    aside = folder.with_name(f"{folder.name.partition('.')[0]}.removed-{time.time_ns()}")
    folder.rename(aside)
    shutil.rmtree(aside)


def parsed(path: Path) -> dict[str, Any]:
    """A manifest; empty if it is gone or is none.

    Raises:
        OSError: if the system refuses to read it, which is no damage.
    """
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, FileNotFoundError, IsADirectoryError):
        return {}
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("job"), dict) else {}


def is_former(manifest: Mapping[str, Any]) -> bool:
    """Whether an entry is of a version whose keys meant something else."""
    schema = manifest["job"].get("schema", 0)
    return not isinstance(schema, int) or schema < fingerprint.SCHEMA


def checkpoint_step(folder: Path, key: str, verify: bool = True) -> int | None:
    """The step at which the checkpoint in an entry's folder stands; None if there is none of it that can be read."""
    with contextlib.suppress(UsageError, StorageError, KeyError, ValueError, TypeError):
        _, metadata = files.load_tensors(folder / CHECKPOINT, "lotto.checkpoint", verify)
        if metadata.get("key") == key:
            return int(json.loads(metadata["progress"])["step"])
    return None


def refusal(root: Path, error: OSError) -> StorageError:
    """The error for a store that the system does not let us use."""
    return StorageError(
        f"Cannot use the store {root}: {files.reason(error)}. Name another with --store or LOTTO_STORE."
    )


def versions() -> dict[str, str]:
    """Versions of what computes, for manifests and reports."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Looked up once: reading a package's metadata takes longer than writing an entry."""
    import torch

    return {
        "lotto": version("lotto-tickets"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
