"""What code may read that no key can cover: files, the clock, the environment, the network, the system's randomness."""

from __future__ import annotations

import re

_MODULES = {
    "time", "socket", "ssl", "requests", "httpx", "urllib", "urllib3", "http", "ftplib", "ctypes", "cffi", "subprocess",
    "secrets", "uuid", "tempfile", "importlib", "glob", "shutil", "sqlite3", "platform", "getpass", "fileinput",
    "runpy", "pkgutil", "mmap", "signal", "resource", "linecache",
}  # fmt: skip
"""Modules whose every function is about something outside of the program."""

_NAMES = {
    "open", "input", "exec", "eval", "compile", "__import__", "globals", "id", "hash",
    "io.open", "io.FileIO", "_io.open", "codecs.open",
    "sys.argv", "sys.stdin", "sys.path", "sys.modules", "sys._getframe", "sys.flags",
    "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow", "datetime.date.today",
    "random.SystemRandom", "numpy.memmap", "numpy.fromfile", "numpy.loadtxt", "numpy.genfromtxt",
    "torch.seed", "torch.initial_seed", "torch.from_file", "torch.random.seed", "torch.random.initial_seed",
    "pathlib.Path.cwd", "pathlib.Path.home",
}  # fmt: skip

_CALLS = re.compile(
    r"(load|load_file|open|open_\w+|safe_open|imread|read|read_\w+|fromfile|urlopen|urlretrieve|load_state_dict_from_url|"
    r"hf_hub_download|snapshot_download|load_dataset|from_pretrained|load_library|download_url_to_file)"
)
"""Functions of installed packages with such names read files or the network."""

_PURE_OS = re.compile(
    r"(os\.)?(os\.path|posixpath|ntpath)\.(join|basename|dirname|split|splitext|sep|normpath|isabs|commonpath)"
    r"|os\.(sep|linesep|fspath|PathLike|curdir|pathsep|name)"
)
_UNSEEDED = re.compile(
    r"(numpy\.random\..*(default_rng|RandomState|SeedSequence|PCG64|Philox|MT19937|SFC64)|random\.Random)"
)

_FILES = {"glob", "sqlite3", "mmap", "linecache", "fileinput", "shutil"}
"""Those of the modules that are about files."""

METHODS = {
    "read_text", "read_bytes", "iterdir", "rglob", "from_pretrained", "load_state_dict_from_url", "urlopen",
}  # fmt: skip
"""Methods with such names read files or the network, whatever they are called on."""


def unreadable(name: str, *, empty_call: bool = False) -> bool:
    """Whether what a name of Python's or of a package stands for depends on something outside of the program.

    Args:
        name: the full name, ``os.environ.get``.
        empty_call: whether it is called without arguments: a generator without a seed takes one from the system.

    >>> [unreadable(n) for n in ("os.environ.get", "os.path.join", "json.load", "torch.nn.Linear", "time.time")]
    [True, False, True, False, True]
    """
    parts = name.split(".")
    if parts[0] == "builtins":
        name = name.partition(".")[2]
    if parts[0] in _MODULES or name in _NAMES:
        return True
    if parts[0] in ("os", "posix", "nt", "posixpath", "ntpath"):
        return not _PURE_OS.fullmatch(name)
    if empty_call and _UNSEEDED.fullmatch(name):
        return True
    return _is_reading(parts)


def reads_files(name: str) -> bool:
    """Whether something `unreadable` is about files alone, so that who states what is in them covers it.

    >>> [reads_files(n) for n in ("open", "os.listdir", "json.load", "os.environ.get", "time.time", "os.urandom")]
    [True, True, True, False, False, False]
    """
    parts = name.removeprefix("builtins.").split(".")
    if parts[0] in ("os", "posix", "nt"):
        return parts[-1] in ("listdir", "scandir", "walk", "stat", "fspath", "open") or parts[1:2] == ["path"]
    of_names = {"open", "numpy.memmap", "numpy.fromfile", "numpy.loadtxt", "numpy.genfromtxt", "torch.from_file"}
    return parts[0] in _FILES or ".".join(parts) in of_names or parts[-1] == "FileIO" or _is_reading(parts)


def _is_reading(parts: list[str]) -> bool:
    return len(parts) > 1 and parts[:2] != ["lotto", "data"] and bool(_CALLS.fullmatch(parts[-1]))
