"""What a store holds, whether it is whole, what can go, and what two entries differ in. It reads, and removes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lotto.core import files
from lotto.core.differences import differences
from lotto.core.errors import StorageError, UsageError
from lotto.execution.entries import (
    KEY,
    LOCK,
    NUMBERED,
    StoreFolder,
    checkpoint_step,
    is_former,
    manifest_name,
    numbers_of,
    parsed,
    remove_whole,
    state_name,
)
from lotto.execution.queue_leftovers import collect_queue

SORTED = 1000
"""So many entries are sorted by age before they are shown."""
FINISHED, UNFINISHED, FORMER, DAMAGED, ASIDE = "finished", "unfinished", "former", "damaged", "set aside"


@dataclass(frozen=True)
class Entry:
    """A folder of a store.

    Attributes:
        key: what its key is, or was.
        folder: where it is.
        status: ``finished``; ``unfinished``, a training on its way or cut off; ``former``, made by a version whose
            keys meant something else, never used; ``damaged``, without a manifest that can be read; ``set aside``
            because it was damaged.
        size: in bytes.
        modified: when it was last written to, seconds since 1970.
        manifest: what it says of itself; empty if it is unfinished.
    """

    key: str
    folder: Path
    status: str
    size: int
    modified: float
    manifest: Mapping[str, Any] = field(default_factory=dict)


def survey(store: StoreFolder) -> list[Entry]:
    """All entries of a store, the oldest first; of a large store see `walk`."""
    return sorted(walk(store), key=_age)


def _age(entry: Entry) -> tuple[float, str]:
    return entry.modified, entry.key


def walk(store: StoreFolder, prefix: str = "") -> Iterator[Entry]:
    """Entries one at a time, in the order of their keys, so that of a large store little is in memory.

    Args:
        store: whose.
        prefix: only those whose keys begin with it; no others are looked at.
    """
    for shard in _listed(store, store.root, prefix[:2]):
        if len(shard) == 2:
            for name in _listed(store, store.root / shard, prefix):
                if KEY.match(name) and (entry := _entry(store, store.root / shard / name)) is not None:
                    yield entry


def listed(store: StoreFolder, prefix: str = "") -> Iterator[Entry]:
    """Entries as they are shown: the oldest first or, if there are many, at once and in the order of their keys."""
    found = walk(store, prefix)
    first = [*islice(found, SORTED)]
    if (more := next(found, None)) is None:
        return iter(sorted(first, key=_age))
    return chain(first, [more], found)


def _listed(store: StoreFolder, folder: Path, prefix: str) -> list[str]:
    """Names in a folder that begin with a prefix, in order; none if it is no folder, or gone."""
    with files.attempting(f"read the store {store.root}"):
        try:
            return sorted(name for name in os.listdir(folder) if name.startswith(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _entry(store: StoreFolder, folder: Path) -> Entry | None:
    with files.attempting(f"read the store {store.root}"):
        try:
            is_folder = folder.is_dir()
            found = {path.name: path.stat() for path in os.scandir(folder)} if is_folder else {}
            modified = max((s.st_mtime for s in found.values()), default=folder.stat().st_mtime)
        except FileNotFoundError:  # a process has removed it meanwhile
            return None
        key, _, aside = folder.name.partition(".")
        size = sum(s.st_size for s in found.values())
        if aside:
            return Entry(key, folder, ASIDE, size, modified) if is_folder else None  # a lock of a former version
        numbers = numbers_of(found)
        manifest = _first_whole(folder, numbers)
    if not manifest:
        return Entry(key, folder, DAMAGED if numbers else UNFINISHED, size, modified)
    return Entry(key, folder, FORMER if is_former(manifest) else FINISHED, size, modified, manifest)


def _first_whole(folder: Path, numbers: Sequence[int]) -> dict[str, Any]:
    """The newest manifest of some that can be read; empty if there is none."""
    return next((manifest for n in reversed(numbers) if (manifest := parsed(folder / manifest_name(n)))), {})


def _newest(store: StoreFolder, folder: Path) -> dict[str, Any]:
    """The newest manifest of an entry that can be read; empty if there is none."""
    return _first_whole(folder, store.entries.manifests(folder))


def find(store: StoreFolder, prefix: str) -> Entry:
    """The entry whose key begins with ``prefix``.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = [e for e in walk(store, prefix.lower()) if e.status != ASIDE]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"No entry of {store.root} has a key that begins with {prefix!r}. See them: lotto store ls.")
    some = ", ".join(e.key[:12] for e in found[:4])
    raise UsageError(f"{len(found)} entries have a key that begins with {prefix!r}: {some}, … Give more of it.")


