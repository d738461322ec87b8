"""Nothing is left behind: locks, files on their way, scratch folders, workers, recipes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import Job, Store
from lotto.core import files, scratch
from lotto.core.locks import PathLock
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobAdvanced, JobFinished, JobStarted
from lotto.execution.forks import beside
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.training.loop import train

PATHS = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(lotto.__file__).parents[1])])
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process")


def killed(work) -> None:
    """Let a child do something and be killed when it has done it."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            work()
        finally:
            os.write(write, b".")
            time.sleep(60)
    assert os.read(read, 1)
    os.close(read)
    os.close(write)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def on_the_way(folder: Path, name: str) -> None:
    """Begin to write a file and keep it open."""
    context = files.replacing(folder / name)
    temporary = context.__enter__()
    temporary.write_bytes(b"half of it")
    globals()["_kept_open"] = context


def left(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if p.name.endswith((".tmp", ".lock")))


def test_runs_leave_no_locks_and_nothing_on_its_way(store):
    recipe = small_recipe(steps="2it")
    Serial(store).run([Job(recipe, seed) for seed in range(20)])
    assert left(store.root) == []
    assert len(list(store.root.rglob("manifest.json"))) == 20


@forks
def test_what_a_killed_process_left_goes_at_the_next_start_and_what_lives_stays(store):
    dead, alive = Job(small_recipe(steps="2it"), 1), Job(small_recipe(steps="2it"), 2)

    def begin():
        globals()["_held"] = store.locked(dead.key)
        globals()["_held"].__enter__()
        on_the_way(store.folder(dead.key), "history.json")

    killed(begin)
    with store.locked(alive.key), files.replacing(store.folder(alive.key) / "outcome.json") as temporary:
        temporary.write_bytes(b"")
        before = left(store.root)
        assert len(before) == 4
        Serial(Store(store.root)).run([Job(small_recipe(steps="2it"), 3)])
        assert left(store.root) == [n for n in before if dead.key not in n and "history" not in n]
        assert not store.folder(dead.key).exists()
    assert left(store.root) == []


@forks
def test_a_file_that_is_written_again_removes_what_the_dead_left_beside_it(tmp_path):
    path = tmp_path / "table.csv"
    killed(lambda: on_the_way(tmp_path, "table.csv"))
    killed(lambda: on_the_way(tmp_path, "other.csv"))
    assert len(left(tmp_path)) == 2
    with files.replacing(path) as mine:
        mine.write_text("mine")
        files.write_text(path, "other")
        assert mine.exists(), "it is being written"
    assert path.read_text() == "mine"
    (other,) = left(tmp_path)
    assert other.startswith(".other.csv.")


@forks
def test_scratch_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def own():
        folder = globals()["_owned"] = scratch.Scratch()
        (folder.folder / "data.safetensors").write_bytes(b"a copy of the data")

    killed(own)
    dead = sorted(tmp_path.iterdir())
    assert [path.suffix for path in dead] == ["", ".lock"]
    first = scratch.Scratch()
    assert not any(path.exists() for path in dead)
    second = scratch.Scratch()
    assert first.folder.exists()
    for each in (first, second):
        each.close()
    assert list(tmp_path.iterdir()) == []


def _count(folder: str, times: int) -> None:
    for _ in range(times):
        lock = PathLock(Path(folder) / "a.lock")
        lock.acquire()
        counter = Path(folder) / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
        lock.release()


@forks
def test_no_two_hold_a_lock_whose_file_comes_and_goes(tmp_path):
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count, args=(str(tmp_path), 300)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "counter").read_text() == "1200"
    assert left(tmp_path) == []


def workers() -> int:
    """New interpreters, and forks of the template."""
    template = beside()
    ours = ["-P", str(os.getpid()), "-f", "LokyProcess"]
    found = [ours] if template is None else [ours, ["-P", str(template._pid)]]
    return sum(len(subprocess.run(["pgrep", *of], capture_output=True, check=False).stdout.split()) for of in found)


def test_there_are_never_more_workers_than_work(store):
    assert workers() == 0
    recipe = small_recipe(steps="300it")
    seen = []

    def chain():
        for seed in range(2):
            yield [Job(recipe, seed)]

    Processes(store, 10).run_procedures([chain()], lambda event: seen.append(workers()))
    assert max(seen) == 1
    assert workers() == 0


def test_an_engine_holds_no_recipe_that_nobody_uses(store):
    engine, held = Serial(store), []
    for seed in range(4):
        recipe = small_recipe(data=small_arrays(seed), steps="1it")
        engine.run([Job(recipe)])
        held += [weakref.ref(recipe), weakref.ref(recipe.data)]
        del recipe
    gc.collect()
    assert [ref for ref in held if ref() is not None] == []


# --- what goes wrong later, or on the way, costs no training ------------------------------------------


