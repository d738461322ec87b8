"""A training that diverges is a row that says so: the others go on, and nothing is claimed of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.core.errors import DivergedError
from lotto.execution import compute
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.execution.store import Store
from lotto.experiments.results import grouped, read
from lotto.lottery.plan import make_plan
from lotto.report.experiments import readable, save_experiment
from lotto.report.metric import Metric
from lotto.report.save import load_result, save_result
from lotto.report.table import columns
from lotto.training.job import Job
from lotto.training.loop import train, train_stack

ROOT = small_recipe()


@pytest.fixture
def diverging(monkeypatch):
    """Trainings whose label holds one of these texts diverge at step 30."""
    chosen: list[str] = []

    def maybe(job, **how):
        if any(text in job.label for text in chosen):
            raise DivergedError(f"The loss of {job.label} became nan at step 30 (learning rate 0.1).", 30)
        return train(job, **how)

    monkeypatch.setattr(compute, "train", maybe)
    return chosen


def table_of(result):
    return result.table().set_index("level")


def test_a_control_that_diverges_is_a_cell_that_says_so(diverging, store, tmp_path):
    clean = lotto.imp(ROOT, levels=2, replicates=2, engine=Serial(Store(tmp_path / "clean")))
    diverging += ["level 2 · reinit"]
    result = lotto.imp(ROOT, levels=2, replicates=2, engine=Serial(store))
    found, expected = table_of(result), table_of(clean)
    assert math.isnan(found["reinit"][2])
    assert found["reinit"][1] == expected["reinit"][1]
    for column in ("error", "matching", "random", "dense_error", "density", "diverged"):
        pd.testing.assert_series_equal(found[column], expected[column])
    where = [line.split(":")[0] for line in result.diverged]
    assert where == ["Replicate 1, level 2, reinit", "Replicate 2, level 2, reinit"]
    assert result.runs_table()["diverged"].str.contains("became nan at step 30").sum() == 2
    save_result(result, tmp_path / "out", "a command", 1.0)
    assert "became nan at step 30" in (tmp_path / "out" / "report.html").read_text()


def test_a_replicate_that_diverges_ends_there_and_its_level_does_not_match(diverging, store, tmp_path, caplog):
    recipe = ROOT.replace(tolerance=100.0)  # all else matches
    clean = lotto.imp(recipe, levels=3, replicates=3, controls=(), engine=Serial(Store(tmp_path / "clean")))
    diverging += ["replicate 2 · level 2"]
    result = lotto.imp(recipe, levels=3, replicates=3, controls=(), engine=Serial(store))
    assert [len(levels) for levels in result.replicates] == [4, 3, 4]
    found = table_of(result)
    assert list(found["matching"]) == [True, True, False, False]
    assert list(found["diverged"]) == [0, 0, 1, 1]
    assert list(found["n"]) == [3, 3, 2, 2]
    both = [[clean.replicates[r][level].run.test_error for r in (0, 2)] for level in (2, 3)]
    assert list(found["error"][2:]) == [np.mean(errors) for errors in both]
    assert result.sparsest_matching().info["level"] == 1
    assert "Replicate 2 ends at level 2, which diverged." in caplog.messages
    cells = dict(columns(result.table(), Metric.of(ROOT)))
    assert cells["diverged"] == ["", "", "1", "1"]
    paths = save_result(result, tmp_path / "out", "a command", 1.0)
    assert load_result(tmp_path / "out")["diverged"] == result.diverged
    assert paths["ticket"].exists()
    assert "Level(2, 63.9 % left, diverged)" in repr(result.replicates[1])
    assert "sparsest matching: level 1" in repr(result)


def test_the_second_time_nothing_is_trained(diverging, store):
    diverging += ["replicate 1 · level 1"]
    first = lotto.imp(ROOT, levels=2, replicates=2, controls=(), engine=Serial(store))
    diverging.clear()
    events: list = []
    again = lotto.imp(ROOT, levels=2, replicates=2, controls=(), engine=Serial(store), progress=events.append)
    assert not any(e.trained for e in events if isinstance(e, JobFinished))
    pd.testing.assert_frame_equal(first.table(), again.table())
    assert again.diverged == first.diverged


def test_a_dense_network_that_diverges_leaves_the_other_replicates(diverging, store, tmp_path):
    diverging += ["replicate 1 · dense"]
    for given in ({"levels": 2}, {"density": 0.3, "adaptive": True}, {"levels": 2, "particles": 2}):
        result = lotto.imp(ROOT, replicates=2, engine=Serial(store), **given)
        found = table_of(result)
        assert found["dense_error"][0] == result.replicates[1][0].run.test_error
        assert list(found["matching"]) == [True] + [False] * (len(found) - 1)
        assert len(result.replicates[0]) == 1
        assert result.sparsest_matching().info["replicate"] == 1
        save_result(result, tmp_path / str(len(given)), "a command", 1.0)
    with pytest.raises(DivergedError, match="became nan at step 30"):
        lotto.imp(ROOT, levels=1, replicates=1, engine=Serial(store))


def test_particles_and_adaptive_trials_that_diverge(diverging, store):
    diverging += ["level 1 · 80.0% · particle 2", "level 1 · 79.9% · particle 2"]
    result = lotto.imp(ROOT, levels=2, replicates=1, particles=2, controls=(), engine=Serial(store))
    assert [len(levels) for levels in result.replicates] == [2]
    assert not table_of(result)["matching"][1]
    diverging[:] = ["level 1"]
    result = lotto.imp(ROOT, density=0.2, replicates=2, adaptive=True, controls=(), engine=Serial(store))
    assert not any(trial.kept for trial in result.trials)


def test_what_really_diverges_alone_in_a_stack_and_in_workers(tmp_path):
    bad = {n: t * 1e30 if t.is_floating_point() else t for n, t in ROOT.initial(0).items()}
    recipe = ROOT.replace(precision="float32")
    jobs = [Job(recipe, label="good"), Job(recipe, start=lotto.State(bad), label="bad"), Job(recipe, 2, label="better")]

    def procedure():
        return (yield jobs)

    expected = train_stack([jobs[0]])[0].test_error
    for name, engine in (
        ("serial", Serial(Store(tmp_path / "a"))),
        ("stack", Serial(Store(tmp_path / "b"), stack=3)),
        ("workers", lotto.engine.make(2, Store(tmp_path / "c"))),
    ):
        good, ended, better = engine.run_procedures([procedure()])[0]
        assert good.test_error == pytest.approx(expected), name
        assert better.diverged == ""
        assert ended.diverged
        assert math.isnan(ended.test_error)
        assert repr(ended).startswith("Run(steps 0 to 40, diverged='The ")
        with pytest.raises(DivergedError):
            _ = ended.weights
        with pytest.raises(DivergedError):
            engine.run(jobs)
    with pytest.raises(DivergedError):
        lotto.train(recipe, start=bad, store=tmp_path / "d")


def test_weights_that_are_no_numbers_at_the_end_are_a_divergence():
    recipe = ROOT.replace(steps="1it", optimizer=lotto.SGD(1e38), schedule=lotto.Constant(), evaluations=1)
    start = {n: t * 1e10 for n, t in recipe.initial(0).items()}  # a finite loss, and an infinite step from there
    with pytest.raises(DivergedError, match=r"not finite at the end, step 1\. Try a lower learning rate"):
        train(Job(recipe, start=lotto.State(start)))


def test_measures_of_stability_are_nan_where_a_copy_diverged(diverging, store, tmp_path):
    diverging += ["order 2"]
    mask = lotto.pruning.prune(ROOT.initial(0), lotto.pruning.masks.ones(ROOT), rate=0.5)
    land, seeds = lotto.landscape, (1, 2, 3)
    clean = Serial(Store(tmp_path / "clean"))
    found = land.instability(ROOT, "5it", mask, seeds, points=3, engine=Serial(store))
    values = found.barrier().values
    assert [math.isnan(v) for v in values] == [True, False, True]
    assert [math.isnan(v) for v in found.barrier(baseline="line").values] == [True, False, True]
    assert [math.isnan(v) for v in found.errors] == [False, True, False]
    assert (found.barrier().diverged, found.barrier().mean, found.barrier().max) == (2, values[1], values[1])
    assert not found.stable
    whole = land.instability(ROOT, "5it", mask, (1, 3), points=3, engine=clean)
    assert whole.barrier().values == (values[1],)
    order = land.stability_to_data_order(ROOT, mask, "5it", seeds, engine=Serial(store))
    assert [math.isnan(v) for v in order.l2.values] == [True, False, True]
    pruning = land.stability_to_pruning(ROOT, mask, "5it", seeds, engine=Serial(store))
    assert [math.isnan(v) for v in pruning.angle.values] == [False, True, False]


@pytest.mark.parametrize("name", ["stabilizing.distances", "stabilizing.sparsity", "stabilizing.instability"])
def test_experiments_have_rows_that_say_so(name, diverging, store, tmp_path):
    diverging += ["replicate 2 · dense", "replicate 1 · level 2 · random"]
    experiment = papers.get(name)
    options = experiment.options(ROOT, {"replicates": 3, "levels": 2, "rewind_to": ("0it",)})
    frame = experiment.run(options, Serial(store))
    lost = frame[frame["measure"] == "diverged"]
    assert list(lost["replicate"]) in ([1], [])
    assert frame[frame["value"].isna()]["note"].notna().all()
    assert frame[frame["replicate"] == 2]["value"].notna().all()
    assert any("diverged" in str(cell) for cell in readable(frame).to_numpy().flat)
    save_experiment(experiment, options, frame, tmp_path, "a command", 1.0, [experiment])
    (group,) = grouped(read(tmp_path))
    assert group.frame["value"].notna().all()
    diverging[:] = [" "]
    with pytest.raises(DivergedError):
        experiment.run(options, Serial(Store(tmp_path / "all")))


def test_a_plan_counts_as_before():
    assert make_plan(ROOT, 2, replicates=1).jobs == 7
