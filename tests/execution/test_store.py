"""The store: whole, verified, locked, resumable after SIGKILL."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.core import files
from lotto.core.errors import StorageError
from lotto.execution.arithmetic import arithmetic_of
from lotto.execution.compute import get_or_compute
from lotto.execution.processes import Processes
from lotto.training.loop import train


class Drawing(torch.nn.Module):
    """Draws random numbers while it is built and while it is trained."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(12, 16), torch.nn.Linear(16, 6)

    def forward(self, x):
        return self.last(torch.nn.functional.dropout(self.first(x).relu(), 0.3, self.training))


TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(Path(lotto.__file__).parents[1])])


def test_a_finished_run_is_remembered_with_its_manifest(recipe, store):
    job = Job(recipe, keep=(5,), label="a label")
    run, trained = get_or_compute(store, job, execution={"engine": "test"})
    again, trained_again = get_or_compute(store, job)
    assert (trained, trained_again) == (True, False)
    direct = train(job)
    for found in (run, again):
        assert same_tensors(found.weights, direct.weights)
        assert same_tensors(found.at(5), direct.at(5))
        assert same_tensors(found.state(5).optimizer, direct.state(5).optimizer)
        assert found.history == direct.history
        assert found.arithmetic == direct.arithmetic
    manifest = json.loads((store.folder(job.key) / "manifest.json").read_text())
    assert manifest["execution"] == {
        "engine": "test",
        "device": "cpu",
        "arithmetic": "perceptron, 0 of 3 layers sparse",
        "computed_with": arithmetic_of(recipe),
    }
    assert {"torch", "lotto", "python"} <= set(manifest["versions"])
    assert manifest["job"]["order_seed"] == 0
    assert not list(store.root.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["state-40.safetensors", "history.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_noticed_reported_and_recomputed(recipe, store, caplog, name, damage):
    job = Job(recipe)
    first, _ = get_or_compute(store, job)
    expected = {n: t.clone() for n, t in first.weights.items()}
    path = store.folder(job.key) / name
    content = path.read_bytes()
    if damage == "flip":
        # In a JSON file a flipped digit is still JSON.
        at = len(content) - 9 if name.startswith("state") else content.index(b"20")
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    caplog.clear()
    run, trained = get_or_compute(store, job)
    assert trained
    assert same_tensors(run.weights, expected)
    if (name, damage) != ("manifest.json", "remove"):  # without a manifest it is just not finished
        assert "is damaged" in caplog.text
        assert list(store.root.rglob("*.damaged-*"))
    assert not get_or_compute(store, job)[1]


def test_a_foreign_entry_is_not_used(recipe, store, caplog):
    job, other = Job(recipe), Job(recipe, order_seed=1)
    get_or_compute(store, job)
    get_or_compute(store, other)
    ours = store.folder(job.key)
    for path in store.folder(other.key).iterdir():
        (ours / path.name).write_bytes(path.read_bytes())
    run, trained = get_or_compute(store, job)
    assert trained
    assert "describes another job" in caplog.text
    assert same_tensors(run.weights, train(job).weights)


def test_steps_that_a_stored_run_lacks_are_trained_from_the_nearest_state(recipe, store):
    get_or_compute(store, Job(recipe, keep=(10,)))
    seen = []
    run, trained = get_or_compute(store, Job(recipe, keep=(15, 0)), on_step=lambda step, loss: seen.append(step))
    assert trained
    assert max(seen) == 15
    direct = train(Job(recipe, keep=(0, 10, 15)))
    for step in (0, 10, 15, 40):
        assert same_tensors(run.at(step), direct.at(step)), step
    assert run.history == direct.history
    assert not get_or_compute(store, Job(recipe, keep=(0, 10, 15)))[1]
    seen.clear()
    get_or_compute(store, Job(recipe, keep=(12,)), on_step=lambda step, loss: seen.append(step))
    assert seen == [12]


def run_script(script: str, root: Path, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": PATHS, "STORE": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


RESUMED = """
import os, sys
from conftest import small_recipe
from lotto import Job, Store
from lotto.execution.compute import get_or_compute
import torch
torch.set_num_threads(1)
job = Job(small_recipe(steps="3000it", evaluations=7), order_seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0, keep=(500,))
store = Store(os.environ["STORE"])
print(store.folder(job.key), flush=True)
resumed = []
get_or_compute(store, job, on_step=lambda step, loss: resumed.append(step), checkpoint_seconds=0.02)
print(resumed[0], flush=True)
"""


@pytest.mark.extras
def test_killed_and_started_again_ends_in_the_same_bits(tmp_path):
    """SIGKILL at several moments; the negative control is another data order."""
    job = Job(small_recipe(steps="3000it", evaluations=7), keep=(500,))
    whole = train(job)
    store = Store(tmp_path / "s")
    checkpoint = store.folder(job.key) / "checkpoint.safetensors"
    last = b""
    for _ in range(2):
        process = run_script(RESUMED, store.root)
        deadline = time.monotonic() + 60
        while not checkpoint.exists() or checkpoint.read_bytes()[:4000] == last:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        last = checkpoint.read_bytes()[:4000]
    assert store.lookup(job) is None
    process = run_script(RESUMED, store.root)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert int(out.split()[-1]) > 50, "the run went on from its checkpoint, not from the start"
    run = store.lookup(job)
    assert same_tensors(run.weights, whole.weights)
    assert same_tensors(run.at(500), whole.at(500))
    assert run.history == whole.history
    assert not checkpoint.exists()
    other = train(Job(small_recipe(steps="3000it", evaluations=7), order_seed=1))
    assert not same_tensors(run.weights, other.weights)


def test_one_flipped_bit_of_a_checkpoint_is_noticed(store, caplog):
    job = Job(small_recipe(steps="3000it"))
    kept = []
    save = store.write_checkpoint
    path = store.folder(job.key) / "checkpoint.safetensors"

    def stop_at_the_first(job, point):
        save(job, point)
        kept.append(path.read_bytes())
        raise KeyboardInterrupt

    store.write_checkpoint = stop_at_the_first
    with pytest.raises(KeyboardInterrupt):
        get_or_compute(store, job, checkpoint_seconds=0.0)
    store.write_checkpoint = save
    content = kept[0]
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    run, _ = get_or_compute(store, job)
    assert "its content is not what was written" in caplog.text
    assert same_tensors(run.weights, train(job).weights)


def test_clear_removes_entries_and_nothing_else(recipe, store):
    get_or_compute(store, Job(recipe))
    (store.root / "notes.txt").write_text("mine")
    store.clear()
    assert [p.name for p in store.root.rglob("*") if p.is_file()] == ["notes.txt"]


def test_a_ticket_finds_the_run_of_its_level(store):
    engine = lotto.engine.Serial(store)
    result = lotto.imp(
        small_recipe(tolerance=100.0), levels=1, replicates=1, controls=(), rewind_to="7it", engine=engine
    )
    events = []
    lotto.train(small_recipe(), start=result.sparsest_within_tolerance(), engine=engine, progress=events.append)
    assert [e.trained for e in events] == [False]


def test_a_damaged_checkpoint_is_dropped(store, caplog):
    job = Job(small_recipe())
    path = store.folder(job.key) / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a checkpoint")
    run, _ = get_or_compute(store, job)
    assert "checkpoint is damaged" in caplog.text
    assert same_tensors(run.weights, train(job).weights)


WAITING = """
import os
from conftest import small_recipe
from lotto import Job, Store
from lotto.execution.compute import get_or_compute
import torch
torch.set_num_threads(1)
print("ready", flush=True)
input()
run, trained = get_or_compute(Store(os.environ["STORE"]), Job(small_recipe(steps="1500it")))
print("trained" if trained else "read", run.test_error)
"""


@pytest.mark.extras
def test_two_processes_want_one_job_one_trains_the_other_reads(tmp_path):
    processes = [run_script(WAITING, tmp_path / "s", stdin=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline().strip() == "ready"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    words = sorted(out.split()[0] for out, _ in outs)
    assert words == ["read", "trained"]
    assert len({out.split()[1] for out, _ in outs}) == 1


FULL = """
import os, sys
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.execution.compute import get_or_compute
from lotto.training.loop import train
store = Store(os.environ["STORE"])
jobs = [Job(small_recipe(steps="2it"), init_seed=seed) for seed in range(40)]
runs = [get_or_compute(store, job)[0] for job in jobs]
assert all(same_tensors(run.weights, train(job).weights) for run, job in zip(runs, jobs))
print("kept", sum(run.key is not None for run in runs))
left = [p.name for p in store.root.rglob("*") if p.name.endswith((".tmp", ".lock"))]
print("left", left)
print("whole", sum(store.lookup(job) is not None for job in jobs))
"""


@pytest.mark.extras
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_is_said_once_and_every_training_is_handed_out(tmp_path):
    target = tmp_path / "small"
    target.mkdir()
    script = tmp_path / "full.py"
    script.write_text(FULL)
    command = f"mount -t tmpfs -o size=96k tmpfs {target} && exec {sys.executable} {script}"
    environment = {**os.environ, "PYTHONPATH": PATHS, "STORE": str(target)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine does not let a test mount a file system: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the disk is full. Nothing was changed.") == 1
    kept, whole = (int(re.search(rf"{word} (\d+)", done.stdout)[1]) for word in ("kept", "whole"))
    assert 0 < kept == whole < 40
    assert "left []" in done.stdout


def test_a_store_that_cannot_be_used(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot use the store"):
        get_or_compute(Store(tmp_path / "file" / "inside"), Job(recipe))


def test_unidentified_jobs_are_trained_but_not_remembered(store, caplog):
    namespace = {"build": lotto.models.build}
    exec("def made_by_a_program(): return build('mlp-7', (12,), 6)", namespace)
    recipe = small_recipe(model=namespace["made_by_a_program"], steps="2it")
    engine = lotto.engine.make(1, store)
    for _ in range(2):
        assert engine.run([Job(recipe)])[0].key is None
    assert caplog.text.count("are not remembered") == 1
    assert not list(store.root.rglob("manifest.json"))


# --- what is finished stays as it is ------------------------------------------------------------------


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_extension_stands_beside_what_was_finished(store):
    recipe = small_recipe()
    get_or_compute(store, Job(recipe, keep=(10,)))
    folder = store.folder(Job(recipe).key)
    before = contents(folder)
    run, trained = get_or_compute(store, Job(recipe, keep=(20,)))
    after = contents(folder)
    assert trained
    assert {name: after[name] for name in before} == before, "not a byte of it"
    assert set(after) - set(before) == {"state-20.safetensors", "manifest-1.json"}
    assert set(run.states) == {10, 20, 40}
    assert same_tensors(run.at(20), train(Job(recipe, keep=(20,))).at(20))
    assert not get_or_compute(store, Job(recipe, keep=(10, 20)))[1]


def test_a_damaged_extension_leaves_what_was_there_before_it(store):
    recipe = small_recipe()
    get_or_compute(store, Job(recipe, keep=(10,)))
    get_or_compute(store, Job(recipe, keep=(20,)))
    folder = store.folder(Job(recipe).key)
    added = folder / "state-20.safetensors"
    added.write_bytes(added.read_bytes()[:-1] + b"?")
    assert set(store.lookup(Job(recipe, keep=(10,))).states) == {10, 40}
    run, trained = get_or_compute(store, Job(recipe, keep=(20,)))
    assert trained
    assert same_tensors(run.at(20), train(Job(recipe, keep=(20,))).at(20))
    assert (folder / "manifest-2.json").exists()
    assert not list(store.root.glob("*/*damaged*"))


KILLS = """
import os, random, signal, sys, time
from conftest import small_recipe
from lotto import Job, Store
from lotto.execution.compute import get_or_compute
import torch
torch.set_num_threads(1)
store, recipe = Store(os.environ["STORE"]), small_recipe(model="mlp-256-256", steps="30it")
get_or_compute(store, Job(recipe))
random.seed(0)
added = 0
for number in range(60):
    child = os.fork()
    if not child:
        for step in range(1, 30):
            get_or_compute(store, Job(recipe, keep=(step,)))
        os._exit(0)
    time.sleep(random.uniform(0.0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    run = store.lookup(Job(recipe))
    assert run is not None, f"lost after kill {number}"
    assert len(run.states) > added
    added = len(run.states) - 1
    [run.at(step) for step in run.states]
print(added, [p.name for p in store.root.glob("*/*damaged*")])
"""


@pytest.mark.extras
def test_kills_while_a_run_is_extended_lose_nothing(tmp_path):
    environment = {**os.environ, "STORE": str(tmp_path / "killed"), "PYTHONPATH": PATHS}
    done = subprocess.run([sys.executable, "-c", KILLS], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    added, damaged = done.stdout.split(" ", 1)
    assert int(added) > 0
    assert damaged.strip() == "[]"


def test_two_workers_extend_one_run_side_by_side(store, caplog):
    recipe = small_recipe()
    jobs = [Job(recipe, keep=(step,)) for step in range(1, 27)]
    runs = Processes(store, 2).run(jobs)
    expected = train(Job(recipe, keep=tuple(range(1, 27))))
    for step, run in enumerate(runs, start=1):
        assert same_tensors(run.at(step), expected.at(step))
    assert not list(store.root.glob("*/*damaged*"))
    assert "damaged" not in caplog.text


def test_a_checkpoint_of_another_job_is_not_resumed_from(store, caplog):
    mine, other = Job(small_recipe(), 1), Job(small_recipe(), 2)
    points = []
    train(other, on_checkpoint=lambda point: points.append(copy.deepcopy(point)), checkpoint_seconds=0.0)
    store.write_checkpoint(other, points[20])
    store.folder(mine.key).mkdir(parents=True)
    shutil.copy(store.folder(other.key) / "checkpoint.safetensors", store.folder(mine.key))
    run, _ = get_or_compute(store, mine)
    assert same_tensors(run.weights, train(mine).weights)
    assert "that of another job" in caplog.text
    resumed, _ = get_or_compute(store, other)
    assert same_tensors(resumed.weights, train(other).weights)


def test_a_state_of_another_job_is_not_handed_out_but_computed_again(store, caplog):
    one, other = Job(small_recipe(), 1), Job(small_recipe(), 2)
    run = get_or_compute(store, one)[0]
    get_or_compute(store, other)
    shutil.copy(store.folder(other.key) / "state-40.safetensors", store.folder(one.key))
    assert same_tensors(run.weights, train(one).weights)
    assert "is a state of another job" in caplog.text


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_refusal_to_read_is_no_damage(store, monkeypatch, number):
    job = Job(small_recipe())
    get_or_compute(store, job)
    with monkeypatch.context() as patch:
        patch.setattr(files, "checksum", lambda path: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
        with pytest.raises(StorageError, match=re.escape(os.strerror(number))):
            get_or_compute(store, job)
    assert not get_or_compute(store, job)[1], "nothing was lost"


def test_equal_tensors_and_metadata_give_equal_files(tmp_path):
    tensors = {f"t{i}": torch.full((3, i + 1), float(i)) for i in range(9)}
    metadata = {f"key {i}": str(i) for i in range(40)} | {"format": "lotto.state"}
    first, *others = (
        files.save_tensors(
            tmp_path / f"{i}.safetensors", tensors, dict(reversed(metadata.items())) if i % 2 else metadata
        )
        for i in range(6)
    )
    assert set(others) == {first}
    read, about = files.load_tensors(tmp_path / "3.safetensors", "lotto.state")
    assert same_tensors(read, tensors)
    assert about == metadata


def test_trainings_in_threads_have_the_bits_of_trainings_one_by_one(store):
    jobs = [Job(small_recipe(model=Drawing, init="module"), seed, seed) for seed in range(4)]
    expected = [train(job) for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda job: get_or_compute(store, job)[0], jobs))
    for run, other in zip(found, expected, strict=True):
        assert same_tensors(run.weights, other.weights)
