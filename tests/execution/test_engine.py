"""Engines: the same runs whichever way, workers that die, Ctrl-C, the user's own code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import ALL, ENGINES, RAY, REMOTE
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store, execution
from lotto.core.errors import UsageError, WorkerError
from lotto.execution.engine import JobAdvanced, JobFinished, JobStarted
from lotto.execution.factory import make
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.training.loop import train

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(TESTS / "execution"), str(Path(lotto.__file__).parents[1])])


@pytest.mark.parametrize("backend", ["serial", "processes", "piped", RAY])
def test_every_engine_gives_the_same_bits_and_remembers(tmp_path, backend):
    jobs = [Job(small_recipe(), init_seed=s, keep=(3,)) for s in range(3)]
    serial = [train(job) for job in jobs]
    events: list = []
    engine = ENGINES[backend](Store(tmp_path / "b"), 2)
    parallel = engine.run(jobs, events.append)
    for one, other in zip(serial, parallel, strict=True):
        assert same_tensors(one.weights, other.weights)
        assert same_tensors(one.at(3), other.at(3))
        assert one.history == other.history
    assert sum(isinstance(e, JobStarted) for e in events) == 3
    assert [e.trained for e in events if isinstance(e, JobFinished)] == [True] * 3
    manifest = json.loads((engine.store.folder(jobs[0].key) / "manifest.json").read_text())
    assert manifest["execution"]["engine"] == backend
    assert manifest["execution"]["threads"] == 1
    events.clear()
    engine.run(jobs, events.append)
    assert [(type(e), e.trained) for e in events] == [(JobFinished, False)] * 3


def test_equal_jobs_are_trained_once(store):
    events: list = []
    recipe = small_recipe(steps="3it")
    runs = Serial(store).run([Job(recipe), Job(recipe, label="again"), Job(recipe, init_seed=1)], events.append)
    assert sum(isinstance(e, JobStarted) for e in events) == 2
    assert runs[0] is runs[1]


def test_procedures_advance_as_their_own_jobs_finish(store):
    recipe = small_recipe(steps="2it")
    order: list = []

    def procedure(name, length):
        total = 0.0
        for i in range(length):
            (run,) = yield [Job(recipe, init_seed=100 * length + i)]
            order.append((name, i))
            total += run.test_error
        assert (yield []) == []
        return name, total

    results = Serial(store).run_procedures([procedure("long", 3), procedure("short", 1)])
    assert [name for name, _ in results] == ["long", "short"]
    assert order == [("long", 0), ("short", 0), ("long", 1), ("long", 2)]


@pytest.mark.parametrize("backend", ALL)
def test_progress_reports_steps(store, backend):
    events: list = []
    ENGINES[backend](store).run([Job(small_recipe(steps="3000it"))], events.append)
    steps = [e.step for e in events if isinstance(e, JobAdvanced)]
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert steps[-1] == 3000


def test_make_chooses_and_refuses():
    assert isinstance(make(1), Serial)
    assert isinstance(make("3"), Processes)
    assert isinstance(make(1, backend="processes"), Processes)
    assert isinstance(make(backend="serial"), Serial)
    for bad in (0, "many", -1, "1.5"):
        with pytest.raises(UsageError, match="'auto' or a whole number from 1"):
            make(bad)
    with pytest.raises(UsageError, match="threads is a whole number"):
        make(1, threads=0)
    with pytest.raises(UsageError, match=r"The engine 'serial' trains in this process, with jobs=1; got jobs=2\."):
        make(2, backend="serial")
    with pytest.raises(
        UsageError,
        match=r"Unknown engine 'proceses'. Choices: .*processes, queue, ray, serial, torchrun. Did you mean 'proc",
    ):
        make(2, backend="proceses")
    for other in ("lotto.recipe.presets:get", "lotto.execution.factory:OURS"):
        with pytest.raises(UsageError, match=r"A backend is a subclass of lotto.engine.Engine; 'lotto"):
            make(2, backend=other)


def test_a_file_is_all_that_an_engine_of_ours_takes(tmp_path, monkeypatch, store):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "another.py").write_text("from lotto.execution.serial import Serial\nclass Another(Serial): pass\n")
    monkeypatch.setattr(execution, "__path__", [*execution.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "lotto.execution.another", raising=False)
    engine = make(1, store, backend="another")
    assert type(engine).__name__ == "Another"
    assert engine.run([Job(small_recipe(steps="2it"))])[0].steps == (0, 2)
    with pytest.raises(UsageError, match=r"Choices: another, processes, queue, ray, serial"):
        make(1, backend="anothe")
    sys.modules.pop("lotto.execution.another", None)


@pytest.mark.parametrize("backend", REMOTE)
def test_workers_take_functions_and_arrays_that_only_this_process_has(tmp_path, backend):
    width = 9
    x = np.random.default_rng(0).integers(0, 255, (30, 1, 4, 4)).astype(np.uint8)
    data = lotto.data.Arrays(x, np.arange(30) % 3, x, np.arange(30) % 3)

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, width)
            self.out = nn.Linear(width, 3)

        def forward(self, x):
            return self.out(self.fc(x.flatten(1)).relu())

    recipe = small_recipe(model=Local, data=data, init="module", batch_size=10, steps="6it")
    jobs = [Job(recipe, init_seed=s, keep=(2,)) for s in range(2)]
    remote = ENGINES[backend](Store(tmp_path / "s")).run(jobs)
    local = Serial(Store(tmp_path / "t")).run(jobs)
    for one, other in zip(remote, local, strict=True):
        assert one.key == other.key is not None
        assert same_tensors(one.weights, other.weights)
        assert same_tensors(one.at(2), other.at(2))
    assert recipe.data is data


class Counting(nn.Module):
    """A layer that does something at its fifth training step."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 6)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 5:
            self.at_five()
        return self.fc(x)


