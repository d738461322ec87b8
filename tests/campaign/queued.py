"""Kill and pause the workers of a queue, and who asks them, on purpose; count what is lost. Seeded.

    PYTHONPATH=tests:tests/campaign python tests/campaign/queued.py --kills 100 --workers 4 --out TABLE.md

Rounds of small trainings go through the queue of one store. Meanwhile workers and the asking process are killed, workers
are paused for longer than a lease and wake up, the store goes away and comes back, and the dates of signs of life are
moved by an hour. Where mounts are allowed (root on Linux) the store has a small file system of its own, which is full
for a while now and then, and every second worker sees it through another mount, at another place. In the end every run
must be there with the bits of an undisturbed training.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from rounds import look_for, until, written
from scenario import Journal, journal_of

from conftest import small_recipe
from lotto import Job, Store
from lotto.core.errors import LottoError
from lotto.execution.pilot import Pilot
from lotto.execution.queue import Queue
from lotto.execution.queue_folder import Claim, QueueFolder
from lotto.execution.worker import Opened
from lotto.training.loop import train

RECIPE = small_recipe(steps="400it", evaluations=1)
ROUND = 12
"""Trainings of a round, all of which are asked for at once."""
LEASE, BEAT = 1.5, 0.1
FAULTS = {"kill a worker": 0.6, "pause a worker": 0.15, "kill who asks": 0.1, "store gone": 0.05, "clocks": 0.1}
DISK = "disk full"
DISK_FAULTS = {**FAULTS, DISK: 0.1}
DISK_BYTES = 64 << 20


class Watched(Pilot):
    """A worker that writes down what it has computed."""

    journal: Journal

    def _answer(self, claim: Claim) -> bytes:
        keys = Opened(claim.path.read_bytes()).keys
        answer = super()._answer(claim)
        self.journal.write("computed", *keys)
        return answer


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A small file system, and where it is seen a second time; the folder itself twice where mounts are not allowed."""
    disk, elsewhere = folder / "disk", folder / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    one = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    other = ["mount", "--bind", str(disk), str(elsewhere)]
    done = 0
    for command in (one, other):
        with contextlib.suppress(OSError):
            done += done < 2 and not subprocess.run(command, capture_output=True, check=False).returncode
    try:
        yield (disk, elsewhere) if done == 2 else (disk, disk)
    finally:
        for place in (elsewhere, disk)[2 - done :]:
            subprocess.run(["umount", str(place)], check=True)