@pytest.mark.parametrize("damage", ["flip", "remove", "folder", "swap", "everything"])
def test_a_state_that_is_damaged_after_it_was_found_is_computed_again(store, damage):
    job = Job(small_recipe(), keep=(10,))
    expected = train(job)
    run = Serial(store).run([job])[0]
    path = store.folder(job.key) / "state-10.safetensors"
    if damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif damage == "everything":
        store.clear()
    elif damage == "swap":
        last = path.with_name("state-40.safetensors")
        mine, other = path.read_bytes(), last.read_bytes()
        path.write_bytes(other)
        last.write_bytes(mine)
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    assert same_tensors(run.at(10), expected.at(10))
    assert same_tensors(run.weights, expected.weights)
    assert not get_or_compute(store, job)[1], "and is remembered again"


@pytest.mark.parametrize("engine", [Serial, lambda store: Processes(store, 2)])
def test_a_store_that_is_removed_while_it_is_used_costs_no_result(store, engine):
    jobs = [Job(small_recipe(), seed, keep=(7,)) for seed in range(3)]
    removed = []

    def remove(event):
        if isinstance(event, (JobAdvanced, JobStarted, JobFinished)) and len(removed) < 3:
            removed.append(event)
            store.clear()

    runs = engine(store).run(jobs, remove)
    for job, run in zip(jobs, runs, strict=True):
        assert same_tensors(run.at(7), train(job).at(7))
    assert removed


def test_a_run_that_loses_its_entry_while_it_is_extended_is_computed_again(store):
    get_or_compute(store, Job(small_recipe(), keep=(10,)))
    job = Job(small_recipe(), keep=(10, 20))
    run = get_or_compute(store, job, on_step=lambda step, loss: store.clear())[0]
    expected = train(job)
    for step in (10, 20, 40):
        assert same_tensors(run.at(step), expected.at(step)), step


@pytest.mark.parametrize(
    "name", ["state-40.safetensors", "history.json", "manifest.json", "checkpoint.safetensors", ""]
)
def test_a_folder_in_a_file_s_place_costs_no_training(store, name, caplog):
    job = Job(small_recipe())
    path = store.folder(job.key) / name
    if name:
        path.mkdir(parents=True)
    else:  # and a file in a folder's
        path.parent.mkdir(parents=True)
        path.write_text("not a folder")
    assert get_or_compute(store, job)[1]
    assert not get_or_compute(store, job)[1]
    assert "is damaged" in caplog.text


def test_a_clean_up_that_fails_costs_no_training(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(5, os.strerror(5))

    store = Store(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(os, "rmdir", refuse)
        runs = Processes(store, 2).run([Job(small_recipe(), seed) for seed in range(2)])
    assert same_tensors(runs[0].weights, train(Job(small_recipe())).weights)
    assert not get_or_compute(store, Job(small_recipe()))[1]


@pytest.mark.parametrize("number", [28, 30, 5, 13])
@pytest.mark.parametrize("what", ["replace", "fsync", "open"])
def test_what_cannot_be_written_is_handed_out_and_said_once(store, monkeypatch, caplog, number, what):
    jobs = [Job(small_recipe(), seed, keep=(20,)) for seed in range(2)]
    get_or_compute(store, Job(small_recipe(), keep=(10,)))
    real = os.open

    def refuse(path, *args, **kwargs):
        if what != "open" or str(path).endswith(".tmp"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, what, refuse)
        runs = Serial(store).run(jobs)
    for run, job in zip(runs, jobs, strict=True):
        assert same_tensors(run.weights, train(job).weights)
        assert same_tensors(run.at(20), train(job).at(20))
    assert caplog.text.count("is handed out, and not remembered") == 1
    assert get_or_compute(store, Job(small_recipe(), keep=(10,)))[1] is False, "what was finished is there"
    assert left(store.root) == []


def test_a_read_only_store_hands_out_what_it_holds_and_what_is_trained(store, monkeypatch, caplog):
    held, new = Job(small_recipe(), 0), Job(small_recipe(), 1)
    get_or_compute(store, held)
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(30, os.strerror(30))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    first, second = Serial(store).run([held, new])
    assert same_tensors(first.weights, train(held).weights)
    assert same_tensors(second.weights, train(new).weights)
    assert caplog.text.count("Read-only file system") == 1


ORPHANS = """
import os
from conftest import small_recipe
from lotto import Job, Store
from lotto.engine import make
print("started", flush=True)
make(2, Store(os.environ["STORE"])).run([Job(small_recipe(steps="900000it"), init_seed=s) for s in range(2)])
"""


@pytest.mark.parametrize("seconds", [0.6, pytest.param(1.5, marks=pytest.mark.extras)])
def test_workers_that_are_still_starting_leave_with_their_parent(tmp_path, seconds):
    environment = {**os.environ, "PYTHONPATH": PATHS, "STORE": str(tmp_path / "s"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline().strip() == "started"
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10  # a busy machine; a second and less on a quiet one
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "processes outlive their parent"
        time.sleep(0.05)
