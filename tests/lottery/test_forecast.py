"""What a plan comes to, said beforehand, against what is then trained, stored and timed."""

from __future__ import annotations

import shutil

import pytest

import lotto
from conftest import small_recipe
from lotto.cli.main import main
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.lottery.forecast import forecast, trainings_of
from lotto.lottery.plan import make_plan
from lotto.report.forecast import forecast_lines
from lotto.training.job import Job


@pytest.fixture
def engine(store):
    return Serial(store)


def wide(**changes):
    return small_recipe(model="mlp-200-100", steps="12it", **changes)


PLANS = [
    {"levels": 3},
    {"levels": 2, "rewind_to": "5it", "controls": ("random",), "control_levels": (2,)},
    {"levels": 2, "rewind_to": "5it", "controls": (), "restart_dense": True},
    {"levels": 1, "rewind_to": "5it", "controls": (), "restart_dense": True, "rewind_optimizer": True},
    {"levels": 2, "rewind_to": "5it", "particles": 2},
    {"levels": 2, "after": "reinit"},
    {"densities": (0.5, 0.2), "rewind_to": "3it", "after": "lr"},
]


@pytest.mark.parametrize("options", PLANS)
def test_all_that_is_trained_was_said_before(options, engine):
    recipe, jobs = wide(), []
    plan = make_plan(recipe, replicates=2, **options)
    before = forecast(plan, engine)
    assert before.remembered == 0
    assert not any(engine.store.root.glob("??/*"))
    lotto.imp(recipe, replicates=2, engine=engine, progress=lambda e: jobs.append(e) if _is_run(e) else None, **options)
    said = sorted((t.steps, t.states) for t in 2 * trainings_of(plan))
    assert sorted((e.job.end - e.job.from_step, len(e.job.steps)) for e in jobs) == said
    assert before.trainings == len(jobs)
    stored = sum(path.stat().st_size for e in jobs for path in engine.store.folder(e.job.key).iterdir())
    assert before.size == pytest.approx(stored, rel=0.05)
    after = forecast(plan, engine)
    assert (after.remembered, after.size, after.seconds) == (before.trainings, 0, 0)
    assert "nothing is left to train" in "\n".join(forecast_lines(after))


def _is_run(event):
    return isinstance(event, JobFinished) and isinstance(event.job, Job)


def test_what_is_remembered_is_what_comes_before_the_first_training_that_is_missing(engine):
    recipe = wide()
    result = lotto.imp(recipe, levels=3, replicates=2, controls=("random",), engine=engine)
    plan = make_plan(recipe, levels=3, replicates=2, controls=("random",))
    shutil.rmtree(engine.store.folder(result.replicates[1][2].run.key))
    found = forecast(plan, engine)
    assert (found.trainings, found.remembered) == (14, 7 + 2)
    left = trainings_of(plan)[2:]
    assert found.seconds == pytest.approx(sum(t.steps for t in left) * found.step_seconds)


def test_the_pace_is_that_of_stored_runs_of_the_recipe_whatever_their_seeds(engine):
    recipe = wide()
    runs = [lotto.train(recipe, init_seed=seed, order_seed=seed, engine=engine) for seed in (50, 51)]
    lotto.train(wide(batch_size=10), engine=engine)  # another recipe, which says nothing
    found = forecast(make_plan(recipe, levels=2, replicates=1, controls=()), engine)
    seconds = [round(run.seconds, 3) for run in runs]
    assert found.source == "2 stored runs"
    assert found.step_seconds == pytest.approx(sum(seconds) / (2 * recipe.total))
    assert found.remembered == 0


def test_a_pace_that_nobody_knows_is_measured(engine):
    found = forecast(make_plan(wide(), levels=1), engine)
    assert found.source == "a few steps, without evaluations"
    assert 0 < found.step_seconds < 1


class Many(Serial):
    """An engine that says it has eight workers."""

    def __init__(self, store):
        super().__init__(store)
        self.workers = 8


def test_levels_wait_for_each_other_however_many_workers_there_are(store):
    recipe = wide()
    found = forecast(make_plan(recipe, levels=4, replicates=2, controls=("reinit",), rewind_to="4it"), Many(store))
    chain = 12 + 4 * 8 + 12  # the dense training, four levels of the last 8 steps, a control
    assert found.seconds == pytest.approx(chain * found.step_seconds)


def test_adaptive_pruning_says_what_a_training_takes(engine):
    found = forecast(make_plan(wide(), adaptive=True, density=0.1, controls=(), replicates=2), engine)
    assert found.trainings is None
    lines = "\n".join(forecast_lines(found))
    assert "chosen by trial, down to 10 %" in lines
    assert "for each training" in lines


def test_the_command_says_it_and_trains_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOTTO_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    main(["imp", "mlp-mnist1d", "--steps", "20it", "--densities", "0.5,0.25,0.1", "--replicates", "2", "--dry-run"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Explicit(densities=(0.5, 0.25, 0.1)), 3 levels" in out
    assert "Densities 100 %, 50 %, 25 %, 10 % Trainings 20 (2 replicates of 10, 6 of these controls), 0 of them" in out
    assert "Time about " in out
    assert "Store about " in out
    assert not (tmp_path / "lotto-results").exists()
    assert not any((tmp_path / "store").glob("??/*"))


def test_the_command_takes_a_cubic_schedule(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOTTO_STORE", str(tmp_path / "store"))
    main(["imp", "mlp-mnist1d", "--steps", "20it", "--schedule", "cubic", "--density", "0.1", "--levels", "2",
          "--dry-run"])  # fmt: skip
    assert "Densities 100 %, 21.2 %, 10 %" in " ".join(capsys.readouterr().out.split())
