"""Kill the workers, the machines and the driver of a Ray cluster at random; count what is lost. Seeded.

    PYTHONPATH=tests:tests/campaign python tests/campaign/rayed.py --kills 100 --out TABLE.md

A head without processors and two nodes with one each, all on this machine. Rounds of small trainings are asked for by a
driver. Meanwhile worker processes, raylets (with which a node goes) and the driver are killed; nodes are replaced, and
the driver asks again, as somebody would who types the same command. In the end every run must be there with the bits of
an undisturbed training.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pickle import loads
from typing import Any

import torch
from rounds import look_for, until, written
from scenario import Journal, journal_of

import lotto
from conftest import small_recipe
from lotto import Job, Store
from lotto.core.errors import LottoError
from lotto.execution.ray import Ray, compute_task
from lotto.execution.worker import Opened
from lotto.training.loop import train

RECIPE = small_recipe(steps="400it", evaluations=1)
ROUND = 8
"""Trainings of a round, all of which are asked for at once."""
NODES = 2
FAULTS = {"kill a worker": 0.6, "kill a raylet": 0.2, "kill the driver": 0.2}
TASK = "ray::watched_task"
START_SECONDS = 60.0


def jobs_of(number: int) -> list[Job]:
    """The trainings of a round."""
    return [Job(RECIPE, seed, seed) for seed in range(number * ROUND, (number + 1) * ROUND)]


# --- the driver and its tasks, in processes of their own ----------------------------------------------


def watched_task(journal: str, parcel: bytes, *given: Any) -> tuple[bytes, bytes, bool]:
    """The engine's task, which also writes down what it has computed."""
    found = compute_task(parcel, *given)
    for key, (trained, _) in zip(Opened(parcel).keys, loads(found[0]).results, strict=False):
        if trained:
            Journal(Path(journal)).write("computed", key)
    return found


class Watched(Ray):
    """The engine with `watched_task`."""

    def _connect(self) -> None:
        super()._connect()
        journal = str(self.store.root.with_name(f"{self.store.root.name}.journal"))
        task = self.ray.remote(num_cpus=1, max_retries=3, retry_exceptions=False)(watched_task)

        class Given:
            remote = staticmethod(lambda *given: task.remote(journal, *given))

        self._task = Given


def ask(root: Path, number: int, address: str) -> None:
    """Ask for a round until it is answered."""
    journal = Journal(root.with_name(f"{root.name}.journal"))
    torch.set_num_threads(1)
    for _ in range(20):
        try:
            Watched(Store(root), workers=NODES, address=address).run(jobs_of(number), progress=False)
        except LottoError as error:
            journal.write("refused", str(error).replace("\n", " "))
            time.sleep(1)
        except Exception as error:
            journal.write("raw", repr(error).replace("\n", " "))
            raise
        else:
            journal.write("round", number)
            return


# --- the campaign -------------------------------------------------------------------------------------


