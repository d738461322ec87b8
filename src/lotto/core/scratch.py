"""Scratch folders that go with their owner: those of killed processes are removed when the next one is made."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from lotto.core.errors import StorageError
from lotto.core.files import reason
from lotto.core.locks import PathLock

PREFIX = "lotto-scratch-"
OWNED = "owned.lock"
NOTED = "semaphores"
SEMAPHORES = Path("/dev/shm")
HOUR = 3600.0


class Scratch:
    """A temporary folder, for as long as this process lives and does not close it.

    Raises:
        StorageError: if it cannot be made.
    """

    def __init__(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = PathLock(self.folder / OWNED)
            self._lock.acquire()
        except OSError as error:
            raise StorageError(f"Cannot make a folder in {tempfile.gettempdir()}: {reason(error)}.") from error

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
    """Remove scratch folders whose owner is dead: nobody holds their lock, or they never got one."""
    with contextlib.suppress(OSError):
        for folder in list(parent.glob(f"{PREFIX}*")):
            with contextlib.suppress(OSError):
                if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                    continue
                if (folder / OWNED).exists():
                    lock = PathLock(folder / OWNED)
                    if lock.acquire(wait=False):
                        _remove_semaphores(folder / NOTED)
                        shutil.rmtree(folder, ignore_errors=True)
                        lock.release()
                elif time.time() - folder.stat().st_mtime > HOUR:
                    folder.rmdir()  # if it is empty: a process was killed between making and owning it


def _remove_semaphores(noted: Path) -> None:
    if noted.exists():
        for name in noted.read_text().split():
            if re.fullmatch(r"sem\.loky-\d+-\w+", name):
                (SEMAPHORES / name).unlink(missing_ok=True)
