"""A worker of a queue: it claims parcels, computes them, and says that it lives.

It computes into a store of its own, one for each turn, from which whole entries go into the queue's store. So no lock
is held while it computes: a worker that is paused or cut off holds up nobody, and one that wakes up after its lease has
run out has nothing that it could overwrite.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import loads

import cloudpickle

from lotto.core import files
from lotto.core.errors import StorageError, WorkerError
from lotto.execution.entries import CHECKPOINT, StoreFolder
from lotto.execution.parcel import Answer, Place
from lotto.execution.queue_folder import BEAT_SECONDS, LEASE_SECONDS, Claim, Leases, QueueFolder, new_worker
from lotto.execution.signs_of_life import SignsOfLife
from lotto.execution.transfer import adopt, keys_of
from lotto.execution.worker import Opened

log = logging.getLogger(__name__)

TURNS = 3
"""After so many workers have died over a parcel it is an error."""
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 1.0


class Released(BaseException):
    """What is computed is not this worker's any more. No handler of errors takes it for one."""


@dataclass
class Pilot:
    """A worker of a queue.

    Args:
        store: the store's folder, whose queue it is.
        lease: seconds of silence after which another's work is taken over.
        idle: seconds without work after which it ends; None = never.
        beat_seconds: between two signs of life.

    >>> Pilot(Path("my-runs"), idle=0.0).work()
    0
    """

    store: Path
    lease: float = LEASE_SECONDS
    idle: float | None = None
    beat_seconds: float = BEAT_SECONDS

    def work(self) -> int:
        """Take parcels until there are none for long enough; returns how many were computed."""
        self.name, self.queue = new_worker(), QueueFolder(self.store)
        leases, count, waited, wait = Leases(self.queue, self.lease), 0, time.monotonic(), SHORTEST_WAIT
        with self._living():
            while True:
                if (claim := self._next(leases)) is not None:
                    count += self._carry_out(claim)
                    waited, wait = time.monotonic(), SHORTEST_WAIT
                    continue
                if self.idle is not None and time.monotonic() - waited >= self.idle:
                    break
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        return count

    def _next(self, leases: Leases) -> Claim | None:
        with contextlib.suppress(StorageError):  # a store that is gone for a while may come back
            if (claim := self.queue.claim(self.name)) is not None:
                return claim
            silent = leases.run_out()
            for dead in silent:
                if (claim := self.queue.take_over(dead, self.name)) is not None:
                    log.info("A worker has been silent for %g s; its job goes on here.", self.lease)
                    return claim
            self.queue.bury(silent)
        return None

    @contextlib.contextmanager
    def _living(self) -> Iterator[None]:
        """Count up in the background, and leave at the end."""
        signs = SignsOfLife(lambda number: self.queue.beat(self.name, number), self.beat_seconds)
        try:
            yield
        finally:
            signs.close()
            with contextlib.suppress(OSError):
                self.queue.leave(self.name)

    def _carry_out(self, claim: Claim) -> int:
        """Compute a parcel; returns how many have been computed: 0 if it was lost on the way."""
        try:
            return int(self.queue.finish(claim, self._answer(claim)))
        except Released:
            log.info("A job has been withdrawn, or somebody else has it.")
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                self.queue.give_back(claim)
            raise
        except (StorageError, FileNotFoundError) as error:
            log.warning("%s The job goes on later.", error)
            with contextlib.suppress(OSError):
                self.queue.give_back(claim)
            time.sleep(LONGEST_WAIT)
        return 0

    def _answer(self, claim: Claim) -> bytes:
        if claim.turn >= TURNS:
            return cloudpickle.dumps(WorkerError(f"{claim.turn} workers died over it"))
        parcel = Opened(claim.path.read_bytes())
        data = str(self.queue.folder("data"))
        if parcel.is_stored(here := Place(str(self.store), data)):
            return parcel.compute(here)
        own = self._own_store(claim)
        looked = time.monotonic()

        def check(step: int, loss: float) -> None:
            nonlocal looked
            if (now := time.monotonic()) - looked >= self.beat_seconds:
                looked = now
                if not claim.held:
                    raise Released

        answer = parcel.compute(Place(str(own.root), data), check)
        ours = StoreFolder(self.store)
        for key in keys_of(own):
            became = adopt(ours.entries, own.entries, key)
            if became not in ("added", "extended", "known"):
                found: Answer = loads(answer)
                if found.error is None:
                    raise StorageError(f"What was computed is not whole: {became}.")
        return answer

    def _own_store(self, claim: Claim) -> StoreFolder:
        """The store of this turn, with the checkpoints of the turn before."""
        folder = self.queue.folder("work") / claim.name
        turns = sorted((int(path.name) for path in folder.glob("*") if path.name.isdigit()), reverse=True)
        number = max(turns, default=-1) + 1
        own = StoreFolder(folder / str(number))
        files.make_folder(own.root)
        for turn in turns[:1]:
            before = StoreFolder(folder / str(turn))
            for key in keys_of(before):
                with contextlib.suppress(OSError):
                    target = own.entries.folder(key)
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(before.entries.folder(key) / CHECKPOINT, target / CHECKPOINT)
        return own
