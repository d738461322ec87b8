"""The queue: workers that are started by hand, killed, paused; whoever asks may go and come back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.core.errors import UsageError, WorkerError
from lotto.execution.engine import JobAdvanced, JobFinished
from lotto.execution.pilot import Pilot
from lotto.execution.queue import Queue
from lotto.execution.queue_folder import Leases, QueueFolder, new_worker
from lotto.landscape import PathTask
from lotto.training.loop import train

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(TESTS / "execution"), str(Path(lotto.__file__).parents[1])])
LONG = small_recipe(steps="4000it", evaluations=1)


@pytest.fixture
def started(store: Store) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts workers of the store's queue; at the end they are killed."""
    processes = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lotto", "work", str(store.root), "--lease", "1s", *options]
        processes.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATHS}))
        return processes[-1]

    yield start
    for process in processes:
        with_signal(process, signal.SIGKILL)
        process.wait()


def with_signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def in_thread(store: Store, idle: float = 30.0) -> threading.Thread:
    """A worker in this process."""
    thread = threading.Thread(target=Pilot(store.root, lease=1.0, idle=idle, beat_seconds=0.2).work, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


@pytest.mark.extras
def test_the_same_bits_and_remembered(store, started):
    started("--idle-timeout", "60s"), started("--idle-timeout", "60s")
    jobs = [Job(small_recipe(), init_seed=seed, keep=(3,)) for seed in range(4)]
    path = PathTask(small_recipe(), small_recipe().initial(0), small_recipe().initial(1), 3)
    events: list = []
    *runs, outcome = Queue(store).run([*jobs, path], events.append)
    for job, run in zip(jobs, runs, strict=True):
        assert same_tensors(run.weights, train(job).weights)
        assert same_tensors(run.at(3), train(job).at(3))
    assert outcome == path.execute()
    assert [e.trained for e in events if isinstance(e, JobFinished)] == [True] * 5
    events.clear()
    Queue(store).run(jobs, events.append)
    assert [e.trained for e in events if isinstance(e, JobFinished)] == [False] * 4
    queue = QueueFolder(store.root)
    left = [path for name in ("waiting", "running", "done", "work") for path in queue.folder(name).iterdir()]
    assert not left


@pytest.mark.extras
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_over_a_job_is_followed_by_another(store, started, number):
    worker, ended = started(), []

    def end(event):
        if isinstance(event, JobAdvanced) and not ended:
            ended.append(event.step)
            with_signal(worker, number)
            worker.wait()
            started("--idle-timeout", "60s")

    (run,) = Queue(store).run([Job(LONG, keep=(100,))], end)
    assert ended
    assert same_tensors(run.weights, train(Job(LONG)).weights)


@pytest.mark.extras
def test_a_paused_worker_loses_its_job_and_overwrites_nothing_when_it_wakes_up(store, started):
    worker, other = started(), []

    def pause(event):
        if isinstance(event, JobAdvanced) and not other:
            with_signal(worker, signal.SIGSTOP)
            other.append(started("--idle-timeout", "90s"))

    (run,) = Queue(store).run([Job(LONG)], pause)
    assert other, "it was paused"
    folder = store.folder(run.key)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    with_signal(worker, signal.SIGCONT)
    (again,) = Queue(store).run([Job(LONG, init_seed=1)])
    with_signal(worker, signal.SIGTERM)
    assert worker.wait(60) in (143, -signal.SIGTERM), "it lives, and has found that its job is not its own"
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    assert same_tensors(run.weights, train(Job(LONG)).weights)
    assert same_tensors(again.weights, train(Job(LONG, init_seed=1)).weights)


@pytest.mark.extras
def test_whoever_comes_back_finds_what_is_worked_on(store):
    """The one who asks is killed; the worker goes on; the next who asks gets the same answer."""
    program = (
        "from lotto.execution.queue import Queue\nfrom conftest import small_recipe\nimport lotto, sys\n"
        "Queue(lotto.Store(sys.argv[1])).run([lotto.Job(small_recipe(steps='4000it', evaluations=1))])\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", program, str(store.root)], env={**os.environ, "PYTHONPATH": PATHS})
    queue = QueueFolder(store.root)
    until(lambda: list(queue.folder("waiting").glob("0*")))
    asking.kill()
    asking.wait()
    in_thread(store)
    until(queue.holders)
    events: list = []
    (run,) = Queue(store).run([Job(LONG)], events.append)
    assert same_tensors(run.weights, train(Job(LONG)).weights)


