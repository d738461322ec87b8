"""A program's first lines: from here on Python has nothing that only POSIX systems have, as on Windows.

What the standard library and the libraries below lotto are made of is imported before, as it is another thing there.
"""

import importlib
import os
import signal
import sys

BELOW = (
    "asyncio", "concurrent.futures.process", "filelock", "loky", "matplotlib.figure", "multiprocessing.popen_spawn_posix",
    "multiprocessing.util", "numba", "numpy", "pandas", "pooch", "rich.console", "scipy.optimize", "scipy.stats", "shutil",
    "subprocess", "tarfile", "tempfile", "torch", "torch.utils.data", "torch._dynamo", "tyro", "zipfile",
)  # fmt: skip
MODULES = ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty")
FUNCTIONS = (
    "fork", "forkpty", "geteuid", "getegid", "getgid", "getpgid", "getpgrp", "getsid", "getuid", "killpg", "mkfifo", "nice",
    "posix_spawn", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setpgid", "setsid", "statvfs", "sysconf",
    "uname", "wait", "waitid", "wait3", "wait4", "getloadavg", "pipe2", "set_blocking", "chown", "fchmod", "fchown",
)  # fmt: skip
SIGNALS = (
    "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "getitimer", "pause",
    "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigwait",
)  # fmt: skip


def leave() -> None:
    """Take away what Windows does not have."""
    for name in BELOW:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # its import fails
    for module, names in ((os, FUNCTIONS), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
