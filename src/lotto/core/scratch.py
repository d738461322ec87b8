"""Scratch folders that go with their owner: those of killed processes are removed when the next one is made."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from lotto.core.errors import StorageError
from lotto.core.files import reason
from lotto.core.locks import PathLock

PREFIX = "lotto-scratch-"
NOTED, OWNER = "semaphores", "owner"
SEMAPHORES = Path("/dev/shm")


class Scratch:
    """A temporary folder, for as long as this process lives and does not close it.

    Beside it stands its lock: made before it, removed after it, and held as long as it is there.

    Args:
        parent: where it is made; default: the system's folder for temporary files.

    Raises:
        StorageError: if it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        sweep(parent)
        self.folder = parent / f"{PREFIX}{secrets.token_hex(8)}"
        self._lock = PathLock(_lock_of(self.folder))
        try:
            self._lock.acquire()
            self.folder.mkdir(mode=0o700)
            (self.folder / OWNER).write_text(f"{os.getpid()} {_numbering()}")
        except OSError as error:
            self._lock.release()
            raise StorageError(f"Cannot make a folder in {parent}: {reason(error)}.") from error

    def note_semaphores(self) -> None:
        """Write down the named semaphores of this process's workers: if all are killed, nobody else removes them."""
        with contextlib.suppress(OSError):
            names = [path.name for path in SEMAPHORES.glob(f"sem.loky-{os.getpid()}-*")]
            (self.folder / NOTED).write_text("\n".join(names))

    def close(self) -> None:
        """Remove the folder, as far as the system lets us."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def sweep(parent: Path) -> None:
    """Remove the scratch folders of this user's processes that are dead, which is when their lock is free."""
    with contextlib.suppress(OSError):
        for path in list(parent.glob(f"{PREFIX}*")):
            folder = path.with_suffix("")
            with contextlib.suppress(OSError):
                if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
                    continue
                lock = PathLock(_lock_of(folder))
                if lock.acquire(wait=False):
                    _remove_semaphores(folder)
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _numbering() -> str:
    """What a process's number is a number in."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"


def _remove_semaphores(folder: Path) -> None:
    """Remove the semaphores that a dead owner wrote down, and those that bear its number if no process has it now."""
    names = (folder / NOTED).read_text().split() if (folder / NOTED).exists() else []
    number, numbering = (folder / OWNER).read_text().split(" ", 1) if (folder / OWNER).exists() else ("", "")
    if number.isdigit() and numbering == _numbering() != "unknown" and not Path("/proc", number).exists():
        names += [path.name for path in SEMAPHORES.glob(f"sem.loky-{number}-*")]
    for name in names:
        if re.fullmatch(r"sem\.loky-\d+-\w+", name):
            (SEMAPHORES / name).unlink(missing_ok=True)