@pytest.mark.extras
def test_what_is_withdrawn_stops_and_goes_on_from_there(store, started, monkeypatch):
    monkeypatch.setattr("lotto.execution.compute.CHECKPOINT_SECONDS", 0.0)
    started("--idle-timeout", "90s")

    def stop(event):
        if isinstance(event, JobAdvanced) and event.step > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Queue(store).run([Job(LONG)], stop)
    queue = QueueFolder(store.root)
    assert not [p for name in ("waiting", "running") for p in queue.folder(name).iterdir()]
    (run,) = Queue(store).run([Job(LONG)])
    assert same_tensors(run.weights, train(Job(LONG)).weights)


def test_errors_travel_and_deadly_jobs_end(store):
    in_thread(store)
    recipe = small_recipe(steps="3it")
    job = Job(recipe)
    object.__setattr__(recipe, "batch_size", "wrong")  # behind the checks of the recipe
    with pytest.raises(Exception) as raised:
        Queue(store).run([job])
    assert not isinstance(raised.value, WorkerError), "the error is the job's own"
    queue = QueueFolder(store.root)
    engine = Queue(store)
    engine.submit(lotto.execution.assignment.Assignment([Job(small_recipe(steps="5it"))], engine, lambda *_: None))
    (name,) = engine._busy
    # So many have died over it.
    for path in [*queue.folder("waiting").iterdir()]:
        os.rename(path, queue.folder("running") / f"{name}~2~{new_worker()}")
    ((_, reply),) = engine.collect(lambda: None)
    engine._end()
    assert isinstance(reply, WorkerError)


def test_leases_are_measured_by_whoever_waits(store, monkeypatch):
    queue, now = QueueFolder(store.root), [0.0]
    monkeypatch.setattr("lotto.execution.queue_folder.time.monotonic", lambda: now[0])
    queue.put("0" * 32, b"parcel")
    worker = new_worker()
    claim = queue.claim(worker)
    assert claim.held
    assert queue.claim(new_worker()) is None
    queue.beat(worker, 0)
    os.utime(queue.folder("workers") / worker, (4e9, 4e9))  # a clock that is decades ahead
    leases = Leases(queue, 60.0)
    assert leases.run_out() == []
    now[0] = 59.0
    queue.beat(worker, 1)
    os.utime(queue.folder("workers") / worker, (0, 0))
    assert leases.run_out() == []
    now[0] = 118.0
    assert leases.run_out() == []
    now[0] = 120.0
    assert leases.run_out() == [worker]
    other = queue.take_over(worker, new_worker())
    assert (other.turn, other.held, claim.held) == (1, True, False)
    assert queue.take_over(worker, new_worker()) is None
    assert not queue.finish(claim, b"late")
    assert queue.answer("0" * 32) is None
    assert queue.finish(other, b"answer")
    assert queue.answer("0" * 32) == b"answer"


def test_of_many_that_claim_each_parcel_goes_to_one(store):
    queue = QueueFolder(store.root)
    names = [f"{i:032x}" for i in range(60)]
    for name in names:
        queue.put(name, b"")
    got: list[str] = []

    def claim():
        worker = new_worker()
        while (claimed := queue.claim(worker)) is not None:
            got.append(claimed.name)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == names


def test_what_is_there_and_what_is_not_is_said(store, caplog, monkeypatch):
    monkeypatch.setattr("lotto.execution.queue.PATIENCE_SECONDS", 0.2)
    late = threading.Timer(1.5, lambda: in_thread(store, idle=5.0))
    late.start()
    Queue(store).run([Job(small_recipe(steps="3it"))])
    late.join()
    assert f"Start workers: lotto work {store.root}" in caplog.text
    os.chmod(store.root / "queue", 0o777)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(UsageError, match="others can write to it"):
        QueueFolder(store.root)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--gpus", "99"], "99 GPUs are wanted, and torch sees"),
        (["--lease", "soon"], "A duration is a number of seconds"),
        (["--idle-timeout", "-3"], "A duration is a number of seconds|idle"),
        (["--threads", "0"], "threads is a whole number from 1"),
    ],
)
def test_bad_input(store, capsys, options, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["work", str(store.root), *options])
    assert stopped.value.code == 2
    assert re.search(sentence, " ".join(capsys.readouterr().err.split()))
