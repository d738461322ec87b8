"""Entries that travel: packed into one stream of bytes, unpacked into another store, where they meet what is there.

    KEY/manifest.json, KEY/state-500.safetensors, KEY/checkpoint.safetensors, ...      a tar archive, entry by entry

Nothing is believed: of an archive only files of these names are read, each entry's checksums and key are verified where
it has come to lie, and what a store holds already stays as it is. States that it lacks are added under a new manifest.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from lotto.core import files
from lotto.core.errors import UsageError, text
from lotto.core.scratch import Scratch
from lotto.execution.entries import CHECKPOINT, KEY, Entries, StoreFolder, checkpoint_step, manifest_name

MEMBER = re.compile(
    r"([0-9a-f]{32})/(manifest(?:-\d+)?\.json|history\.json|outcome\.json|state-\d+\.safetensors|checkpoint\.safetensors)"
)
BLOCK = 1 << 20

OnEntry = Callable[[str], None]


@dataclass
class Received:
    """What became of the entries of an archive, by key.

    Attributes:
        added: were not there.
        extended: had states that were not there.
        known: brought nothing new.
        refused: are not whole, with what is wrong.
    """

    added: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def keys_of(store: StoreFolder) -> list[str]:
    """Keys of all entries of a store, finished or with a checkpoint, in order."""
    with files.attempting(f"read the store {store.root}"):
        return sorted(path.name for path in store.root.glob("??/*") if KEY.fullmatch(path.name))


def pack(
    store: StoreFolder, out: IO[bytes], keys: Iterable[str] | None = None, on_entry: OnEntry = lambda key: None
) -> int:
    """Write entries of a store as one stream of bytes; returns how many. What is being written meanwhile may be in it.

    Args:
        store: whose.
        out: where they are written, front to back.
        keys: which; None = all.
        on_entry: called with each key before it is written.

    Raises:
        StorageError: if the system refuses to read the store or to write.
    """
    count = 0
    with files.attempting("pack the store"), tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for key in keys_of(store) if keys is None else keys:
            on_entry(key)
            count += _pack_entry(archive, store.entries, key)
    return count


def _pack_entry(archive: tarfile.TarFile, entries: Entries, key: str) -> bool:
    """Add the files that an entry's newest whole manifest names, and it; or its checkpoint. Whether there was any."""
    folder = entries.folder(key)
    manifest = entries.read(key, lambda _, manifest: manifest)
    if manifest is None:
        return _add(archive, folder / CHECKPOINT, f"{key}/{CHECKPOINT}")
    for name in manifest["checksums"]:
        _add(archive, folder / name, f"{key}/{name}")
    content = json.dumps(manifest).encode()
    about = tarfile.TarInfo(f"{key}/{manifest_name(0)}")
    about.size = len(content)
    archive.addfile(about, io.BytesIO(content))
    return True


def _add(archive: tarfile.TarFile, path: Path, name: str) -> bool:
    """Add a file as it is now; a checkpoint that is gone, or a state that has been removed, is left out."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        return False
    with handle:
        about = tarfile.TarInfo(name)
        about.size = os.fstat(handle.fileno()).st_size
        archive.addfile(about, handle)
    return True


def unpack(source: IO[bytes], store: StoreFolder, on_entry: OnEntry = lambda key: None) -> Received:
    """Take the entries of an archive into a store.

    Args:
        source: what `pack` has written, read front to back.
        store: where they go.
        on_entry: called with each key as it comes.

    Raises:
        UsageError: if it is no such archive, or is cut short; entries before that are taken.
        StorageError: if the system refuses to write.
    """
    received = Received()
    files.make_folder(store.root)
    arrival = Scratch(store.root)  # in the same file system, so that files take their places by renaming
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for key, members in groupby(_members(archive), key=lambda member: member.name.partition("/")[0]):
                on_entry(key)
                came = StoreFolder(arrival.folder / key)
                _write(archive, members, came.entries.folder(key))
                _note(received, key, adopt(store.entries, came.entries, key))
                shutil.rmtree(came.root, ignore_errors=True)
    except tarfile.TarError as error:
        raise UsageError(f"This is no packed store, or a part of one: {text(str(error))}.") from error
    finally:
        arrival.close()
    return received


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if not (member.isreg() and MEMBER.fullmatch(member.name)):
            raise UsageError(f"This is no packed store: it holds {text(member.name)}, which is no file of an entry.")
        yield member


def _write(archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], folder: Path) -> None:
    for member in members:
        content = archive.extractfile(member)
        assert content is not None  # a regular file
        with files.replacing(folder / member.name.partition("/")[2]) as path, path.open("wb") as out:
            shutil.copyfileobj(content, out, BLOCK)
            if out.tell() != member.size:
                raise UsageError("This is a part of a packed store: it ends within a file.")


def _note(received: Received, key: str, became: str) -> None:
    place = getattr(received, became, None)
    if isinstance(place, list):
        place.append(key)
    else:
        received.refused[key] = became


def adopt(ours: Entries, theirs: Entries, key: str) -> str:
    """Take an entry from another store in the same file system, whose files take their places here.

    Returns:
        ``added``, ``extended`` or ``known``; else what is wrong with it.
    """
    manifest = theirs.read(key, lambda _, manifest: manifest)
    with ours.locked(key):
        if manifest is None:
            problem = theirs.problem(key)
            return problem if problem else _adopt_checkpoint(ours, theirs, key)
        here = ours.read(key, lambda _, manifest: manifest, locked=True)
        known = {} if here is None else here["checksums"]
        wanted = [name for name in manifest["checksums"] if name not in known]
        if here is not None and not wanted:
            return "known"
        ours.prepare(key)
        folder = ours.folder(key)
        with files.attempting(f"write to the store {ours.root}"):
            for name in wanted:
                os.replace(theirs.folder(key) / name, folder / name)
        merged = manifest if here is None else _extended(here, manifest)
        files.write_json(folder / manifest_name(max(ours.manifests(folder), default=-1) + 1), merged)
        with contextlib.suppress(OSError):
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return "added" if here is None else "extended"


def _extended(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """A manifest that names the files of both; what it says of the computation is what was said here first."""
    states = sorted({*map(int, here.get("states", [])), *map(int, there.get("states", []))})
    return {**here, "checksums": {**there["checksums"], **here["checksums"]}, **({"states": states} if states else {})}


def _adopt_checkpoint(ours: Entries, theirs: Entries, key: str) -> str:
    """A training on its way, unless it is finished here or has come further."""
    step = checkpoint_step(theirs.folder(key), key)
    if step is None:
        return "it has neither a manifest nor a checkpoint that can be read"
    reached = checkpoint_step(ours.folder(key), key)
    if ours.read(key, lambda *_: True) or (reached is not None and reached >= step):
        return "known"
    ours.prepare(key)
    with files.attempting(f"write to the store {ours.root}"):
        os.replace(theirs.folder(key) / CHECKPOINT, ours.folder(key) / CHECKPOINT)
    return "added"
