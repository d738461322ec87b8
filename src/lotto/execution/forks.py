"""Workers that are forked from a process which has imported everything and computed nothing: they start at once.

A new interpreter takes seconds to import PyTorch, in every worker. The command line forks a `Template` of itself once
it has imported what it needs, before it computes anything (`warmed`); any other process has a template started beside
it, once for all its engines (`beside`). Workers are forks of the template. That is safe as long as the template has one
thread: OpenMP, CUDA and whatever else has started threads does not survive a fork.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing import Pipe, reduction
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from multiprocessing.util import spawnv_passfds
from pathlib import Path
from pickle import loads
from typing import Any, NoReturn

import cloudpickle
import torch

from lotto.core import orphans
from lotto.core.jit import warm_up
from lotto.core.one_thread import import_pandas
from lotto.core.signals import ENDING, held

THREADS = Path("/proc/self/task")


def warmed() -> Template | None:
    """A template of this process as it is now; None where its forks might not work: it computes, or is not on Linux."""
    if not THREADS.is_dir() or threading.active_count() > 1 or torch.cuda.is_initialized():
        return None
    template = _forked()
    if len(list(THREADS.iterdir())) == 1:  # OpenBLAS ends its own, which wait for work, before each fork
        return template
    template.close()
    return None


def beside() -> Template | None:
    """A template that is a new interpreter, started by the first call and there until this process ends; Linux only.

    Neither this process's threads nor what it has imported or computed are in it.
    """
    return _spawned(os.getpid()) if THREADS.is_dir() else None


@cache
def _spawned(owner: int) -> Template:
    ours, theirs = Pipe()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from lotto.core.orphans import watch_by_timer; watch_by_timer({owner})\n"
        f"from lotto.execution.forks import lead; lead({theirs.fileno()})"
    )
    program = get_executable()
    with held():
        pid = spawnv_passfds(os.fsencode(program), [program, "-c", code], [theirs.fileno()])
        theirs.close()
        return Template(ours, pid, ready=False)


def _forked() -> Template:
    ours, theirs = Pipe()
    with held():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        pid = os.fork()
        if not pid:
            ours.close()
            _lead(theirs)
        theirs.close()
        return Template(ours, pid)


class Template:
    """A process that forks workers of itself, and leaves with this process.

    Args:
        connection: to it.
        pid: its number.
        ready: whether it has imported everything; else it says so.
    """

    def __init__(self, connection: Connection, pid: int, ready: bool = True) -> None:
        self._connection, self._pid, self._owner, self._ready = connection, pid, os.getpid(), ready
        self._one_at_a_time = threading.Lock()
        self.close = weakref.finalize(self, _end, connection, pid, self._owner)

    def wait(self) -> None:
        """Wait until it has imported everything, or is gone; a signal ends that."""
        if self._ready or os.getpid() != self._owner:
            return
        with self._one_at_a_time, suppress(OSError, EOFError):
            if not self._ready:
                self._connection.recv()
                self._ready = True

    def start(self, module: str, *arguments: object) -> ForkedWorker | None:
        """Fork a worker, which calls ``start`` of a module first; None if there is no template any more, or not here.

        The worker finds this process's environment, folder and paths as they are now.
        """
        if os.getpid() != self._owner:
            return None
        self.wait()
        surroundings = dict(os.environ), os.getcwd(), list(sys.path)
        ours, others = Pipe()
        with held(), self._one_at_a_time, suppress(OSError, EOFError):
            self._connection.send((surroundings, module, arguments))
            reduction.send_handle(self._connection, others.fileno(), self._pid)
            others.close()
            return ForkedWorker(self, self._connection.recv(), ours)
        return None

    def kill(self, pid: int) -> None:
        """End a worker; it is gone afterwards."""
        with held(), self._one_at_a_time, suppress(OSError, EOFError):  # without its template it leaves by itself
            self._connection.send(pid)
            self._connection.recv()


class ForkedWorker:
    """A worker that a template has forked, with what is used of `loky.ProcessPoolExecutor`."""

    def __init__(self, template: Template, pid: int, connection: Connection) -> None:
        self.pid = pid
        self._template, self._connection = template, connection
        self._conversation = threading.Thread()

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Future[Any]:
        """Let the worker call a function, when it has nothing else to do.

        Raises:
            BrokenProcessPool: if it has died meanwhile.
        """
        if self._connection.poll():  # it has nothing to say by itself: this is its end
            raise BrokenProcessPool("The worker process has died.")
        content = cloudpickle.dumps((function, arguments))
        future: Future[Any] = Future()
        self._conversation = threading.Thread(target=self._converse, args=(content, future), daemon=True)
        self._conversation.start()
        return future

    def _converse(self, content: bytes, future: Future[Any]) -> None:
        try:
            self._connection.send_bytes(content)
            result, error, where = loads(self._connection.recv_bytes())
        except (OSError, EOFError):
            result, error, where = None, BrokenProcessPool("The worker process has died."), ""
        except Exception as unreadable:
            result, error, where = None, unreadable, ""
        if error is None:
            future.set_result(result)
        else:
            error.__cause__ = error.__cause__ or (RemoteTraceback(where) if where else None)
            future.set_exception(error)

    def shutdown(self, wait: bool = True, kill_workers: bool = True) -> None:
        """Kill the worker."""
        self._template.kill(self.pid)
        if self._conversation.ident is not None:
            self._conversation.join()
        self._connection.close()


class RemoteTraceback(Exception):
    """Where an error arose in a worker."""


def _end(connection: Connection, pid: int, owner: int) -> None:
    """End a template: its workers leave with it."""
    if os.getpid() == owner:  # not in a fork
        connection.close()
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# --- in the template ----------------------------------------------------------------------------------


def lead(descriptor: int) -> NoReturn:
    """What a new interpreter does that is a template: import everything, and say so."""
    connection = Connection(descriptor)
    try:
        import_pandas()
        import_module("lotto.execution.worker")
        if len(list(THREADS.iterdir())) > 1:
            os._exit(1)
        with suppress(OSError):  # the parent is gone
            connection.send(None)
    except BaseException:  # the parent goes on without a template
        os._exit(1)
    _lead(connection)


def _lead(connection: Connection) -> NoReturn:
    """What the template does: never return to what its parent was doing."""
    try:
        # Ctrl-C reaches the whole process group, `kill` may; this process's parent decides what they mean.
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        sys.unraisablehook = sys.__unraisablehook__
        logging.getLogger().handlers.clear()  # a new interpreter has none
        logging.getLogger().setLevel(logging.WARNING)
        warm_up()  # for its forks
        gc.freeze()  # so that their collections do not copy its pages
        orphans.end_watch()  # the connection says when the parent is gone
        _serve(connection)
    finally:
        os._exit(0)


def _serve(connection: Connection) -> None:
    workers: set[int] = set()
    with suppress(OSError, EOFError):  # the parent is gone
        while True:
            request = connection.recv()
            if isinstance(request, int):
                workers.discard(request)
                os.kill(request, signal.SIGKILL)  # it may have died, but is not waited for: no other has its number
                os.waitpid(request, 0)
                connection.send(None)
                continue
            theirs, template = Connection(reduction.recv_handle(connection)), os.getpid()
            pid = os.fork()
            if not pid:
                connection.close()
                _work(theirs, template, *request)
            theirs.close()
            workers.add(pid)
            connection.send(pid)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _work(
    connection: Connection, template: int, surroundings: tuple[dict[str, str], str, list[str]], module: str, given: Any
) -> NoReturn:
    """What a worker does."""
    try:
        environment, folder, sys.path[:] = surroundings
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        orphans.start_worker(template, module, *given)
        with suppress(OSError, EOFError):  # nobody wants it any more
            while True:
                connection.send_bytes(_answer(connection.recv_bytes()))
    finally:
        os._exit(0)


def _answer(content: bytes) -> bytes:
    """What a function returns or raises."""
    try:
        function, arguments = loads(content)
    except Exception as error:
        problem = BrokenProcessPool("A task has failed to un-serialize.")
        return cloudpickle.dumps((None, problem, f"{type(error).__name__}: {error}"))
    try:
        return cloudpickle.dumps((function(*arguments), None, ""))
    except BaseException as error:
        where = traceback.format_exc()
        try:
            return cloudpickle.dumps((None, error, where))
        except Exception:  # whatever it may hold
            return cloudpickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), where))
