"""What of a queue nobody needs any more. Whoever asks or works says so every few seconds; what others left can go.

Ages are differences between times that the file system itself has given, so that clocks of machines need not agree.
What might be asked for meanwhile is first put aside, and put back if somebody does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lotto.core import files
from lotto.execution.entries import StoreFolder
from lotto.execution.queue_folder import FOLDERS, LEASE_SECONDS, QUEUE, WORKER, QueueFolder
from lotto.execution.transfer import keys_of

ASIDE = ".left"
Left = tuple[Path, str, int]
"""What it is, why it can go, its bytes."""
ANSWER, WORK, DATA = "an answer that nobody waits for", "work of a queue that is finished", "data of a queue at rest"
CUT_OFF, PARCEL, SIGN = "unfinished work of a queue", "a parcel that nobody asks for", "a sign of life of who is gone"


def collect_queue(store: StoreFolder, older_than: float, unfinished: bool, dry_run: bool) -> Iterator[Left]:
    """Remove what a queue's workers and those who asked them have left; what a living one needs stays.

    Always: answers that nobody waits for, work whose entries are finished in the store, data and reports of a queue in
    which nothing waits, is worked on or asked for, signs of life of processes that are gone.

    Args:
        store: whose queue.
        older_than: seconds; only with ``unfinished``: how old that is.
        unfinished: parcels that nobody asks for, and work that was cut off, with its checkpoints.
        dry_run: only say what would go.
    """
    if not (store.root / QUEUE).is_dir():
        return
    queue = QueueFolder(store.root)
    now = _time_there(queue)

    def old(path: Path, seconds: float = LEASE_SECONDS) -> bool:
        with contextlib.suppress(OSError):
            return now - path.stat().st_mtime >= seconds
        return False

    def remove(path: Path, why: str, still: Callable[[], bool]) -> Iterator[Left]:
        with contextlib.suppress(FileNotFoundError):  # somebody has taken it
            size = _size(path)
            if dry_run or _removed(path, still):
                yield path, why, size

    for name in FOLDERS:
        files.sweep_temporary(queue.folder(name))
        for path in queue.folder(name).glob(f".*{ASIDE}"):  # of a process that was killed in between
            if old(path) and not dry_run:
                _remove(path)
    for kind in ("asking", "workers"):
        for path in _in(queue, kind):
            if WORKER.fullmatch(path.name) and old(path) and path.name not in queue.holders():
                yield from remove(path, SIGN, lambda: True)
    wanted = _wanted(queue, old)
    for path in _in(queue, "done"):  # one who comes later asks anew, see `QueueFolder.put`
        if path.name not in wanted and old(path):
            yield from remove(path, ANSWER, lambda: True)
    if unfinished:
        for path in _in(queue, "waiting"):
            if path.name.partition("-")[2] not in wanted and old(path, max(older_than, LEASE_SECONDS)):
                yield from remove(path, PARCEL, lambda: True)
    for path in _in(queue, "work"):
        if path.name not in queue.known() | wanted and old(path):
            finished = _is_finished(store, path)
            if finished or (unfinished and old(path, older_than)):
                free = lambda name=path.name: name not in queue.known() | _wanted(queue, old)  # noqa: E731
                yield from remove(path, WORK if finished else CUT_OFF, free)
    if _at_rest(queue, old):
        for path in _in(queue, "data"):
            if old(path):
                yield from remove(path, DATA, lambda: _at_rest(queue, old))


def _in(queue: QueueFolder, name: str) -> list[Path]:
    with files.attempting(f"read the queue {queue.root}"):
        return sorted(path for path in queue.folder(name).iterdir() if not path.name.startswith("."))


def _time_there(queue: QueueFolder) -> float:
    """What time it is where the queue lies."""
    path = queue.root / f".time-{os.getpid()}"
    try:
        with files.attempting(f"write to the queue {queue.root}"):
            path.write_bytes(b"now")
            return path.stat().st_mtime
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _wanted(queue: QueueFolder, old: Callable[[Path], bool]) -> set[str]:
    """Names of what living processes wait for."""
    return {name for path in _in(queue, "asking") if not old(path) for name in queue.asked_by(path.name)}


def _at_rest(queue: QueueFolder, old: Callable[[Path], bool]) -> bool:
    """Whether nothing waits or is worked on, and nobody asks: who does says so before looking for what is there."""
    return not (_in(queue, "waiting") or _in(queue, "running") or any(not old(path) for path in _in(queue, "asking")))


def _is_finished(store: StoreFolder, work: Path) -> bool:
    """Whether all that was computed there is whole in the store."""
    own = [StoreFolder(turn) for turn in work.iterdir() if turn.is_dir()]
    keys = {key for each in own for key in keys_of(each)}
    return all(store.entries.read(key, lambda *_: True) for key in keys)


def _removed(path: Path, still: Callable[[], bool]) -> bool:
    """Put it aside, where nobody finds it, and remove it, if it is ``still`` of no use; else put it back."""
    aside = path.with_name(f".{path.name}{ASIDE}")
    with files.attempting(f"remove {path}"):
        os.rename(path, aside)
        if not still():
            with contextlib.suppress(OSError):  # somebody has made it anew
                os.rename(aside, path)
                return False
        _remove(aside)
    return True


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    inner = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in inner if each.is_file())