class Rounds:
    """Processes on one store, and what is done to them.

    Args:
        folder: where what happened is written down.
        disks: where the store lies, and where it is seen a second time.
        workers: how many.
        seed: of all that is drawn.
        pace: seconds between two faults, about; a training should take less.
    """

    def __init__(self, folder: Path, disks: tuple[Path, Path], workers: int, seed: int, pace: float) -> None:
        self.pace, self.base = pace, folder / "store"
        self.root, self.elsewhere = (disk / "store" for disk in disks)
        self.faults = FAULTS if self.root == self.elsewhere else DISK_FAULTS
        self.draw, self.tally = random.Random(seed), Counter[str]()
        self.workers: list[int] = [self._worker(number) for number in range(workers)]
        self.paused: dict[int, float] = {}
        self.asking = 0

    def _worker(self, number: int) -> int:
        return self._forked(partial(self._work, self.elsewhere if number % 2 else self.root))

    def _forked(self, what: Callable[[Journal], None]) -> int:
        if pid := os.fork():
            return pid
        journal = Journal(self.base.with_name(f"{self.base.name}.journal"))
        try:
            os.setsid()
            nowhere = os.open(self.base.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            for stream in (1, 2):
                os.dup2(nowhere, stream)
            torch.set_num_threads(1)
            what(journal)
        except BaseException as error:
            journal.write("raw", repr(error).replace("\n", " "))
        finally:
            os._exit(0)

    def _work(self, store: Path, journal: Journal) -> None:
        while True:
            worker = Watched(store, lease=LEASE, beat_seconds=BEAT)
            worker.journal = journal
            with contextlib.suppress(LottoError, OSError):  # the store is gone
                worker.work()
            time.sleep(0.1)

    def round(self, number: int) -> None:
        """Have the trainings of a round made, whatever happens meanwhile."""
        jobs = [Job(RECIPE, seed, seed) for seed in range(number * ROUND, (number + 1) * ROUND)]

        def ask(journal: Journal) -> None:
            while True:
                try:
                    Queue(Store(self.root)).run(jobs, progress=False)
                except (LottoError, OSError) as error:
                    journal.write("refused", str(error).replace("\n", " "))
                    time.sleep(0.2)
                else:
                    journal.write("round", number)
                    return

        self.asking = self._forked(ask)
        while not self._ended(self.asking):
            time.sleep(self.draw.uniform(0.2, 1.8) * self.pace)
            self._wake()
            self._disturb(ask)
        self._wake(all_of_them=True)
        if f"round {number}" not in {" ".join(line) for line in journal_of(self.base)}:
            self.tally["unanswered"] += 1

    def _disturb(self, ask: Callable[[Journal], None]) -> None:
        (what,) = self.draw.choices(list(self.faults), list(self.faults.values()))
        self.tally[what] += 1
        worker = self.draw.randrange(len(self.workers))
        if what == "kill a worker":
            self._kill(self.workers[worker])
            self.workers[worker] = self._worker(worker)
        elif what == "pause a worker" and self.workers[worker] not in self.paused:
            os.kill(self.workers[worker], signal.SIGSTOP)
            self.paused[self.workers[worker]] = time.monotonic() + self.draw.uniform(1, 3) * LEASE
        elif what == "kill who asks" and not self._ended(self.asking):
            self._kill(self.asking)
            self.asking = self._forked(ask)
        elif what == "store gone":
            self._without_store(self.draw.uniform(0.2, 1.0))
        elif what == DISK:
            self._full(self.draw.uniform(0.2, 1.0))
        elif what == "clocks":
            for path in (self.root / "queue" / "workers").glob("*"):
                with contextlib.suppress(OSError):
                    now = time.time() + self.draw.choice([-3600, 3600])
                    os.utime(path, (now, now))

    def _without_store(self, seconds: float) -> None:
        away = self.root.with_name("away")
        self.root.rename(away)
        time.sleep(seconds)
        while True:  # somebody may have made an empty one meanwhile, as where a mount is gone
            shutil.rmtree(self.root, ignore_errors=True)
            with contextlib.suppress(OSError):
                away.rename(self.root)
                return

    def _full(self, seconds: float) -> None:
        ballast = self.root.with_name("ballast")
        end = time.monotonic() + seconds
        with ballast.open("ab", buffering=0) as file:
            while time.monotonic() < end:  # what becomes free meanwhile, too
                with contextlib.suppress(OSError):
                    file.write(bytes(4096))
                    continue
                time.sleep(0.01)
        ballast.unlink()

    def _wake(self, all_of_them: bool = False) -> None:
        for pid, when in list(self.paused.items()):
            if all_of_them or time.monotonic() > when:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                del self.paused[pid]

    def _kill(self, pid: int) -> None:
        self.paused.pop(pid, None)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _ended(self, pid: int) -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True

    def close(self, rounds: int) -> None:
        """End all, and look for everything."""
        for pid in self.workers:
            self._kill(pid)
        store = Store(self.root)
        jobs = [Job(RECIPE, seed, seed) for seed in range(rounds * ROUND)]
        look_for(jobs, store, list(journal_of(self.base)), self.tally)
        queue = QueueFolder(self.root)
        self.tally["left in the queue"] += sum(
            len(list(queue.folder(name).iterdir())) for name in ("waiting", "running", "done")
        )

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return self.tally["kill a worker"] + self.tally["kill who asks"]


def campaign(folder: Path, kills: int, workers: int, seed: int, pace: float) -> Counter[str]:
    """Rounds until so many processes have been killed."""
    with mounted(folder) as disks:
        return until(Rounds(folder, disks, workers, seed, pace), kills)


def main() -> None:
    """Read the options, run the campaign, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    train(Job(RECIPE.replace(steps="2it")))  # kernels are compiled before there are processes
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = campaign(Path(folder), given.kills, given.workers, given.seed, given.pace)
    written(tally, f"{given.workers} workers, {time.monotonic() - began:.0f} s.", given.out)
    sys.exit(any(tally[bad] for bad in ("lost", "wrong", "raw", "unanswered")))


if __name__ == "__main__":
    main()
