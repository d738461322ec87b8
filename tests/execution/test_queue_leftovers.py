"""What a queue's processes have left goes, and nothing that a living one needs: each with one of these beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.execution import admin, queue_leftovers
from lotto.execution.assignment import Assignment
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobAdvanced
from lotto.execution.parcel import Answer
from lotto.execution.pilot import Pilot
from lotto.execution.queue import Queue
from lotto.execution.queue_folder import FOLDERS, QueueFolder, new_worker
from lotto.training.loop import train

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(Path(lotto.__file__).parents[1])])
LONG = small_recipe(steps="4000it", evaluations=1)
ASKING = """
import sys
import lotto
from conftest import small_recipe
from lotto.execution.queue import Queue
Queue(lotto.Store(sys.argv[1])).run([lotto.Job(small_recipe(steps="8it"))])
"""


@pytest.fixture
def asking(store: Store) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has asked for something and waits for it."""
    process = subprocess.Popen([sys.executable, "-c", ASKING, str(store.root)], env={**os.environ, "PYTHONPATH": PATHS})
    queue, end = QueueFolder(store.root), time.monotonic() + 60
    while not [name for path in queue.folder("asking").glob("[0-9a-f]*") for name in queue.asked_by(path.name)]:
        assert time.monotonic() < end
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def age(queue: QueueFolder, *kinds: str) -> None:
    """Make all look as if it had been written yesterday."""
    yesterday = time.time() - 86400
    for kind in kinds:
        for path in queue.folder(kind).rglob("*"):
            os.utime(path, (yesterday, yesterday))


def held(queue: QueueFolder) -> dict[str, int]:
    return {name: len(found) for name in FOLDERS if (found := [*queue.folder(name).iterdir()])}


def why(store: Store, **how: bool) -> list[str]:
    return sorted(each.why for each in admin.collect(store, **how))


def test_what_a_living_process_waits_for_stays_and_goes_when_it_is_killed(store, asking, monkeypatch):
    queue = QueueFolder(store.root)
    before = held(queue)
    assert before == {"waiting": 1, "data": 1, "asking": 1}
    age(queue, "waiting", "data")
    assert why(store, unfinished=True) == []
    assert held(queue) == before
    asking.send_signal(signal.SIGSTOP)  # so that it does not take what is there for it
    (waiting,) = queue.folder("waiting").iterdir()
    waiting.rename(queue.folder("done") / waiting.name.partition("-")[2])
    age(queue, "done")
    assert why(store, unfinished=True) == [], "its answer, its data"
    asking.kill()
    asking.wait()
    assert why(store) == [], "it may only be paused"
    age(queue, "asking")
    found = [queue_leftovers.SIGN, queue_leftovers.ANSWER, queue_leftovers.DATA]
    assert why(store, dry_run=True) == sorted([queue_leftovers.SIGN, queue_leftovers.ANSWER, queue_leftovers.DATA])
    assert why(store) == sorted(found)
    assert held(queue) == {}


def test_parcels_that_nobody_asks_for_go_only_if_it_is_said(store, asking, capsys):
    queue = QueueFolder(store.root)
    asking.kill()
    asking.wait()
    age(queue, "waiting", "data", "asking")
    assert why(store) == [queue_leftovers.SIGN]
    assert held(queue) == {"waiting": 1, "data": 1}, "a worker may compute it, from these data"
    main(["store", "gc", "--unfinished", "--store", str(store.root)])
    assert held(queue) == {}
    assert "a parcel that nobody asks for" in capsys.readouterr().out


@pytest.mark.extras
def test_a_worker_at_work_is_not_disturbed(store):
    """Everything but the signs of life looks old, and is collected again and again while a worker computes."""
    command = [sys.executable, "-m", "lotto", "work", str(store.root), "--idle-timeout", "30s"]
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATHS})
    queue, times = QueueFolder(store.root), []

    def collect(event: object) -> None:
        waiting = {path.name.partition("-")[2] for path in queue.folder("waiting").iterdir()}
        named = {name for path in queue.folder("asking").iterdir() for name in queue.asked_by(path.name)}
        if isinstance(event, JobAdvanced) and waiting <= named:  # none is young: who asks names all within seconds
            age(queue, "waiting", "running", "work", "data", "done")
            times.append(admin.collect(store, older_than=0.0, unfinished=True))

    try:
        runs = Queue(store).run([Job(LONG, init_seed=seed) for seed in range(2)], collect)
    finally:
        worker.kill()
        worker.wait()
    assert times
    assert not any(times)
    for seed, run in enumerate(runs):
        assert same_tensors(run.weights, train(Job(LONG, init_seed=seed)).weights)


def test_work_that_was_cut_off_stays_with_its_checkpoint_until_it_is_finished(store):
    job, queue = Job(small_recipe(steps="8it")), QueueFolder(store.root)
    work = Store(queue.folder("work") / ("0" * 32) / "0")

    def stop(step: int, loss: float) -> None:
        if step >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_compute(work, job, on_step=stop, checkpoint_seconds=0.0)
    age(queue, "work")
    os.utime(queue.folder("work") / ("0" * 32), (0, 0))
    assert why(store) == []
    assert why(store, unfinished=True, dry_run=True) == [queue_leftovers.CUT_OFF]
    queue.put("0" * 32, b"parcel")
    assert why(store, unfinished=True) == [], "somebody wants it again"
    queue.withdraw("0" * 32)
    get_or_compute(store, job)
    assert why(store) == [queue_leftovers.WORK]
    assert held(queue) == {}


def test_what_is_asked_for_while_it_goes_is_put_back(store, monkeypatch):
    queue, engine = QueueFolder(store.root), Queue(store)
    engine.submit(Assignment([Job(small_recipe(steps="8it"))], engine, lambda *_: None))
    engine.close()
    (data,) = queue.folder("data").iterdir()
    age(queue, "data")
    real = os.rename

    def rename(old, new):
        real(old, new)
        if Path(old) == data:
            queue.ask("f" * 16, 0, [])

    monkeypatch.setattr(queue_leftovers.os, "rename", rename)
    assert why(store) == []
    assert data.exists()


def test_the_queue_goes_on_after_its_data_are_gone(store):
    job = Job(small_recipe(steps="8it"))
    engine, queue = Queue(store), QueueFolder(store.root)
    engine.submit(Assignment([job], engine, lambda *_: None))
    engine.close()
    age(queue, "data")
    queue.beat(worker := new_worker(), 3)
    assert why(store) == [queue_leftovers.DATA]
    assert held(queue) == {"workers": 1}, "which says that it lives"
    age(queue, "workers")
    assert why(store) == [queue_leftovers.SIGN]
    assert queue.beat_of(worker) == ""
    engine.submit(Assignment([job], engine, lambda *_: None))
    assert Pilot(store.root, idle=0.0).work() == 1
    ((_, reply),) = engine.collect(lambda: None)
    assert isinstance(reply, bytes | Answer)
    engine.close()


def test_where_there_is_no_queue_none_is_made(store):
    store.root.mkdir()
    assert admin.collect(store, unfinished=True) == []
    assert not (store.root / "queue").exists()
