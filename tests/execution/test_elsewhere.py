"""Other systems, as far as they can be had here: without what only POSIX has, by spawned processes, with their names."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lotto
from conftest import small_recipe
from lotto.benchmarks import memory
from lotto.cli import stopping
from lotto.core import files, locks, orphans
from lotto.core.errors import StorageError
from lotto.execution import queue_folder
from lotto.execution.queue_folder import QueueFolder

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(TESTS / "execution"), str(Path(lotto.__file__).parents[1])])


def ran(code: str, *arguments: str, **environment: str) -> str:
    """What a new interpreter prints that runs a program as a notebook does: its definitions are in no file."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": PATHS, **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


EVERYTHING = """
import without_posix; without_posix.leave()
import importlib, pkgutil, sys, torch
import lotto
from lotto.core.errors import UsageError
for module in pkgutil.walk_packages(lotto.__path__, "lotto."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except UsageError as error:  # of another package that is not installed
            assert "pip install 'lotto-tickets[" in str(error)
from conftest import small_recipe
from lotto.cli.main import main
store = lotto.Store(sys.argv[1])
result = lotto.imp(small_recipe(), levels=1, replicates=2, rewind_to="5it", jobs=1, store=store, progress=False)
result.save(sys.argv[2])
again = lotto.imp(small_recipe(), levels=1, replicates=2, rewind_to="5it", jobs=1, store=store, progress=False)
assert again.table().equals(result.table())
ends = [result.runs[replicate, 0, "imp"].weights for replicate in (0, 1)]
print(lotto.landscape.barrier(small_recipe(), *ends, 3, store=store, progress=False) >= 0)
main(["store", "verify", "--store", sys.argv[1]])
print(lotto.load(sys.argv[2]).table().equals(result.table()), lotto.engine.make("auto", store).workers >= 1)
"""


def test_nothing_needs_what_only_posix_has(tmp_path):
    """All of lotto is imported, a search trained, stored, saved, found and read."""
    said = ran(EVERYTHING, str(tmp_path / "store"), str(tmp_path / "result")).splitlines()
    assert said[0] == "True"
    assert re.fullmatch(r"(\d+) of \1 entries are whole\.", said[1])
    assert said[2] == "True True"
    assert not list((tmp_path / "store").rglob("*.tmp"))


NOTEBOOK = """
import numpy as np, torch, lotto
from lotto.data import seeded
from lotto.execution import forks
seeded.START = "spawn"
forks.THREADS = type(forks.THREADS)("/nowhere")  # where there is nothing to fork workers from

class Mine(torch.utils.data.Dataset):
    def __init__(self, count):
        rng = np.random.default_rng(count)
        self.x = rng.normal(size=(count, 4)).astype("float32")
        self.y = self.x.argmax(1)
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return SCALE * torch.from_numpy(self.x[i]), int(self.y[i])

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
    def forward(self, x):
        return self.layer(x) * SCALE

def mine(batch):
    x, y = zip(*batch)
    return torch.stack(x), torch.tensor(y)

SCALE = 1.5
if __name__ == "__main__":
    found = []
    for workers, jobs in ((0, 1), (1, 1), (0, 2)):
        data = lotto.data.Indexed(Mine(40), Mine(20), collate=mine, workers=workers, batch_size=10, classes=4)
        recipe = lotto.Recipe(Net, data, lotto.SGD(0.1), batch_size=10, steps="6it", tolerance=5.0)
        engine = lotto.engine.make(jobs, lotto.Store(f"store-{workers}-{jobs}"), backend="processes" if jobs > 1 else None)
        (run,) = engine.run([lotto.Job(recipe)])
        found.append(lotto.weights.digest(run.weights))
    print(len(set(found)))
"""


@pytest.mark.extras
def test_what_a_notebook_defines_reaches_spawned_processes(tmp_path):
    """Classes and functions without a file: a network, its data set, and how batches are made; the same bits as here."""
    program = tmp_path / "program.py"
    program.write_text(NOTEBOOK)
    for given in (["-c", NOTEBOOK], [str(program)]):
        done = subprocess.run(
            [sys.executable, *given], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PATHS},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.stdout == "1\n", done.stderr[-3000:]


