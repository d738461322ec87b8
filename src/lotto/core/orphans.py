"""What a worker process does first; quick to import, so that no worker outlives its parent meanwhile."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time

from lotto.core.signals import ENDING

POLL_SECONDS = 0.2
SYNCHRONIZE, WAIT_TIMEOUT = 0x00100000, 0x00000102
"""Windows: the right to wait for a process, and what waiting says of one that lives."""


def start_worker(parent: int, module: str, *arguments: object) -> None:
    """Watch over the parent from now on, then call ``start`` of a module, which may be slow to import."""
    # Ctrl-C and a closed terminal reach the whole process group; the parent decides what they mean.
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
    importlib.import_module(module).start(*arguments)


def watch_by_timer(parent: int) -> None:
    """End this process when its parent is gone, without a thread, for whom is to be forked: from now to `end_watch`."""
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, POLL_SECONDS, POLL_SECONDS)


def end_watch() -> None:
    """End what `watch_by_timer` began: something else notices now."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def leave_with(parent: int) -> None:
    """End this worker when its parent is gone, even by SIGKILL: its checkpoint is there for the next one.

    The parent says who it is: it may be gone before this worker has started. Another process may stand between the
    two, such as multiprocessing's fork server, which goes with the parent.
    """
    above, adopted = os.getppid(), os.name == "posix"  # elsewhere who is above stays so when it is gone
    while os.getppid() == above and ((adopted and above == parent) or _lives(parent)):
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _lives(process: int) -> bool:
    if os.name != "posix":
        return _lives_on_windows(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _lives_on_windows(process: int) -> bool:
    """Whether its handle, if it can be had, still says that it has not ended (processthreadsapi.h, synchapi.h)."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]  # of Windows alone
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(SYNCHRONIZE, False, process)
    if not handle:
        return False
    try:
        return bool(kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0) == WAIT_TIMEOUT)
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
