"""Ray: workers that see the store and workers that do not, killed ones, and what is said when there is no cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.assignment import Assignment
from lotto.execution.engine import JobAdvanced, JobFinished
from lotto.execution.parcel import Place
from lotto.execution.ray import PROBE, Ray, compute_task
from lotto.training.loop import train

pytest.importorskip("ray")
pytestmark = pytest.mark.extras


class Elsewhere(Ray):
    """Its workers do not see the store: nothing in it says that it is this one."""

    @property
    def scratch(self):
        scratch = super().scratch
        (scratch.folder / PROBE).unlink(missing_ok=True)
        return scratch


def test_workers_that_do_not_see_the_store_send_their_runs_back(tmp_path):
    jobs = [Job(small_recipe(), init_seed=seed, keep=(3,)) for seed in range(3)]
    engine = Elsewhere(Store(tmp_path / "store"), workers=2)
    runs = engine.run(jobs)
    for job, run in zip(jobs, runs, strict=True):
        whole = train(job)
        assert same_tensors(run.weights, whole.weights)
        assert same_tensors(run.at(3), whole.at(3))
        assert engine.store.lookup(job).history == whole.history
    events: list = []
    engine.run(jobs, events.append)
    assert [e.trained for e in events if isinstance(e, JobFinished)] == [False] * 3
    more = [Job(small_recipe(), init_seed=seed, keep=(3, 7)) for seed in range(3)]
    (first, *_) = engine.run(more)
    assert same_tensors(first.at(7), train(more[0]).at(7))
    assert first.at(3) is not None, "beside what was there"


def test_data_travel_only_to_those_who_need_them(tmp_path):
    engine = Elsewhere(Store(tmp_path / "store"), workers=1)
    assignment = Assignment([Job(small_recipe())], engine, lambda *_: None)
    parcel, place = assignment.parcel(), Place(str(engine.store.root), str(engine.scratch.folder))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert compute_task(parcel, place, 1, [], ()) == (b"", b"", True)
        (engine.scratch.folder / PROBE).write_text(engine.scratch.folder.name)
        answer, packed, needs = compute_task(parcel, place, 1, [], ())
    finally:
        signal.signal(signal.SIGTERM, before)
        engine._end()
    assert (packed, needs) == (b"", False)
    assert assignment.open(answer).results[0][0]


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path):
    job = Job(small_recipe(steps="6000it", evaluations=1))
    store, killed = Store(tmp_path / "store"), []

    def kill(event):
        if isinstance(event, JobAdvanced) and not killed:
            mine = [p for p in children() if b"ray::compute_task" in p.read_bytes()]
            for path in mine:
                killed.append(int(path.parent.name))
                os.kill(killed[-1], signal.SIGKILL)

    (run,) = Ray(store, workers=1).run([job], kill)
    assert killed, "a worker was at work"
    assert same_tensors(run.weights, train(job).weights)


def children() -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            path.read_bytes()
        except OSError:
            continue
        found.append(path)
    return found


def test_the_process_stays_as_it_was(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    environment, hook = dict(os.environ), sys.breakpointhook
    Ray(Store(tmp_path / "store"), workers=1).run([Job(small_recipe(steps="3it"))])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert sys.breakpointhook is hook
    for name in ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "CUDA_VISIBLE_DEVICES"):
        assert os.environ.get(name) == environment.get(name)


def test_threads_are_those_that_were_asked_for(tmp_path):
    engine = Ray(Store(tmp_path / "store"), workers=1, threads=2)
    (run,) = engine.run([Job(small_recipe(steps="3it"))])
    manifest = engine.store.entries.read(run.key, lambda _, manifest: manifest)
    assert manifest["execution"]["computed_with"]["threads"] == 2


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="gpus_per_job is a number of GPUs"):
        Ray(Store(tmp_path), gpus_per_job=-1)
    with pytest.raises(UsageError, match="has no option 'address'; it has none"):
        lotto.engine.make(2, Store(tmp_path), backend="processes", address="auto")
    engine = Ray(Store(tmp_path / "store"), workers=1, gpus_per_job=64)
    with pytest.raises(UsageError, match=r"wants 64 of a GPU, and the cluster has \d+"):
        engine.run([Job(small_recipe(steps="3it"))])


def test_an_unreachable_cluster_is_said_with_what_to_type(tmp_path):
    program = (
        "import lotto\n"
        f"store = lotto.Store({str(tmp_path / 'store')!r})\n"
        "recipe = lotto.recipes.get('mlp-mnist1d', model='mlp-8', steps='3it')\n"
        "lotto.train(recipe, engine=lotto.engine.make(1, store, backend='ray', address='127.0.0.1:1'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode
    assert "No Ray cluster answers at '127.0.0.1:1'" in done.stderr
    assert "ray start --head" in done.stderr


def test_the_command(tmp_path, capsys):
    out, store = str(tmp_path / "out"), str(tmp_path / "store")
    how = ["--levels", "1", "--replicates", "2", "--controls", "none", "--backend", "ray"]
    main(["imp", "mlp-mnist1d", "--steps", "40it", *how, "--store", store, "--out", out])
    assert "computed" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()