def test_where_there_are_no_locks_of_posix_others_do(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    one, other = locks.PathLock(tmp_path / "lock"), locks.PathLock(tmp_path / "lock")
    assert one.acquire()
    assert not other.acquire(wait=False)
    one.release()
    assert other.acquire(wait=False)
    other.release()
    files.write_text(tmp_path / "text", "written")
    assert (tmp_path / "text").read_text() == "written"
    assert not list(tmp_path.glob("*.tmp"))


def test_another_refusal_of_a_lock_is_one(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        locks.PathLock(tmp_path / "lock").acquire()


def test_what_is_synced_can_be_written_to(tmp_path, monkeypatch):
    """Windows refuses to sync a file that was opened for reading."""
    modes = []
    monkeypatch.setattr(os, "fsync", lambda number: modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    files.write_text(tmp_path / "text", "written")
    assert modes == [os.O_RDWR]


@pytest.mark.parametrize(("windows", "refusals", "passes"), [(True, 3, True), (True, 10**6, False), (False, 1, False)])
def test_a_reader_is_waited_for_where_it_is_in_the_way(tmp_path, monkeypatch, windows, refusals, passes):
    asked = []

    def replace(old, new, rename=os.replace):
        asked.append(new)
        if len(asked) <= refusals:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        rename(old, new)

    monkeypatch.setattr(files, "WINDOWS", windows)
    monkeypatch.setattr(files, "READING_SECONDS", 0.1)
    monkeypatch.setattr(os, "replace", replace)
    if passes:
        files.write_text(tmp_path / "text", "written")
        assert (tmp_path / "text").read_text() == "written"
        return
    with pytest.raises(StorageError, match="Nothing was changed"):
        files.write_text(tmp_path / "text", "written")
    assert list(tmp_path.iterdir()) == []


def test_a_parcel_that_another_worker_renames_is_left_to_it(tmp_path, monkeypatch):
    queue = QueueFolder(tmp_path)
    queue.put("a" * 32, b"parcel")

    def refused(*_):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refused)
        with pytest.raises(PermissionError):
            queue.claim(queue_folder.new_worker())
        patched.setattr(files, "WINDOWS", True)
        assert queue.claim(queue_folder.new_worker()) is None
    assert queue.claim(queue_folder.new_worker()) is not None


@pytest.mark.parametrize(("handle", "waited", "lives"), [(None, 0, False), (7, 0x102, True), (7, 0, False)])
def test_windows_says_whether_a_process_lives(monkeypatch, handle, waited, lives):
    closed = []
    kernel = SimpleNamespace(
        OpenProcess=lambda *given: handle if given == (0x00100000, False, 42) else None,
        WaitForSingleObject=lambda got, seconds: waited,
        CloseHandle=lambda got: closed.append(got.value),
    )
    # A function of a library takes attributes, and so does this one.
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: kernel, raising=False)
    assert orphans._lives_on_windows(42) is lives
    assert closed == ([7] if handle else [])


def test_a_signal_to_oneself_is_raised_where_kill_would_end_the_process(monkeypatch):
    raised = []
    monkeypatch.setattr(stopping, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    stopping._send(signal.SIGTERM)
    assert raised == [signal.SIGTERM]


def test_memory_that_cannot_be_measured_is_no_number(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(memory, "Path", lambda *_: SimpleNamespace(exists=lambda: False))
    assert memory.peak_resident() != memory.peak_resident()


FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]|[ .]$')
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}
LONGEST = 140
"""Of what lies below a store: of the 259 characters that Windows takes at first, 119 are left to where the store is."""


def unfit(names):
    """Names that Windows refuses, or takes for one another."""
    parts = {part for name in names for part in Path(name).parts}
    bad = {part for part in parts if FORBIDDEN.search(part) or part.lower().split(".")[0] in DEVICES}
    folded = {}
    for name in names:
        folded.setdefault(str(name).lower(), set()).add(str(name))
    return bad | {str(sorted(same)) for same in folded.values() if len(same) > 1}


def test_names_that_are_unfit_are_found():
    assert unfit(["a:b", "Nul.txt", "x/Y", "x/y", "end."]) == {"a:b", "Nul.txt", "['x/Y', 'x/y']", "end."}


def test_whatever_is_written_has_a_name_that_all_systems_take(tmp_path, monkeypatch):
    """Files on their way are the longest, with a process's number of seven digits."""
    written = []

    def noted(path, original=files.locks.create_claimed):
        written.append(re.sub(r"\.\d+\.([0-9a-f]{8})\.tmp$", r".4194304.\1.tmp", str(path)))
        return original(path)

    monkeypatch.setattr(files.locks, "create_claimed", noted)
    store = lotto.Store(tmp_path / "store")
    recipe = small_recipe(name='Mine: "a/b" <1>?')
    result = lotto.imp(recipe, levels=1, replicates=1, rewind_to="5it", jobs=1, store=store, progress=False)
    result.save(tmp_path / "result")
    queue = QueueFolder(store.root / "queue")
    queue.put(store.folder(lotto.Job(recipe).key).name, b"parcel")
    claim = queue.claim(queue_folder.new_worker())
    inner = Path(claim.path.parents[1], "work", claim.name, "0", store.folder(claim.name).relative_to(store.root))
    written += [str(claim.path), str(inner / ".checkpoint.safetensors.4194304.01234567.tmp")]
    below = [str(Path(name).relative_to(tmp_path)) for name in written]
    below += [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert unfit(set(below)) == set()
    assert max(len(name.removeprefix("store/")) for name in below) <= LONGEST


def test_files_of_the_project_have_names_that_all_systems_take():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TESTS.parent, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assert unfit([name for name in listed if name]) == set()
