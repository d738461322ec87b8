"""Work that is too short for workers: computed in the process itself, and in workers after all where it is not short."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.execution import schedule
from lotto.execution.engine import JobFinished
from lotto.execution.factory import make
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.landscape.path import PathTask


class Worker:
    """In the place of a process."""

    def submit(self, function, parcel):
        future = Future()
        future.set_result(function(parcel))
        return future

    def shutdown(self, **how):
        pass


@pytest.fixture
def started(monkeypatch):
    """The workers that were started; they compute here."""
    found = []
    monkeypatch.setattr(Processes, "_new_worker", lambda engine: found.append(Worker()) or found[-1])
    return found


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("lotto.execution.factory.available_cores", lambda: 2)
    made = make(store=Store(tmp_path / "auto"))
    assert made.short_seconds == 2
    made.short_seconds = 100  # this machine may have more to do
    return made


def computed_by(engine, job):
    return json.loads((engine.store.folder(job.key) / "manifest.json").read_text())["execution"]["engine"]


def test_a_second_of_work_starts_no_worker_and_gives_the_bits_of_workers(started, engine, tmp_path):
    jobs = [Job(small_recipe(), seed, keep=(3,)) for seed in range(4)]
    events = []
    here = engine.run(jobs, events.append)
    assert not started
    assert [computed_by(engine, job) for job in jobs] == ["serial"] * 4
    assert [event.trained for event in events if isinstance(event, JobFinished)] == [True] * 4
    other = Processes(Store(tmp_path / "workers"), 2)
    there = other.run(jobs)
    assert len(started) == 2
    assert computed_by(other, jobs[0]) == "processes"
    for one, two in zip(here, there, strict=True):
        assert same_tensors(one.weights, two.weights)
        assert same_tensors(one.at(3), two.at(3))
        assert one.history == two.history


def test_what_is_remembered_starts_no_worker(started, engine, monkeypatch):
    recipe = small_recipe(steps="3it")
    Serial(engine.store).run([Job(recipe, seed) for seed in range(2)])
    monkeypatch.setattr(schedule, "check_trainable", lambda recipe, parts: 1e9)
    engine.run([Job(recipe, seed) for seed in range(2)])
    assert not started


@pytest.mark.parametrize(("seconds", "expected"), [(20, None), (5, 6)], ids=["long jobs", "many jobs"])
def test_more_work_goes_to_workers_at_once(seconds, expected, started, engine, monkeypatch):
    """4 steps each: two trainings of 80 s, or six of 20 s of which the engine knows that they are."""
    monkeypatch.setattr(schedule, "check_trainable", lambda recipe, parts: seconds)
    recipe = small_recipe(steps="4it")

    def procedure():
        yield [Job(recipe, 0), Job(recipe, 1)]

    engine.run_procedures([procedure()], expected=expected)
    assert len(started) == 2
    started.clear()
    monkeypatch.setattr(schedule, "check_trainable", lambda recipe, parts: 5)
    engine.run([Job(small_recipe(steps="4it"), seed) for seed in (2, 3)])
    assert not started, "and a run after it is short again"


def test_what_turns_out_to_be_long_begins_anew_in_a_worker(started, engine, monkeypatch):
    monkeypatch.setattr(schedule, "check_trainable", lambda recipe, parts: 0.0)
    engine.short_seconds = 1e-9
    job = Job(small_recipe(steps="400it"))
    (run,) = engine.run([job])
    assert len(started) == 1
    assert computed_by(engine, job) == "processes"
    assert same_tensors(run.weights, lotto.training.train(job).weights)


def test_many_short_jobs_that_together_are_long_go_to_workers(started, engine, monkeypatch):
    monkeypatch.setattr(schedule, "check_trainable", lambda recipe, parts: 0.0)
    engine.short_seconds = 1e-9
    jobs = [Job(small_recipe(steps="1it"), seed) for seed in range(3)]
    engine.run(jobs)
    assert [computed_by(engine, job) for job in jobs] == ["serial", "serial", "processes"], "two were taken at first"


def test_how_long_a_task_takes_nobody_knows(started, engine):
    recipe = small_recipe()
    engine.run([PathTask(recipe, recipe.initial(0), recipe.initial(1), 3)])
    assert len(started) == 1


def test_workers_that_are_asked_for_are_used(started, tmp_path):
    for number, engine in enumerate((make(2, Store(tmp_path)), make(store=Store(tmp_path), backend="processes"))):
        engine.run([Job(small_recipe(steps="2it"), number)])
        assert len(started) == number + 1


def test_an_error_here_is_the_job_s_own(started, engine):
    recipe = small_recipe(optimizer=lotto.SGD(1e9), schedule=lotto.Constant(), steps="300it")
    with pytest.raises(lotto.core.errors.DivergedError, match="Try a lower learning rate"):
        engine.run([Job(recipe)])
    assert not started
    engine.run([Job(small_recipe(steps="2it"))])
    assert not started
