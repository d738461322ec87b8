"""Benchmarks compare what they say they compare."""

from __future__ import annotations

import statistics
import time

import pandas as pd
import pytest
import torch
from loky import ProcessPoolExecutor
from rich.console import Console

import lotto
from conftest import small_recipe
from lotto.benchmarks import BENCHMARKS, commands, loaders, overheads, run_benchmarks
from lotto.benchmarks.baselines import power_iterations
from lotto.benchmarks.costs import costs_figure
from lotto.benchmarks.harness import Benchmark, measure
from lotto.benchmarks.memory import _peaks
from lotto.core.errors import UsageError
from lotto.execution.autotune import steps_of
from lotto.training.loop import learner_of


def test_ratios_are_turn_by_turn(monkeypatch):
    order, clock = [], [0.0]
    monkeypatch.setattr("lotto.benchmarks.harness.time.perf_counter", lambda: clock[0])

    def contender(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds * len(order)  # the machine gets slower

        return run

    benchmark = Benchmark("t", {"a": contender("a", 1.0), "b": contender("b", 10.0)}, [("a", "b", "≥ 2")])
    (row,) = measure("t", benchmark, 4)
    # Steps 3 to 10 are counted: b a, a b, b a, a b.
    ratios = [30 / 4, 60 / 5, 70 / 8, 100 / 9]
    assert row["ratio_min"] == pytest.approx(min(ratios))
    assert row["ratio"] == pytest.approx(statistics.median(ratios))
    assert row["ratio_max"] == pytest.approx(max(ratios))
    assert (row["what"], row["against"], row["repetitions"]) == ("a", "b", 4)
    assert order == ["a", "b", "b", "a"] * 2 + ["a", "b"], "one uncounted turn, and the first changes"


@pytest.mark.extras
def test_a_loader_is_read_whole_through_a_source_and_plainly(monkeypatch):
    for name, number in {"EXAMPLES": 256, "EPOCHS": 2, "BEGINNINGS": 3}.items():
        monkeypatch.setattr(loaders, name, number)
    benchmark = BENCHMARKS["data"]()
    assert [goal for *_, goal in benchmark.pairs] == ["≥ 0.9"] * 5 + ["–", "≥ 0.9"]
    for name, contender in benchmark.contenders.items():
        contender()  # which counts the examples
        if not name.startswith(("training", "3 first")):
            contender.batches = [*contender.batches][1:]
            with pytest.raises(AssertionError):
                contender()


@pytest.mark.extras
@pytest.mark.parametrize("name", ["again"])
def test_a_benchmark_runs(name):
    (row,) = measure(name, BENCHMARKS[name](), 1)
    assert row["ratio"] > 1


def test_a_whole_experiment_against_the_usual_loop(monkeypatch):
    seconds = iter([1.0, 2.0, 12.0, 3.0, 4.0])  # two epochs, the command, two epochs
    monkeypatch.setattr(commands, "usual", lambda *_: lambda: None)
    monkeypatch.setattr(commands, "timed", lambda _: next(seconds))
    (row,) = commands.paper(levels=2, replicates=2, epochs=3)
    assert (row["seconds"], row["seconds_against"]) == (2.0, 7.5)
    assert (row["ratio_min"], row["ratio"], row["ratio_max"]) == (1.5, 3.75, 6.0)


def test_kernels_and_torchs_layers_take_turns(monkeypatch):
    seconds, called = {"auto": 1.0, "dense": 3.0}, []

    def timed(chain):
        called.append(chain.args[0].arithmetic)
        return seconds[called[-1]]

    monkeypatch.setattr(commands, "image_recipe", lambda steps, **_: small_recipe(steps=f"{steps}it"))
    monkeypatch.setattr(commands, "timed", timed)
    (row,) = commands.levels_by_kernels(levels=3, steps=2)
    assert called == ["dense", "auto", "auto", "dense"]
    assert (row["ratio"], row["seconds"]) == (3.0, 1.0)
    monkeypatch.undo()
    commands._chain(small_recipe(steps="2it"), 1)


def test_the_figure_of_costs_is_drawn_from_the_rows(monkeypatch, tmp_path):
    wait = {"100% left": 0.0, "20% left": 0.0, "2% left": 0.0, "other": 0.0}
    contenders = {name: (lambda seconds=seconds: time.sleep(seconds)) for name, seconds in wait.items()}
    pairs = [(name, "100% left", "–") for name in ("20% left", "2% left", "other")]
    monkeypatch.setitem(BENCHMARKS, "sparse", lambda: Benchmark("A net, 3 steps", contenders, pairs))
    run_benchmarks(["sparse"], 1, Console(quiet=True), tmp_path / "costs.csv")
    drawn = (tmp_path / "costs.svg").read_text()
    assert "A net" in drawn
    assert "3 steps" not in drawn
    assert costs_figure([{"title": "t", "what": "other", "against": "100% left", "ratio": 2.0}]) is None


def test_the_baseline_of_lanczos_finds_the_same_eigenvalues():
    recipe = small_recipe(precision="float64")
    weights = lotto.train(small_recipe()).weights
    values = power_iterations(small_recipe(), weights, 3, 240)
    expected = lotto.landscape.curvature.top(
        recipe, {n: t.double() for n, t in weights.items()}, k=3, examples=240
    ).values
    assert values == pytest.approx(expected, rel=2e-3)


@pytest.mark.extras
def test_memory_is_what_the_steps_take():
    base, peak = _peaks(small_recipe(), 1)
    assert 10 < base <= peak
    with ProcessPoolExecutor(1) as worker:
        before, wide = worker.submit(_peaks, small_recipe(model="mlp-2048-2048"), 1).result()
    weights = sum(t.numel() * t.element_size() for t in small_recipe(model="mlp-2048-2048").initial(0).values())
    assert wide - before > weights / 2**20, "at least weights and gradients"


def test_single_and_stacked_learners_take_steps():
    recipe = small_recipe(model="mlp-4")
    jobs = [lotto.Job(recipe, seed) for seed in range(2)]
    for chosen in (jobs[:1], jobs):
        steps_of(learner_of(chosen))(3)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("name", ["processes", "queue"])
def test_what_an_engine_costs_is_measured_for_each_job(name):
    row = overheads._measured(name, 2, 40)
    assert 0 < row["milliseconds"] < 5000
    assert (row["what"], row["workers"], row["goal"]) == (name, 2, f"≤ {overheads.GOALS[name]:g}")
    assert overheads.scheduler_table([row]).row_count == 1


def test_a_count_belongs_to_what_is_counted():
    with pytest.raises(UsageError, match="count is 1 or more, and of scheduler"):
        run_benchmarks(["again"], 1, Console(quiet=True), count=3)


def test_rows_are_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(
        BENCHMARKS, "again", lambda: Benchmark("t", {"a": lambda: None, "b": lambda: None}, [("a", "b", "–")])
    )
    frame = run_benchmarks(["again"], 1, Console(quiet=True), tmp_path / "rows.csv")
    assert list(frame["what"]) == ["a"]
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 1


def test_a_whole_command_begins_from_nothing(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(commands, "imp", lambda recipe, levels, **given: calls.append((levels, given)))
    commands._imp(small_recipe(), 16, 8)
    ((levels, given),) = calls
    assert (levels, given["replicates"], given["controls"]) == (16, 8, ())
    assert not given["store"].root.exists()