class Node:
    """A head or a node, in a session of its own.

    Args:
        options: of ``ray start``.
        said: where it says something.
    """

    def __init__(self, options: list[str], said: Path) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *options]
        self.began, self.had_raylet = time.monotonic(), False
        with said.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)

    def processes(self, word: str) -> list[int]:
        """Its living processes whose command has a word in it."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                session = int((path / "stat").read_text().rpartition(")")[2].split()[3])
                if session == self.process.pid and word in (path / "cmdline").read_text().replace("\0", " "):
                    found.append(int(path.name))
        self.had_raylet |= bool(found) and "raylet/" in word
        return found

    def close(self) -> None:
        """End all of it."""
        for pid in self.processes(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Rounds:
    """A cluster, what is asked of it, and what is done to it.

    Args:
        folder: where the store is.
        port: of the head.
        seed: of all that is drawn.
        pace: seconds between two kills, about.
    """

    def __init__(self, folder: Path, port: int, seed: int, pace: float) -> None:
        self.folder, self.address, self.pace = folder, f"127.0.0.1:{port}", pace
        self.root, self.draw, self.tally = folder / "store", random.Random(seed), Counter[str]()
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(lotto.__file__).parents[1])]
        os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        # On a busy machine a node takes its time. Nobody else is on this cluster.
        os.environ |= {"RAY_raylet_start_wait_time_s": "120", "RAY_AUTH_MODE": "disabled"}
        small = ["--object-store-memory", str(80 << 20)]
        head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}/ray"]
        self.node_options = [f"--address={self.address}", "--num-cpus=1", *small]
        self.head = Node([*head, *small], folder / "said")
        self._until(lambda: self._listens(port))
        self.nodes = [self._node() for _ in range(NODES)]
        self.driver = self._asking(0)

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition():
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.2)

    def _listens(self, port: int) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    def _node(self) -> Node:
        return Node(self.node_options, self.folder / "said")

    def _asking(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, "--ask", str(number), "--store", str(self.root), "--address", self.address]
        with (self.folder / "said").open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out)

    def round(self, number: int) -> None:
        """Have the trainings of a round made, whatever happens meanwhile."""
        if number:
            self.driver = self._asking(number)
        while True:
            time.sleep(self.draw.uniform(0.3, 1.7) * self.pace)
            self._replace_nodes()
            if self.driver.poll() is None:
                if self._at_work():
                    self._disturb(number)
            elif self._answered(number):
                return
            else:  # it has ended with an error, as where its cluster is gone
                self.tally["driver asked again"] += 1
                self.driver = self._asking(number)

    def _at_work(self) -> bool:
        """Whether a training is under way: kills of what is only starting would keep anything from being done."""
        return any(node.processes(TASK) for node in self.nodes)

    def _replace_nodes(self) -> None:
        """A node without a raylet, however that came about, is started again."""
        for at, node in enumerate(self.nodes):
            late = time.monotonic() - node.began > START_SECONDS
            if not node.processes("raylet/raylet") and (late or node.had_raylet or node.process.poll() is not None):
                node.close()
                self.nodes[at] = self._node()

    def _answered(self, number: int) -> bool:
        return ["round", str(number)] in [line[:2] for line in journal_of(self.root)]

    def _disturb(self, number: int) -> None:
        (what,) = self.draw.choices(list(FAULTS), list(FAULTS.values()))
        at = self.draw.randrange(NODES)
        if what == "kill the driver":
            self.driver.kill()
            self.driver.wait()
            self.tally[what] += 1
            if not self._answered(number):
                self.driver = self._asking(number)
            return
        found = self.nodes[at].processes(TASK if what == "kill a worker" else "raylet/raylet")
        if not found:  # it is only starting
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.draw.choice(found), signal.SIGKILL)
            self.tally[what] += 1

    def close(self, rounds: int) -> None:
        """End all, and look for everything."""
        self.driver.kill()
        self.driver.wait()
        for node in (*self.nodes, self.head):
            node.close()
        store, jobs = Store(self.root), [job for number in range(rounds) for job in jobs_of(number)]
        lines = list(journal_of(self.root))
        look_for(jobs, store, lines, self.tally)
        self.tally["refused in a sentence"] += sum(line[0] == "refused" for line in lines)
        store.begin()
        left = [path for path in self.root.iterdir() if path.name.startswith("lotto-scratch")]
        self.tally["left in the store"] += len(left) + len(list((self.root / "locks").glob("*")))

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(self.tally[what] for what in FAULTS)


def campaign(folder: Path, kills: int, port: int, seed: int, pace: float) -> Counter[str]:
    """Rounds until so many processes have been killed."""
    return until(Rounds(folder, port, seed, pace), kills)


def main() -> None:
    """Read the options, run the campaign, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=4.0)
    parser.add_argument("--port", type=int, default=26379)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask is not None:
        ask(given.store, given.ask, given.address)
        return
    train(Job(RECIPE.replace(steps="2it")))  # kernels are compiled before there are processes
    began = time.monotonic()
    # In a folder with a short name: that of a socket has at most 107 letters.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r-", ignore_cleanup_errors=True) as folder:
        tally = campaign(Path(folder), given.kills, given.port, given.seed, given.pace)
        said = (Path(folder) / "said").read_text(errors="replace")
    written(tally, f"{NODES} nodes, {time.monotonic() - began:.0f} s.", given.out)
    if any(bad := [tally[word] for word in ("lost", "wrong", "raw")]):
        print(said[-5000:], file=sys.stderr)
    sys.exit(any(bad))


if __name__ == "__main__":
    main()
