"""A queue in a folder: parcels that wait, those that somebody works on, answers. No server; only files and renaming.

    STORE/queue/waiting/NUMBER-ID             a parcel; what it computes has the name ID
    STORE/queue/running/ID~TURN~WORKER        claimed by renaming it: of two that try one succeeds
    STORE/queue/done/ID                       an answer
    STORE/queue/workers/WORKER                a count that goes up as long as the worker lives
    STORE/queue/asking/WAITER                 the same of who asks, and the names of what is waited for
    STORE/queue/work/ID/TURN/                 a store of its own for each turn, until its entries are taken over
    STORE/queue/data/                         the user's data and reports of progress

A worker whose count stands still for the length of a lease has lost what it claimed: somebody else renames the claim to
its own, with the next turn. Leases are measured by whoever waits, on its own clock, so that clocks need not agree. What
wakes up later finds its claim gone, and what it computed in a folder that nobody reads any more.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lotto.core import files

QUEUE = "queue"
FOLDERS = ("waiting", "running", "done", "workers", "asking", "work", "data")
LEASE_SECONDS = 90.0
"""Longer than network file systems remember what they have seen (a minute)."""
BEAT_SECONDS = 5.0
WAITING = re.compile(r"(\d+)-([0-9a-f]{32})")
RUNNING = re.compile(r"([0-9a-f]{32})~(\d+)~([0-9a-f]{16})")
WORKER = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Claim:
    """A parcel that a worker works on.

    Attributes:
        name: what it computes.
        turn: how many have had it before and are gone.
        worker: whose it is.
        path: the parcel.
    """

    name: str
    turn: int
    worker: str
    path: Path

    @property
    def held(self) -> bool:
        """Whether it is still this worker's."""
        return self.path.exists()