class Deadly(Counting):
    """Kills its process the first time it is trained there, as often as a file says."""

    def at_five(self):
        lives = Path(os.environ["LOTTO_TEST_LIVES"])
        if left := int(lives.read_text()):
            lives.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("backend", REMOTE)
def test_a_worker_that_dies_is_reported_and_its_job_is_run_once_more(tmp_path, monkeypatch, caplog, backend):
    lives = tmp_path / "lives"
    monkeypatch.setenv("LOTTO_TEST_LIVES", str(lives))
    recipe = small_recipe(model=Deadly, init="module", steps="8it")
    lives.write_text("0")
    expected = Serial(Store(tmp_path / "a")).run([Job(recipe)])[0]
    lives.write_text("1")
    run = ENGINES[backend](Store(tmp_path / "b")).run([Job(recipe)])[0]
    assert "A worker process died; its job is run once more." in caplog.text
    assert lives.read_text() == "0"
    assert same_tensors(run.weights, expected.weights)

    lives.write_text("2")
    with pytest.raises(WorkerError, match="died twice while training 'doomed'"):
        ENGINES[backend](Store(tmp_path / "c")).run([Job(recipe, label="doomed")])


@pytest.mark.parametrize("backend", ALL)
def test_a_diverged_training_is_an_error_that_says_so(tmp_path, backend):
    recipe = small_recipe(optimizer=lotto.SGD(1e9), schedule=lotto.Constant(), steps="300it")
    with pytest.raises(lotto.core.errors.DivergedError, match="Try a lower learning rate"):
        ENGINES[backend](Store(tmp_path / "s")).run([Job(recipe)])


class OwnError(Exception):
    """An error of the user's."""


class TravelsBadly(Exception):
    """An error that can be pickled and not unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Failing(Counting):
    """Fails after some steps, with an error that a class attribute says."""

    kind = OwnError, ("own words",)

    def at_five(self):
        raise self.kind[0](*self.kind[1])


class FailingBadly(Failing):
    kind = TravelsBadly, (1, 2)


@pytest.mark.parametrize("backend", ALL)
def test_an_error_of_a_job_comes_back_as_itself(tmp_path, backend):
    jobs = [Job(small_recipe(model=Failing, init="module"), seed) for seed in range(2)]
    with pytest.raises(OwnError, match="own words") as raised:
        ENGINES[backend](Store(tmp_path / "s")).run(jobs)
    where = raised.value.__cause__ if backend in REMOTE else None
    assert where is None or "in forward" in str(where)


@pytest.mark.parametrize("backend", REMOTE)
def test_an_error_that_cannot_travel_comes_back_as_its_text(tmp_path, backend):
    with pytest.raises(WorkerError, match="A worker raised TravelsBadly: '1 and 2'"):
        ENGINES[backend](Store(tmp_path / "s")).run([Job(small_recipe(model=FailingBadly, init="module"))])


ORPHANED = """
import os
from conftest import small_recipe
from lotto import Job, Store
from lotto.engine import make, JobStarted
jobs = [Job(small_recipe(steps="900000it"), init_seed=s) for s in range(2)]
def tell(event):
    print(type(event).__name__, flush=True)
