"""The contract of an engine: what goes on where it was cut off, what travels, and engines that do not hold it."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import piped
import pytest
import torch
from backends import ALL, ENGINES, REMOTE
from torch import nn

from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto import engine as engines
from lotto.core.errors import UsageError, WorkerError
from lotto.execution.assignment import Assignment
from lotto.execution.compute import get_or_compute
from lotto.execution.engine import JobAdvanced, JobFinished
from lotto.execution.parcel import Answer
from lotto.execution.worker import compute_parcel
from lotto.landscape.path import PathTask
from lotto.training.loop import train


def test_an_engine_of_another_package_is_short_and_uses_what_is_public():
    text = Path(piped.__file__).read_text()
    (source,) = re.findall(r"^class Piped.*", text, re.MULTILINE | re.DOTALL)
    assert len([line for line in source.splitlines() if line]) <= 45
    assert re.findall(r".*\blotto\b.*import.*", text) == ["from lotto import engine"]
    assert set(re.findall(r"(?<!\.)\bengine\.(\w+)", text)) <= set(engines.__all__)
    assert not re.findall(r"(?:assignment|engine|self)\._\w+", text)


@pytest.mark.parametrize("backend", ALL)
def test_a_training_goes_on_where_it_was_cut_off(tmp_path, backend):
    job, store = Job(small_recipe(steps="400it"), keep=(300,)), Store(tmp_path / "store")

    def stop(step, loss):
        if step >= 300:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        get_or_compute(store, job, on_step=stop, checkpoint_seconds=0)
    events: list = []
    (run,) = ENGINES[backend](store).run([job], events.append)
    assert [e.trained for e in events if isinstance(e, JobFinished)] == [True]
    assert all(e.step >= 250 for e in events if isinstance(e, JobAdvanced)), "not from the start"
    expected = train(job)
    assert same_tensors(run.weights, expected.weights)
    assert same_tensors(run.at(300), expected.at(300))


@pytest.mark.parametrize("backend", ALL)
def test_what_is_not_remembered_and_tasks_come_back_whole(tmp_path, backend):
    recipe = small_recipe(steps="5it")
    namespace = {"nn": nn}
    exec("def local(): return nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 6))", namespace)
    unnamed = Job(small_recipe(model=namespace["local"], init="module", steps="5it"), keep=(2,))
    task = PathTask(recipe, recipe.initial(0), recipe.initial(1), 3)
    assert unnamed.key is None
    run, outcome = ENGINES[backend](Store(tmp_path)).run([unnamed, task])
    expected = train(unnamed)
    assert same_tensors(run.weights, expected.weights)
    assert same_tensors(run.at(2), expected.at(2))
    assert outcome == task.execute()


@pytest.mark.parametrize("backend", REMOTE)
def test_workers_compute_with_the_settings_of_this_process(tmp_path, backend):
    before = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    job, store = Job(small_recipe(steps="2it")), Store(tmp_path)
    torch.set_deterministic_debug_mode("warn")
    torch.set_float32_matmul_precision("high")
    try:
        ENGINES[backend](store).run([job])
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.set_float32_matmul_precision(before[1])
    with_what = json.loads((store.folder(job.key) / "manifest.json").read_text())["execution"]["computed_with"]
    assert with_what["deterministic"] is True
    assert with_what["matmul"] == "high"
    assert with_what["threads"] == 1


@pytest.mark.parametrize("backend", REMOTE)
def test_workers_round_convolutions_as_this_process_does(tmp_path, backend):
    conv = getattr(torch.backends.mkldnn, "conv", None)
    if not hasattr(conv, "fp32_precision"):
        pytest.skip("this torch has no such switch")
    job, store = Job(small_recipe(steps="2it")), Store(tmp_path)
    conv.fp32_precision = "tf32"
    try:
        ENGINES[backend](store).run([job])
    finally:
        conv.fp32_precision = "none"
    with_what = json.loads((store.folder(job.key) / "manifest.json").read_text())["execution"]["computed_with"]
    assert with_what["convolutions"] == "tf32"


def test_a_parcel_sets_what_this_process_had_and_puts_it_back(store):
    engine = ENGINES["serial"](store)
    assignment = Assignment([Job(small_recipe(steps="2it"))], engine, lambda *at: None)
    parcel = assignment.parcel()
    torch.set_num_threads(2)  # whatever started this process has its own ideas, as Ray has
    answer = assignment.open(compute_parcel(parcel))
    assert torch.get_num_threads() == 2
    assert [trained for trained, _ in answer.results] == [True]
    manifest = json.loads((store.folder(assignment.jobs[0].key) / "manifest.json").read_text())
    assert manifest["execution"]["computed_with"]["threads"] == 1
    engine.scratch.close()


# --- engines that do not hold it ----------------------------------------------------------------------


class Careless(engines.Engine):
    """Gives back what a function makes of what it was given, one after the other."""

    def __init__(self, store, wrong, workers=2):
        super().__init__(store, workers=workers)
        self.wrong, self.given, self.closed = wrong, [], 0

    def submit(self, assignment):
        self.given.append(assignment)

    def collect(self, report):
        return self.wrong(self)

    def close(self):
        self.closed += 1


def first_only(engine):
    """The second job is never seen again."""
    done = engine.given[:1]
    engine.given = engine.given[:1] if len(engine.given) > 1 else []
    return [(each, each.compute()) for each in done] if engine.given else []


def in_turn(engine):
    first = engine.given.pop(0)
    return [(first, first.compute())]


def swapped(engine):
    one, two = engine.given
    return [(one, two.compute()), (two, one.compute())]


def twice(engine):
    return 2 * [(engine.given[0], engine.given[0].compute())]


def unknown(engine):
    other = Assignment(engine.given[0].jobs, engine, lambda *at: None)
    return [(other, other.compute())]


def died_always(engine):
    return [(engine.given.pop(0), WorkerError("gone"))]


WRONG = {
    "loses all": (lambda engine: [], "'careless' has lost 'one', 'two': submitted, and collect"),
    "loses one": (first_only, "'careless' has lost 'two': submitted, and collect"),
    "returns nothing": (lambda engine: None, "'careless' has lost 'one', 'two'"),
    "twice": (twice, "'careless' gave 'one' back twice"),
    "unknown": (unknown, "'careless' gave 'one' back and was not given it in this run"),
    "no assignment": (lambda engine: [("one", b"")], "'careless' collected 'one'; it gives back the assignments"),
    "no reply": (lambda engine: [(engine.given[0], 3)], "'careless' gave 3 back for 'one'; a reply is what"),
    "damaged": (lambda engine: [(engine.given[0], b"??")], "'careless' gave b'..' back for 'one'; a reply is what"),
    "another's": (swapped, "'careless' gave the answer of another job back for 'one'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_engine_that_loses_or_confuses_jobs_is_refused_in_a_sentence(name, store):
    wrong, said = WRONG[name]
    engine = Careless(store, wrong)
    recipe = small_recipe(steps="2it")
    jobs = [Job(recipe, seed, label=label) for seed, label in enumerate(("one", "two"))]
    with pytest.raises(UsageError, match=re.escape(said).replace(r"b'\.\.'", r"b'\?\?'")) as raised:
        engine.run(jobs)
    assert "\n" not in str(raised.value)
    assert engine.closed == 1
    if name == "loses one":
        assert store.lookup(jobs[0]) is not None, "what was finished is kept"
    engine.wrong, engine.given = in_turn, []
    assert len(engine.run(jobs)) == 2, "and it can be used again"


def test_an_engine_whose_workers_always_die_ends(store):
    with pytest.raises(WorkerError, match="died twice while training 'one'") as raised:
        Careless(store, died_always, workers=1).run([Job(small_recipe(steps="2it"), label="one")])
    assert str(raised.value.__cause__) == "gone"


def test_an_engine_that_computes_all_at_once_gets_no_more_than_it_has_places(store):
    most = []

    def all_at_once(engine):
        given, engine.given = engine.given, []
        most.append(len(given))
        return [(each, each.compute()) for each in given]

    assert len(Careless(store, all_at_once).run([Job(small_recipe(steps="1it"), seed) for seed in range(5)])) == 5
    assert most == [2, 2, 1]


def test_an_answer_that_is_short_is_no_answer(store):
    engine = Careless(store, lambda engine: [(engine.given[0], Answer(engine.given[0].number))])
    with pytest.raises(UsageError, match="a reply is what"):
        engine.run([Job(small_recipe(steps="1it"))])
