"""Over Ray: tasks on this machine or a cluster. Ray starts workers, and starts a task again whose worker died.

Jobs travel as parcels, results through the store: a worker that sees the store's folder writes to it; one that does not
has a store of its own, and sends its entries back in one piece, which is verified where it arrives. A file in the
scratch folder, which lies in the store, tells the two apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lotto.core import files
from lotto.core.errors import UsageError, WorkerError, text
from lotto.core.scratch import Scratch
from lotto.core.signals import held
from lotto.execution.assignment import Assignment
from lotto.execution.engine import Engine, Reply
from lotto.execution.entries import StoreFolder, remove_whole
from lotto.execution.parcel import Place
from lotto.execution.store import Store
from lotto.execution.transfer import pack, unpack
from lotto.execution.worker import Opened

POLL_SECONDS = 0.2
RETRIES = 3
"""A task is started again so many times when its worker or machine dies; never for an error."""
OBJECT_STORE_BYTES = 256 << 20
"""Of a Ray that is started here: parcels and answers are small."""
CONNECT_SECONDS = 10.0
PROBE = "probe"


class Ray(Engine):
    """Trains in tasks of Ray, each with its threads' number of processors and a part of a GPU.

    Args:
        store: where runs are remembered; workers that do not see its folder send theirs back.
        workers: most tasks at a time; None = as many as the cluster's processors hold.
        threads: threads of each.
        stack: jobs that train together in a task; None = measured.
        address: a running cluster's, as ``ray.init`` takes it (``auto``, ``10.0.0.1:6379``); None = ``RAY_ADDRESS``, or
            a Ray started on this machine, which ends with this process.
        gpus_per_job: GPUs of each task, 0.25 lets four share one.

    Raises:
        UsageError: if Ray is not installed; when a run begins, if no cluster answers or it has too few GPUs.

    >>> Ray(lotto.Store(), workers=2, gpus_per_job=0.5).slots
    2
    """

    sizes_itself = True

    def __init__(
        self,
        store: Store,
        workers: int | None = None,
        threads: int = 1,
        stack: int | None = 1,
        *,
        address: str | None = None,
        gpus_per_job: float = 0.0,
    ) -> None:
        super().__init__(store, threads, stack, workers=workers or 1)
        if not 0 <= gpus_per_job <= 1024:
            raise UsageError(f"gpus_per_job is a number of GPUs, such as 1 or 0.25; got {text(gpus_per_job)}.")
        self.ray = _imported()
        self.address, self.gpus_per_job, self._counted = address, float(gpus_per_job), workers is None
        self._busy: dict[Any, tuple[Assignment, bytes]] = {}
        self._data: dict[str, Any] = {}
        self._task: Any = None

    @property
    def scratch(self) -> Scratch:
        """A folder in the store, so that whoever sees the store sees it."""
        if self._scratch is None:
            files.make_folder(self.store.root)
            with held():
                self._scratch = Scratch(self.store.root)
            files.write_text(self._scratch.folder / PROBE, self._scratch.folder.name)
        return self._scratch

    def submit(self, assignment: Assignment) -> None:
        """Give it to Ray, which has been started or found by then.

        Raises:
            UsageError: if no cluster answers, or it has fewer GPUs than a job wants.
        """
        self._connect()
        parcel = assignment.parcel()
        self._send(assignment, parcel, ())

    def _send(self, assignment: Assignment, parcel: bytes, data: tuple[Any, ...]) -> None:
        with held():
            place = Place(str(self.store.root), str(self.scratch.folder))
            reference = self._task.remote(parcel, place, self.threads, list(sys.path), data)
            self._busy[reference] = assignment, parcel

    def collect(self, report: Callable[[], None]) -> list[tuple[Assignment, Reply]]:
        """Wait until a task is done."""
        came: list[tuple[Assignment, Reply]] = []
        while self._busy and not came:
            done, _ = self.ray.wait(list(self._busy), num_returns=1, timeout=POLL_SECONDS)
            report()
            for reference in done:
                assignment, parcel = self._busy.pop(reference)
                if (reply := self._reply(reference)) is None:
                    self._send(assignment, parcel, self._travelling())
                else:
                    came.append((assignment, reply))
        return came

    def _reply(self, reference: Any) -> Reply | None:
        """What a task gave back, its entries in the store; None if it needs the data that lie here."""
        try:
            answer, packed, needs_data = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # its worker or machine died again; jobs' errors are answers
            return WorkerError(text(str(error)))
        if needs_data:
            return None
        if packed:
            received = unpack(io.BytesIO(packed), self.store)
            if received.refused:
                return WorkerError(f"what came back is damaged: {'; '.join(received.refused.values())}")
        return bytes(answer)

    def _travelling(self) -> tuple[Any, ...]:
        """The data in the scratch folder, by name and as objects of Ray, each put there once."""
        for path in self.scratch.folder.glob("data-*"):
            if path.name not in self._data:
                self._data[path.name] = self.ray.put(path.read_bytes())
        return tuple(self._data.items())

    def close(self) -> None:
        """Call off what is under way; Ray itself stays for the next run."""
        for reference in list(self._busy):
            with contextlib.suppress(Exception):  # a cluster that is gone has called it off
                self.ray.cancel(reference, force=True)
        self._busy, self._data = {}, {}

    # --- the cluster ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._task is not None and self.ray.is_initialized():
            return
        if not self.ray.is_initialized():
            with _unchanged_process():
                self._start()
        found = self.ray.cluster_resources()
        if self.gpus_per_job > found.get("GPU", 0):
            raise UsageError(
                f"Each job wants {self.gpus_per_job:g} of a GPU, and the cluster has {found.get('GPU', 0):g}. "
                "Try --gpus-per-job 0.25, or start Ray's nodes with --num-gpus."
            )
        if self._counted:
            by_gpu = found["GPU"] / self.gpus_per_job if self.gpus_per_job else float("inf")
            self.workers = max(1, int(min(found.get("CPU", 1) / self.threads, by_gpu)))
        self._task = self.ray.remote(
            num_cpus=self.threads, num_gpus=self.gpus_per_job, max_retries=RETRIES, retry_exceptions=False
        )(compute_task)  # fmt: skip

    def _start(self) -> None:
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        how: dict[str, Any] = {"address": address, "log_to_driver": False, "configure_logging": False}
        if address == "local":
            how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            if not self._counted:
                how["num_cpus"] = self.workers * self.threads
        try:
            _knock(address)
            with held():
                self.ray.init(**how)
        except Exception as error:  # Ray has many kinds of them
            said = text(str(error).partition("\n")[0])
            if address == "local":
                raise UsageError(f"Ray cannot be started here: {said}.") from error
            raise UsageError(
                f"No Ray cluster answers at {text(address)} ({said}). Start one with `ray start --head`, name it with "
                "--address HOST:6379, or leave the address out for this machine. One that asks for a token needs it "
                "here, too: in RAY_AUTH_TOKEN or ~/.ray/auth_token, with RAY_AUTH_MODE=token."
            ) from error


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


@contextlib.contextmanager
def _unchanged_process() -> Iterator[None]:
    """Signal handlers, environment and the breakpoint hook stay ours: Ray changes them for programs of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    environment = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "PYTHONBREAKPOINT")}
    hook, unset = sys.breakpointhook, "RAY_USAGE_STATS_ENABLED" not in os.environ
    if unset:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to anyone whom the user has not chosen
    try:
        yield
    finally:
        sys.breakpointhook = hook
        for name, value in environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        with contextlib.suppress(ValueError):  # handlers belong to the main thread
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


