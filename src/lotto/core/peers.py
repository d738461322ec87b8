"""Connections between the processes of one computation: messages from the first to the others, and who is gone.

Every other process has a connection with the first one. The system closes it when a process ends, in whichever way, so
that nobody waits for a dead one: a thread sees it at once, and whatever this process does it ends within seconds, by an
error where that is possible, else by itself.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from lotto.core.errors import WorkerError

MESSAGE, LEAVES = b"m", b"l"
ENDED, KILLED = "it has ended", "it was killed, or its machine is"
GRACE_SECONDS = 5.0
"""So long a process has to notice by itself that another one is gone."""
SILENCE_SECONDS = 30
"""A machine that answers nothing for so long is gone."""

Publish = Callable[[str], None]
Read = Callable[[], str]


class Peers:
    """This process's connections.

    Args:
        rank: its number.
        size: how many there are.
        connections: by number: of the first with all others, of any other with the first.
    """

    def __init__(self, rank: int, size: int, connections: dict[int, Connection]) -> None:
        self.rank, self.size, self.connections = rank, size, connections
        self.lost = ""
        """Why there is no going on; empty = all are here."""
        self._heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._gone = threading.Event()
        self.working = False
        """Whether all of them are amid something that none can leave."""
        self._noticed = self._left = self._without_a_word = False
        self._numbers = {id(connection): number for number, connection in connections.items()}
        threading.Thread(target=self._watch, daemon=True).start()

    def tell(self, message: bytes) -> None:
        """Give all others a message, as the first.

        Raises:
            WorkerError: if one of them is gone before.
        """
        self.check()
        for number, connection in [*self.connections.items()]:
            try:
                connection.send_bytes(MESSAGE + message)
            except OSError:
                self._lose(number, "")

    def hear(self, seconds: float | None = None) -> bytes | None:
        """The next message of the first, as another one; None if it has left, or said nothing for so long.

        Raises:
            WorkerError: if it is gone without a word.
        """
        try:
            found = self._heard.get(timeout=seconds)
        except queue.Empty:
            return None
        if found is None and self.connections:
            self.check()
        return found

    def leave(self, why: str = "") -> None:
        """Say that this process goes, so that nobody takes it for dead; those who still need it are told why."""
        self._left = self._noticed = True
        for connection in [*self.connections.values()]:
            with contextlib.suppress(OSError):
                connection.send_bytes(LEAVES + why.encode())

    def check(self, seconds: float = 0.0) -> None:
        """Raise `WorkerError` if there is no going on, or it turns out within so many seconds that there is none."""
        if seconds:
            self._gone.wait(seconds)
        if self.lost:
            self._noticed = True
            raise WorkerError(self.lost)

    # --- the thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while self.connections:
            for connection in wait([*self.connections.values()]):
                assert isinstance(connection, Connection)
                number = self._numbers[id(connection)]
                try:
                    got = connection.recv_bytes()
                except (OSError, EOFError):
                    self._lose(number, "")
                    return
                if got[:1] == MESSAGE:
                    self._heard.put(got[1:])
                elif (why := got[1:].decode()) or self.working:
                    self._lose(number, why or ENDED)
                    return
                else:
                    del self.connections[number]
                    self.lost = self._sentence(number, ENDED)
                    self._gone.set()
        self._heard.put(None)

    def _lose(self, number: int, why: str) -> None:
        """Have this process end: by whoever asks next, or if nobody does, here."""
        if self._left:
            return
        self._without_a_word = not why
        self.lost = self._sentence(number, why or KILLED)
        self._gone.set()
        self._heard.put(None)
        threading.Thread(target=self._end, daemon=True).start()

    def _sentence(self, number: int, why: str) -> str:
        return (
            f"Rank {number} of {self.size} is gone ({why}), so that the others cannot go on. Finished trainings are "
            "kept; the same command goes on from the last checkpoint."
        )

    def _end(self) -> None:
        time.sleep(GRACE_SECONDS)
        if not self._noticed:
            if self.speaks:
                with contextlib.suppress(OSError):
                    os.write(2, f"lotto: {self.lost}\n".encode())
            os._exit(1)

    @property
    def speaks(self) -> bool:
        """Whether what happens to all is this process's to say: the first says it, or the second if that was killed."""
        return self.rank == 0 or (self.rank == 1 and self._without_a_word)


def meet_all(rank: int, size: int, host: str, publish: Publish, read: Read, seconds: float) -> tuple[Peers, list[int]]:
    """The connections of a process, and as the first the numbers of those who have not come.

    Args:
        rank, size: see `Peers`.
        host: where the first one is found by the others.
        publish: called by the first with a text that the others `read`.
        read: waits for it.
        seconds: how long the first one waits for the others.

    Raises:
        OSError: if the first one cannot be reached.
    """
    if rank:
        port, token = read().split(" ")
        connection = _connection(socket.create_connection((host, int(port)), timeout=seconds))
        connection.send_bytes(f"{token} {rank}".encode())
        return Peers(rank, size, {0: connection}), []
    found: dict[int, Connection] = {}
    token, deadline = secrets.token_hex(16), time.monotonic() + seconds
    with socket.create_server(("", 0)) as server:
        publish(f"{server.getsockname()[1]} {token}")
        while len(found) < size - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, EOFError, ValueError):
                connection = _connection(server.accept()[0])
                said, number = connection.recv_bytes(1000).decode().split(" ")
                if hmac.compare_digest(said, token):
                    found[int(number)] = connection
    return Peers(0, size, found), [number for number in range(1, size) if number not in found]


def _connection(opened: socket.socket) -> Connection:
    opened.settimeout(None)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENCE_SECONDS // 2), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(opened.detach())
