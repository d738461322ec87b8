"""Several processes that `torchrun` has started to compute one thing together: who they are, and what they tell each
other.

What is computed knows them as `Ranks`: sums over all, checks that all have the same. `ALONE` is one process, for which
all of this is nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lotto.core.errors import UsageError, WorkerError
from lotto.core.peers import GRACE_SECONDS, Peers, meet_all

JOIN_SECONDS = 300.0
"""So long all wait for each other at the beginning."""
TALK_SECONDS = 600.0
"""So long they wait for one that is alive and says nothing."""
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HOW = "torchrun --nproc-per-node 2 -m lotto imp ..."


@dataclass(frozen=True)
class Launch:
    """What `torchrun` says to a process that it starts.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local: its number on its machine.
    """

    rank: int
    size: int
    local: int = 0

    @classmethod
    def here(cls) -> Launch | None:
        """Of this process; None if it computes by itself.

        Raises:
            UsageError: if the environment says half of it.
        """
        found = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
        if not {"RANK", "WORLD_SIZE"} & {*found}:
            return None
        if missing := [name for name in NAMES if name not in found]:
            raise UsageError(
                f"The environment has {' and '.join(found)} and no {' and no '.join(missing)}, as if one rank had been "
                f"started by hand: start all of them by {HOW}, or unset {' and '.join(found)}."
            )
        try:
            made = cls(int(found["RANK"]), int(found["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK") or 0))
            int(found["MASTER_PORT"])
        except ValueError as error:
            raise UsageError(f"RANK, WORLD_SIZE and MASTER_PORT are whole numbers; {error}.") from error
        if not 0 <= made.rank < made.size:
            raise UsageError(f"RANK is 0 to {made.size - 1} where WORLD_SIZE is {made.size}; got {made.rank}.")
        return made if made.size > 1 else None


class Ranks:
    """The processes of one computation, as one of them sees them.

    Args:
        rank: its number.
        size: how many there are.
        peers: its connections; None where it is alone.
        group: torch's; None = the default one.

    >>> ALONE.size, ALONE.gathered("mine")
    (1, ['mine'])
    """

    def __init__(self, rank: int = 0, size: int = 1, peers: Peers | None = None, group: Any = None) -> None:
        self.rank, self.size, self._peers, self._group = rank, size, peers, group

    @property
    def peers(self) -> Peers:
        """The connections with the others, who are there."""
        assert self._peers is not None
        return self._peers

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over all, in place: all have the same bits afterwards."""
        if self.size == 1:
            return
        for tensor in tensors:
            with self._talking():
                dist.all_reduce(tensor, group=self._group)

    def gathered(self, value: Any) -> list[Any]:
        """What each of them has, by number; tensors in it are on the CPU."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self._talking():
            dist.all_gather_object(found, value, group=self._group)
        return found

    def check_same(self, what: str, digest: str) -> None:
        """Raise `WorkerError` unless all have the same, by a checksum of it."""
        found = self.gathered(digest)
        if others := [number for number, other in enumerate(found) if other != found[0]]:
            raise WorkerError(
                f"The {what} of rank {' and '.join(map(str, others))} differ from those of rank 0, by their checksums: "
                "the ranks would train different networks. They need the same program on the same type of machine; "
                "finished trainings are kept."
            )

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        self.peers.check()
        try:
            yield
        except RuntimeError as error:  # of torch's: who is gone is known a moment later
            self.peers.check(GRACE_SECONDS)
            raise WorkerError(
                f"The {self.size} ranks cannot talk to each other any more ({str(error).splitlines()[0]}). Finished "
                "trainings are kept; the same command goes on from the last checkpoint."
            ) from error


ALONE = Ranks()
"""One process."""


@cache
def joined(seconds: float = JOIN_SECONDS) -> Ranks:
    """Meet the others of this process's launch, once; see `Launch.here`, which says that there are some.

    Args:
        seconds: how long they wait for each other.

    Raises:
        UsageError: if some do not come.
    """
    launch = Launch.here()
    assert launch is not None
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    timeout = timedelta(seconds=seconds)
    try:
        # Where torchrun holds the store itself, it says so.
        first = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = dist.TCPStore(
            host, int(port), is_master=first, timeout=timeout, wait_for_workers=False, multi_tenant=True
        )
        peers, missing = meet_all(
            launch.rank,
            launch.size,
            host,
            lambda text: store.set("lotto/first", text),
            lambda: store.get("lotto/first").decode(),
            seconds,
        )
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"Rank 0 of {launch.size} does not answer at {host}:{port} within {seconds:.0f} s "
            f"({str(error).splitlines()[0]}). Start all ranks together: {HOW}."
        ) from error
    if missing:
        peers.leave("not all have come")
        raise UsageError(
            f"Rank {' and '.join(map(str, missing))} of {launch.size} did not come within {seconds:.0f} s. Start all "
            f"ranks together: {HOW}."
        )
    if torch.cuda.is_available() and launch.local < torch.cuda.device_count():
        torch.cuda.set_device(launch.local)
    group, talk = None, timedelta(seconds=TALK_SECONDS)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if dist.is_initialized():
        group = dist.new_group(backend=backend, timeout=talk)
    else:
        dist.init_process_group(
            backend, store=dist.PrefixStore("lotto", store), rank=launch.rank, world_size=launch.size, timeout=talk
        )
        atexit.register(_let_go)
    atexit.register(peers.leave)
    if launch.rank:  # what all have to say the first one says
        logging.getLogger("lotto").setLevel(logging.ERROR)
    return Ranks(launch.rank, launch.size, peers, group)


def _let_go() -> None:
    with contextlib.suppress(Exception):  # of whoever else has let go of it before
        dist.destroy_process_group()