# --- in the worker ------------------------------------------------------------------------------------


def compute_task(
    parcel: bytes, place: Place, threads: int, path: list[str], data: tuple[tuple[str, Any], ...]
) -> tuple[bytes, bytes, bool]:
    """Compute a parcel in a worker of Ray.

    Args:
        parcel: what `Assignment.parcel` gave.
        place: store and scratch folder of the sender.
        threads: of the computation.
        path: where the sender imports from; the user's modules may be there.
        data: files of the scratch folder as objects of Ray, for workers that do not see it; empty at first.

    Returns:
        The answer; the entries as `pack` writes them, empty if they lie in the sender's store; whether the data are
        needed first, which then is all.
    """
    sys.path += [folder for folder in path if folder not in sys.path]
    torch.set_num_threads(threads)
    if torch.get_num_threads() != threads:
        raise RuntimeError(f"torch has {torch.get_num_threads()} threads here, not {threads}")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's would end in Python, and wait for a kernel to return
    opened = Opened(parcel)
    if _sees(place):
        return opened.compute(), b"", False
    here = _own_place(place)
    for file, reference in [(Path(here.scratch, name), reference) for name, reference in data]:
        if not file.exists():
            files.write_bytes(file, _imported().get(reference))
    if not all(Path(here.scratch, name).exists() for name in opened.data):
        return b"", b"", True
    return opened.compute(here), _taken(StoreFolder(here.store), opened.keys), False


def _sees(place: Place) -> bool:
    """Whether the sender's scratch folder, which is in its store, is what this process sees under that name."""
    folder = Path(place.scratch)
    with contextlib.suppress(OSError):
        return (folder / PROBE).read_text() == folder.name
    return False


def _own_place(place: Place) -> Place:
    """A store and a folder of data on this machine, for a sender's store; what is unfinished is found there again."""
    number = hashlib.blake2b(place.store.encode(), digest_size=8).hexdigest()
    here = Path(tempfile.gettempdir()) / f"lotto-{os.getuid() if hasattr(os, 'getuid') else 'user'}-{number}"
    here.mkdir(mode=0o700, exist_ok=True)
    files.check_private(here)
    return Place(str(here / "store"), str(here / "data"))


def _taken(store: StoreFolder, keys: list[str]) -> bytes:
    """Entries in one piece; here they are removed."""
    out = io.BytesIO()
    pack(store, out, keys)
    for key in keys:
        with contextlib.suppress(OSError):
            remove_whole(store.entries.folder(key))
    return out.getvalue()


def _imported() -> Any:
    try:
        import ray
    except ImportError as missing:
        raise UsageError(f"The engine 'ray' needs Ray ({missing}): pip install 'lotto-tickets[ray]'.") from missing
    return ray