def words(entry: Entry) -> str:
    """In a line: the recipe, the part of the training, the seed of the data order; or what sort of task it is."""
    if not entry.manifest:
        return "on its way" if entry.status == UNFINISHED else ""
    job, recipe = entry.manifest["job"], entry.manifest.get("recipe", {})
    known = job.get("recipe") if isinstance(job.get("recipe"), dict) else {}
    model = recipe.get("model") or (known.get("model") if isinstance(known.get("model"), str) else "a model")
    data = recipe.get("data") or "data"
    if "task" in job:
        return f"{job['task']} of {model} on {data}"
    first, last = job.get("steps", ["?", "?"])
    changing = job["sparsity"].get("kind") if isinstance(job.get("sparsity"), dict) else None
    dense = f"masked by {changing}" if changing else "dense" if job.get("mask") is None else "masked"
    optimizer = recipe.get("optimizer") or (known.get("optimizer") or {}).get("kind", "")
    return f"{model} on {data}, {optimizer}, {dense}, steps {first} to {last}, order {job.get('order_seed')}"


# --- whole or not -------------------------------------------------------------------------------------


def problem(store: StoreFolder, entry: Entry) -> str:
    """What is wrong with an entry, after every checksum has been computed; empty if nothing is."""
    if entry.status not in (FINISHED, DAMAGED):
        return ""
    try:
        return store.entries.problem(entry.key)
    except StorageError as error:
        return str(error)


# --- what can go --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """Something that can go, or has gone.

    Attributes:
        path: what it is.
        why: in a few words.
        size: in bytes.
        held: a running process works on it, so that it stays.
    """

    path: Path
    why: str
    size: int
    held: bool = False


def collect(
    store: StoreFolder,
    older_than: float | None = None,
    unfinished: bool = False,
    keep_ends: bool = False,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove what is of no use, and what is asked for; nothing that a running process holds.

    Always: entries of former versions, what was set aside because it was damaged, files that no manifest names, files
    and locks of killed processes, and what a queue's have left, see `queue_leftovers`.

    Args:
        store: the store.
        older_than: in seconds. Finished entries of at least this age; with one of the next two, it applies to them.
        unfinished: what has not been finished, checkpoints among it.
        keep_ends: of finished trainings all states but the last.
        dry_run: only say what would go.

    Returns:
        What has gone or would go, or is held.
    """
    before = time.time() - (older_than or 0.0)
    if not dry_run:
        store.entries.sweep()
    with files.attempting(f"read the store {store.root}"):
        gone = list(_old_locks(store, dry_run))
        for entry in walk(store):
            old = entry.modified <= before
            finished = entry.status in (FINISHED, DAMAGED)
            if entry.status in (FORMER, ASIDE):
                gone += _remove(store, entry, _WHY[entry.status], dry_run)
            elif entry.status == UNFINISHED and unfinished and old:
                gone += _remove(store, entry, _WHY[UNFINISHED], dry_run)
            elif finished and older_than is not None and old and not (unfinished or keep_ends):
                gone += _remove(store, entry, "older", dry_run)
            elif entry.status == FINISHED:
                gone += _trim(store, entry, keep_ends and old, dry_run)
        left = collect_queue(store, older_than or 0.0, unfinished, dry_run)
        gone += [Removal(path, why, size) for path, why, size in left]
    return gone


_WHY = {FORMER: "of a former version", ASIDE: "set aside, being damaged, or half removed", UNFINISHED: "unfinished"}


def _remove(store: StoreFolder, entry: Entry, why: str, dry_run: bool) -> Iterator[Removal]:
    with _held(store, entry.key) as free:
        if free and not dry_run:
            with files.attempting(f"remove {entry.folder}"):
                remove_whole(entry.folder)
        yield Removal(entry.folder, why, entry.size, not free)


