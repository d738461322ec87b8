"""Files that are either complete or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto.core import locks
from lotto.core.errors import LottoError, StorageError, UsageError, text

if TYPE_CHECKING:
    from torch import Tensor

WINDOWS = os.name == "nt"
READING_SECONDS = 2.0
"""So long somebody may need to read a small file that is replaced."""
TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")
"""Names of files on their way, see `replacing`."""


def reason(error: OSError) -> str:
    """Why the system refused, in a few words."""
    return "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))


@contextlib.contextmanager
def attempting(what: str) -> Iterator[None]:
    """A block that asks the system to do ``what``: ``remove FILE``.

    Raises:
        StorageError: when it refuses, which is what the error's cause is.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"Cannot {what}: {reason(error)}.") from error


def user_cache(part: str) -> Path:
    """A folder of ours in the user's cache, ``~/.cache/lotto/PART`` unless XDG_CACHE_HOME says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lotto" / part


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        StorageError: when the system refuses.
    """
    with attempting(f"make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def check_private(folder: Path) -> None:
    """Raise ``UsageError`` unless a folder is this user's and nobody else can write to it: what lies there is run."""
    with attempting(f"read {folder}"):
        about = folder.lstat()
    if not hasattr(os, "getuid"):
        return
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise UsageError(
            f"{folder} belongs to somebody else, or others can write to it: what lies there would be run. "
            f"Remove it, or: chmod go-w {folder}."
        )


def is_unwritable(error: StorageError) -> bool:
    """Whether the system said that nothing can be written there at all: a full disk, a read-only file system."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and takes its place.

    What killed processes have left beside ``path`` in the same way is removed.

    Raises:
        StorageError: when the disk is full or the folder cannot be written; the old file stays.
    """
    make_folder(path.parent)
    descriptor = None
    try:
        while descriptor is None:
            temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
            descriptor = locks.create_claimed(temporary)
        yield temporary
        with temporary.open("rb+") as handle:  # Windows syncs only what can be written to
            os.fsync(handle.fileno())
        if WINDOWS:  # where an open file cannot be renamed
            os.close(descriptor)
            descriptor = None
        _take_place(temporary, path)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {reason(error)}. Nothing was changed.") from error
    finally:
        with contextlib.suppress(OSError):  # the reason why it is not wanted matters more
            temporary.unlink(missing_ok=True)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    sweep_temporary(path.parent, f"{path.name}.")


def _take_place(new: Path, path: Path) -> None:
    """Rename; on Windows whoever reads the old file is in the way, and has soon read it."""
    until = time.monotonic() + READING_SECONDS
    while True:
        try:
            os.replace(new, path)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > until:
                raise
            time.sleep(0.01)


def sweep_temporary(folder: Path, name: str = "") -> None:
    """Remove what killed processes have left in a folder of files on their way whose names begin with ``name``."""
    with contextlib.suppress(OSError):
        for found in list(folder.iterdir()):
            if TEMPORARY.fullmatch(found.name) and found.name.startswith(f".{name}"):
                locks.remove_abandoned(found)


@contextlib.contextmanager
def reading(path: Path, advice: str = "Make it again.") -> Iterator[None]:
    """A block that makes something of a file's content, which may hold anything.

    Raises:
        StorageError: when the system refuses to read it.
        UsageError: for whatever else goes wrong, in a sentence that names the file and ends in ``advice``.
    """
    try:
        yield
    except LottoError:
        raise
    except OSError as error:
        raise StorageError(f"Cannot read {text(str(path))}: {reason(error)}.") from error
    except Exception as error:  # of a content that nobody foresaw
        said = f"{type(error).__name__}, {text(str(error))}"
        raise UsageError(
            f"{text(str(path))} cannot be read: it is damaged or of another kind ({said}). {advice}"
        ) from error


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file atomically; returns the checksum of its content."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_text(path: Path, text: str) -> str:
    """Write UTF-8 text atomically, bytes of names that are none spelled out; returns its checksum."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> str:
    """Write JSON atomically; returns its checksum."""
    return write_text(path, json.dumps(value, indent=1) + "\n")


def checksum(path: Path) -> str:
    """BLAKE2b-128 of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        StorageError: if the system does not let us see.
    """
    with attempting(f"read {path}"):
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write named tensors with metadata as safetensors, atomically; returns the checksum."""
    from safetensors.torch import save

    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        # The format refuses tensors that share memory (tied weights, one array used twice).
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return write_bytes(path, _ordered(save(separate, {**metadata, "digest": _digest(separate, metadata)})))


def load_tensors(path: Path, expected: str, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file whose metadata says ``format: expected``.

    Args:
        path: the file.
        expected: its format.
        verify: compare content and metadata with the digest that was written with them.

    Raises:
        UsageError: if the file is missing, not safetensors, of another format, or its content was changed.
        StorageError: if the system refuses to read it.
    """
    from safetensors import SafetensorError, safe_open

    if not is_file(path):
        raise UsageError(f"There is no file {path}.")
    try:
        with attempting(f"read {path}"), _openable(path) as name, safe_open(name, framework="pt") as handle:
            metadata = handle.metadata() or {}
            found = metadata.get("format", "unknown")
            if found != expected:
                raise UsageError(f"{path} is not a {expected} file (its format is {found!r}).")
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        written = metadata.pop("digest", None)
        if verify and written != _digest(tensors, metadata):
            raise UsageError(f"{path} is damaged: its content is not what was written.")
        return tensors, metadata
    except SafetensorError as error:
        raise UsageError(f"{path} is not a {expected} file: {error}.") from error


@contextlib.contextmanager
def _openable(path: Path) -> Iterator[str]:
    """A name that safetensors takes: it wants text, and not every name is."""
    try:
        yield str(path).encode().decode()
    except UnicodeEncodeError:
        with path.open("rb") as handle:
            yield f"/dev/fd/{handle.fileno()}"


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its header in one order: the same tensors and metadata give the same bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # the format wants tensors to begin at a multiple of 8
    return b"".join((len(text).to_bytes(8, "little"), text, content[end:]))


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    from lotto.core.weights import digest

    text = json.dumps([digest(tensors), dict(metadata)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
