"""Locks that end with the process that holds them, even by SIGKILL, and leave no file behind when they are released."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP)
"""What file systems say that know no such locks."""


class PathLock:
    """A lock on a path.

    Its file is removed by whoever holds it. Who has waited for a file that is gone meanwhile asks for the new one, so
    no two hold the lock at a time. Where the system cannot do this the file stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._other: Any = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; returns whether it is held now, which without ``wait`` it may not be.

        Raises:
            OSError: if the system refuses to open the file or to lock it.
        """
        if fcntl is None:
            return self._acquire_other(wait)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not claim(descriptor, wait):
                    return False
                if is_at(descriptor, self.path):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                return self._acquire_other(wait)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _acquire_other(self, wait: bool) -> bool:
        self._other = FileLock(self.path)
        try:
            self._other.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Remove the file and let go of the lock."""
        if self._other is not None:
            self._other.release()
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # it is swept later
                self.path.unlink()
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)


def claim(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file until it is closed; returns whether it is this process's now.

    Raises:
        OSError: if the system has no such locks, or refuses.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def remove_abandoned(path: Path) -> bool:
    """Remove a file that its owner claims while it lives, if no process does; returns whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        if not claim(descriptor):
            return False
        path.unlink()  # while it is held: an owner that has only just made it sees that it is gone
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def create_claimed(path: Path) -> int | None:
    """Make a file and claim it; returns its descriptor, or None if somebody has swept it away at once.

    Raises:
        OSError: if it cannot be made; where the system has no such locks it is made all the same.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        held = claim(descriptor) and is_at(descriptor, path)
    except OSError:  # then nobody can tell whether it is abandoned, and all leave it alone
        held = True
    if not held:
        os.close(descriptor)
    return descriptor if held else None