def _trim(store: StoreFolder, entry: Entry, keep_ends: bool, dry_run: bool) -> Iterator[Removal]:
    """Remove files of a finished entry that no manifest names and, if asked, all states but the last."""
    if not _superfluous(store, entry.folder, keep_ends):
        return
    with _held(store, entry.key) as free:
        if not free or problem(store, entry):
            return  # whoever extends it is about to name them; or it is made anew when it is asked for
        manifest, numbers = _newest(store, entry.folder), store.entries.manifests(entry.folder)
        superfluous = _superfluous(store, entry.folder, keep_ends)
        if not dry_run and (wanted := _ends(manifest)) and keep_ends:
            more = {k: v for k, v in manifest.items() if k not in ("job", "checksums", "finished", "versions")}
            store.entries.finish(
                entry.key, manifest["job"], wanted, **{**more, "states": [manifest["job"]["steps"][1]]}
            )
            for number in numbers:  # before the states that they name, so that none is found in want of a file
                with files.attempting(f"remove {entry.folder}"):
                    (entry.folder / manifest_name(number)).unlink()
        for path in superfluous:
            size = path.stat().st_size
            if not dry_run:
                with files.attempting(f"remove {path}"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            yield Removal(path, "a state on the way" if path.name.startswith("state-") else "no longer read", size)


def _superfluous(store: StoreFolder, folder: Path, keep_ends: bool) -> list[Path]:
    """Files of a finished entry that no manifest names, or that an end alone does not need."""
    manifests = [parsed(folder / manifest_name(number)) for number in store.entries.manifests(folder)]
    named = {name for manifest in manifests for name in manifest.get("checksums", ())}
    if keep_ends and (ends := _ends(_newest(store, folder))) is not None:
        named = set(ends)
    return sorted(p for p in folder.iterdir() if p.name not in named and not NUMBERED.fullmatch(p.name))


def _ends(manifest: Mapping[str, Any]) -> dict[str, str] | None:
    """The checksums of a training without its states on the way; None if there are none to remove."""
    if not manifest:
        return None
    last, states = manifest["job"].get("steps", [0, 0])[1], manifest.get("states", [])
    if last not in states or len(states) == 1:
        return None
    dropped = {state_name(int(step)) for step in states if step != last}
    return {name: checksum for name, checksum in manifest["checksums"].items() if name not in dropped}


def _old_locks(store: StoreFolder, dry_run: bool) -> Iterator[Removal]:
    """Locks that former versions left beside the entries, one for each run."""
    for path in store.root.glob("??/*.lock"):
        if LOCK.fullmatch(path.name):
            size = path.stat().st_size
            if not dry_run:
                with files.attempting(f"remove {path}"):
                    path.unlink(missing_ok=True)
            yield Removal(path, "a lock of a former version", size)


@contextlib.contextmanager
def _held(store: StoreFolder, key: str) -> Iterator[bool]:
    """Hold an entry's lock if nobody else does; gives whether it is held."""
    lock = store.entries.lock(key)
    with files.attempting(f"remove {lock.path}"):
        files.make_folder(lock.path.parent)
        free = lock.acquire(wait=False)
    try:
        yield free
    finally:
        if free:
            lock.release()


# --- what differs -------------------------------------------------------------------------------------


def explain(a: Entry, b: Entry) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """What differs between what two keys were made of; and in how the two were computed, which no key holds.

    Raises:
        UsageError: if one of them has no record, being unfinished.
    """
    for entry in (a, b):
        if not entry.manifest:
            raise UsageError(f"{entry.key} is not finished, so it has no record of what its key was made of.")

    def about(entry: Entry) -> dict[str, Any]:
        return {name: entry.manifest.get(name, {}) for name in ("versions", "execution")}

    return differences(a.manifest["job"], b.manifest["job"]), differences(about(a), about(b))


def unfinished_step(entry: Entry) -> int | None:
    """The step of an unfinished training's checkpoint; None if there is none that can be read."""
    return checkpoint_step(entry.folder, entry.key, verify=False)