make(2, Store(os.environ["STORE"]), backend=os.environ["BACKEND"]).run(jobs, tell)
"""
BACKENDS = ["processes", pytest.param("piped:Piped", marks=pytest.mark.extras)]


def test_a_worker_that_starts_after_its_parent_was_killed_leaves():
    code = (
        "import time\nfrom lotto.core.orphans import start_worker\n"
        "start_worker(999_999_999, 'lotto.execution.worker', 1)\ntime.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_workers_leave_when_their_parent_is_killed(tmp_path, backend):
    environment = {**os.environ, "PYTHONPATH": PATHS, "STORE": str(tmp_path / "s"), "BACKEND": backend}
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANED], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if line.strip() == "JobAdvanced":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    check_gone(process.pid)


def check_gone(group: int) -> None:
    """Nothing of a process group goes on for more than a moment."""
    deadline = time.monotonic() + 5
    while subprocess.run(["pgrep", "-g", str(group)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.2)


@pytest.mark.parametrize("backend", REMOTE)
def test_a_job_that_a_worker_cannot_read_is_told_at_once(tmp_path, backend, monkeypatch):
    monkeypatch.setenv("LOTTO_TEST_READER", str(os.getpid()))
    recipe = small_recipe(model=Unreadable(), init="module")
    with pytest.raises(WorkerError, match="cannot read its job: no such module here"):
        ENGINES[backend](Store(tmp_path / "s")).run([Job(recipe)])


@pytest.mark.parametrize("backend", REMOTE)
def test_a_job_that_cannot_be_sent_is_told_before_a_worker_starts(tmp_path, backend):
    recipe = small_recipe(model=Unsendable(), init="module")
    with pytest.raises(UsageError, match=r"'small' cannot be sent to a worker process \(TypeError: 'mine'\); train"):
        ENGINES[backend](Store(tmp_path / "s")).run([Job(recipe)])


class Unsendable:
    """A model builder that cannot be pickled."""

    def __call__(self):
        return nn.Linear(12, 6)

    def __reduce__(self):
        raise TypeError("mine")


class Unreadable:
    """A model builder that can be pickled and not unpickled."""

    def __call__(self):
        return nn.Linear(12, 6)

    def __reduce__(self):
        return _fail, ()


def _fail():
    if os.environ["LOTTO_TEST_READER"] != str(os.getpid()):
        raise ImportError("no such module here")
    return Unreadable()


INTERRUPTED = """
import os, sys
from conftest import small_recipe
import lotto
from lotto import Job, Store
from lotto.engine import make, JobFinished
jobs = [Job(small_recipe(steps="50it"))] + [Job(small_recipe(steps="60000it"), init_seed=s) for s in range(4)]
def tell(event):
    if isinstance(event, JobFinished):
        print("finished", flush=True)
try:
    make("auto", Store(os.environ["STORE"]), backend=sys.argv[1]).run(jobs, tell)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("backend", [pytest.param("serial", marks=pytest.mark.extras), *BACKENDS])
def test_ctrl_c_stops_cleanly_and_keeps_what_was_finished(tmp_path, backend):
    environment = {**os.environ, "PYTHONPATH": PATHS, "STORE": str(tmp_path / "s")}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, backend],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pytest may run where it is ignored
    )
    assert process.stdout.readline().strip() == "finished"
    time.sleep(0.5)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    out, err = process.communicate(timeout=60)
    assert out.strip() == "stopped", err
    assert time.monotonic() - began < 20
    assert "Traceback" not in err
    check_gone(process.pid)
    store = Store(tmp_path / "s")
    assert store.lookup(Job(small_recipe(steps="50it"))) is not None
    assert store.lookup(Job(small_recipe(steps="60000it"))) is None
    assert not list(store.root.rglob("*.tmp"))


def test_threads_are_limited_and_put_back(store):
    torch.set_num_threads(2)
    seen = []
    Serial(store, 1).run([Job(small_recipe(steps="3it"))], lambda e: seen.append(torch.get_num_threads()))
    assert 1 in seen
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_kept_and_not_faulted_in_again():
    script = """
import resource, sys
import numpy
from lotto.execution.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    for _ in range(10):
        parts = [numpy.ones(4_000_000, "float32") for _ in range(3)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
"""
    # Fixed thresholds: left to itself, glibc moves them as blocks are freed, and the heap's layout decides.
    fixed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", script, mode], env=fixed, capture_output=True, check=True).stdout)
        for mode in ("keep", "plain")
    )
    assert kept < 100 < given_back
