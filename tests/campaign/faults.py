"""Faults of the system, one at a time or from some moment on: at every open, read, write, sync, rename, unlink, lock."""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors

NUMBERS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EACCES)
OPERATIONS = ("open", "replace", "rename", "unlink", "mkdir", "rmdir", "fsync", "listdir", "scandir", "stat")
CHANGES = ("replace", "rename", "unlink", "mkdir", "rmdir", "fsync", "write", "create")
"""What a read-only or a full file system refuses; everything else goes on there."""


class Faults:
    """Counts the operations on files below a folder; from the chosen one on, or there alone, they fail.

    Args:
        root: the folder.
        at: which operation fails, from 0; None = none, they are only counted.
        number: how it fails, see `errno`.
        lasting: whether later ones fail too.
    """

    def __init__(self, root: Path, at: int | None = None, number: int = errno.EIO, lasting: bool = False) -> None:
        self.root, self.at, self.number, self.lasting = str(root), at, number, lasting
        self.names: list[str] = []
        self.failed = ""
        self._open: set[int] = set()

    def check(self, name: str, target: object) -> None:
        """Count an operation; it may fail."""
        if isinstance(target, int):
            if target not in self._open:
                return
        elif not str(target).startswith(self.root):
            return
        only_changes = self.number in (errno.ENOSPC, errno.EROFS)
        if only_changes and name not in CHANGES:
            return
        self.names.append(name)
        here = len(self.names) - 1
        if self.at is not None and (here == self.at or (self.lasting and here > self.at)):
            self.failed = self.failed or name
            raise OSError(self.number, os.strerror(self.number), str(target))

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Watch and fail the operations of this process within the block."""
        kept: list[tuple[Any, str, Any]] = []

        def put(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, make(getattr(owner, name)))

        for name in OPERATIONS:
            put(os, name, lambda real, name=name: self._wrapped(name, real))
        put(os, "close", lambda real: lambda descriptor: (self._open.discard(descriptor), real(descriptor))[1])
        put(fcntl, "flock", lambda real: self._wrapped("lock", real))
        opened = self._opened(io.open)
        for owner in (builtins, io):
            put(owner, "open", lambda real: opened)
        put(safetensors, "safe_open", lambda real: self._wrapped("read", real))
        try:
            yield
        finally:
            for owner, name, real in reversed(kept):
                setattr(owner, name, real)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(target: Any, *args: Any, **kwargs: Any) -> Any:
            creates = name == "open" and args and args[0] & os.O_CREAT
            self.check("create" if creates else name, target)
            result = real(target, *args, **kwargs)
            if name == "open" and str(target).startswith(self.root):
                self._open.add(result)
            return result

        return operation

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(target: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            self.check("create" if set(mode) & set("wax+") else "open", target)
            handle = real(target, mode, *args, **kwargs)
            if str(target).startswith(self.root):
                self._open.add(handle.fileno())
                return Handle(handle, self, target)
            return handle

        return operation


class Handle:
    """An open file whose reads and writes may fail; a write that fails is half done."""

    def __init__(self, handle: Any, faults: Faults, target: object) -> None:
        self._handle, self._faults, self._target = handle, faults, target

    def read(self, *args: Any) -> Any:
        self._faults.check("read", self._target)
        return self._handle.read(*args)

    def write(self, content: Any) -> Any:
        try:
            self._faults.check("write", self._target)
        except OSError:
            self._handle.write(content[: len(content) // 2])
            self._handle.flush()
            raise
        return self._handle.write(content)

    def __enter__(self) -> Handle:
        self._handle.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._handle.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._handle)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