class QueueFolder:
    """The queue of a store.

    Args:
        store: the store's folder.

    Raises:
        UsageError: if others can write to it: parcels are run.
    """

    def __init__(self, store: Path) -> None:
        self.root = store / QUEUE
        for name in FOLDERS:
            files.make_folder(self.root / name)
        with files.attempting(f"keep {self.root} to yourself"), contextlib.suppress(PermissionError):
            self.root.chmod(0o700)
        files.check_private(self.root)

    def folder(self, name: str) -> Path:
        """One of `FOLDERS`."""
        return self.root / name

    # --- whoever wants something ------------------------------------------------------------------------

    def put(self, name: str, parcel: bytes) -> None:
        """Let a parcel wait, unless it does or somebody works on it."""
        (self.folder("done") / name).unlink(missing_ok=True)
        if not self._waiting(name) and not self._running(name):
            # The time is for the order alone.
            files.write_bytes(self.folder("waiting") / f"{time.time_ns():020d}-{name}", parcel)

    def answer(self, name: str) -> bytes | None:
        """Take an answer; None if there is none yet."""
        path = self.folder("done") / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return content

    def ask(self, waiter: str, count: int, names: Iterable[str]) -> None:
        """Say that who asks lives, and what is waited for."""
        files.write_text(self.folder("asking") / waiter, "\n".join([str(count), *names]))

    def asked_by(self, waiter: str) -> set[str]:
        """Names of what somebody waits for; none if it has left."""
        try:
            return set((self.folder("asking") / waiter).read_text().split()[1:])
        except OSError:
            return set()

    def ask_no_more(self, waiter: str) -> None:
        """Who asked ends."""
        (self.folder("asking") / waiter).unlink(missing_ok=True)

    def answered(self) -> set[str]:
        """Names of all answers."""
        return set(_names(self.folder("done")))

    def forget_reports(self) -> None:
        """Remove reports of progress that killed processes have left, where nobody works or waits."""
        if not any(True for name in ("waiting", "running") for _ in _names(self.folder(name))):
            for path in self.folder("data").glob("progress-*"):
                path.unlink(missing_ok=True)

    def known(self) -> set[str]:
        """Names of all parcels that wait, are worked on or are answered."""
        waiting = {found[2] for name in _names(self.folder("waiting")) if (found := WAITING.fullmatch(name))}
        running = {found[1] for name in _names(self.folder("running")) if (found := RUNNING.fullmatch(name))}
        return waiting | running | self.answered()

    def withdraw(self, name: str) -> None:
        """Nobody wants it any more: a worker that has it notices."""
        for path in [*self._waiting(name), *self._running(name)]:
            path.unlink(missing_ok=True)
        (self.folder("done") / name).unlink(missing_ok=True)

    def workers(self) -> list[str]:
        """Workers that have not said that they left, living or not."""
        return [name for name in _names(self.folder("workers")) if WORKER.fullmatch(name)]

    def _waiting(self, name: str) -> list[Path]:
        return [self.folder("waiting") / n for n in _names(self.folder("waiting")) if n.endswith(f"-{name}")]

    def _running(self, name: str) -> list[Path]:
        return [self.folder("running") / n for n in _names(self.folder("running")) if n.startswith(f"{name}~")]

    # --- workers ------------------------------------------------------------------------------------------

    def claim(self, worker: str) -> Claim | None:
        """Claim what has waited longest; None if nothing waits."""
        for name in sorted(_names(self.folder("waiting"))):
            if found := WAITING.fullmatch(name):
                wanted = Claim(found[2], 0, worker, self._claimed(found[2], 0, worker))
                if _renamed(self.folder("waiting") / name, wanted.path):
                    return wanted
        return None

    def take_over(self, dead: str, worker: str) -> Claim | None:
        """Claim something of a worker whose lease has run out; None if it had nothing, or somebody was quicker."""
        for name in _names(self.folder("running")):
            if (found := RUNNING.fullmatch(name)) and found[3] == dead:
                turn = int(found[2]) + 1
                wanted = Claim(found[1], turn, worker, self._claimed(found[1], turn, worker))
                if _renamed(self.folder("running") / name, wanted.path):
                    return wanted
        return None

    def holders(self) -> set[str]:
        """Workers that have claimed something."""
        return {found[3] for name in _names(self.folder("running")) if (found := RUNNING.fullmatch(name))}

    def give_back(self, claim: Claim) -> None:
        """Let a parcel wait again, before all others."""
        _renamed(claim.path, self.folder("waiting") / f"{0:020d}-{claim.name}")

    def finish(self, claim: Claim, answer: bytes) -> bool:
        """Answer a parcel, if the claim is still held; returns whether it was."""
        if not claim.held:
            return False
        files.write_bytes(self.folder("done") / claim.name, answer)
        claim.path.unlink(missing_ok=True)
        shutil.rmtree(self.folder("work") / claim.name, ignore_errors=True)
        return True

    def beat(self, worker: str, count: int) -> None:
        """Say that a worker lives."""
        files.write_text(self.folder("workers") / worker, str(count))

    def beat_of(self, worker: str) -> str:
        """What a worker has said last; empty if it has left."""
        try:
            return (self.folder("workers") / worker).read_text()
        except OSError:
            return ""

    def bury(self, silent: Iterable[str]) -> None:
        """Remove what silent workers have left that hold nothing; one that was only paused comes back by itself."""
        for worker in set(silent) - self.holders():
            with contextlib.suppress(OSError):
                self.leave(worker)

    def leave(self, worker: str) -> None:
        """A worker ends."""
        (self.folder("workers") / worker).unlink(missing_ok=True)

    def _claimed(self, name: str, turn: int, worker: str) -> Path:
        return self.folder("running") / f"{name}~{turn}~{worker}"


class Leases:
    """Which workers have been silent for too long, on this process's own clock.

    Args:
        queue: whose workers.
        seconds: the length of a lease.
    """

    def __init__(self, queue: QueueFolder, seconds: float) -> None:
        self.queue, self.seconds = queue, seconds
        self._seen: dict[str, tuple[str, float]] = {}

    def run_out(self) -> list[str]:
        """Workers that have not changed their count for the length of a lease."""
        now, silent = time.monotonic(), []
        known = {*self.queue.workers(), *self.queue.holders()}
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in known}
        for worker in sorted(known):
            beat = self.queue.beat_of(worker)
            last, since = self._seen.get(worker, (None, now))
            if beat != last:
                self._seen[worker] = beat, now
            elif now - since >= self.seconds:
                silent.append(worker)
        return silent


def new_worker() -> str:
    """A name that no other worker has."""
    return secrets.token_hex(8)


def _names(folder: Path) -> Iterator[str]:
    with files.attempting(f"read the queue {folder}"):
        yield from (name for name in os.listdir(folder) if not name.startswith("."))


def _renamed(old: Path, new: Path) -> bool:
    """Rename; False if somebody else was quicker. A network file system may say no of what it has done."""
    try:
        os.rename(old, new)
    except FileNotFoundError:
        return new.exists()
    except PermissionError:
        if not files.WINDOWS:
            raise
        return False  # somebody else is about to rename it, or reads it
    return True
