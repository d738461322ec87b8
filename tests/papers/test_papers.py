"""Experiments of the papers: rows against the measures by hand, files, report, command line."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.experiments import case as case_module
from lotto.experiments.case import Case, lost_in_last_quarter
from lotto.experiments.experiment import summary
from lotto.landscape.curvature import convergence
from lotto.papers.unmasking import pruning_limit
from lotto.pruning import masks
from lotto.pruning.density import MAX_LEVELS
from lotto.report.experiments import readable, save_experiment, write_experiments
from lotto.training.job import Run
from lotto.training.mistakes import Mistakes


@pytest.fixture(autouse=True)
def _few_products(monkeypatch):
    """Two probes of 48 steps, which are too few for some fractions; tests of the theory take more."""
    monkeypatch.setattr(convergence, "PROBED", 1)
    monkeypatch.setattr(convergence, "EXACT", 0)
    monkeypatch.setattr(pruning_limit, "STEPS", 48)


OPTIONS = {"replicates": 2, "levels": 2, "points": 3, "orders": 2, "random_chain": False, "rewind_to": ("5it",)}


def options(**changes):
    return papers.Options(**{"recipe": small_recipe(), **OPTIONS, **changes})


def test_distances_rows_are_the_measures(store):
    engine = Serial(store)
    chosen = options()
    frame = papers.get("stabilizing.distances").run(chosen, engine)
    result = lotto.imp(
        chosen.recipe, levels=2, rewind_to="5it", replicates=2, controls=("random",), control_levels=[2], engine=engine
    )
    for replicate, chain in enumerate(result.replicates):
        at = chain[2]
        start = chain[0].run.state(5).without_optimizer
        orders = Case(chosen, 5, replicate).order_seeds(2)
        assert orders[0] == replicate
        kinds = {"imp": at.mask, "random": masks.random_like(at.mask, replicate * MAX_LEVELS + 2)}
        for kind, mask in kinds.items():
            for measure, function, of in (
                ("data order", lotto.landscape.stability_to_data_order, orders),
                ("pruning", lotto.landscape.stability_to_pruning, orders[1:]),  # the first has made the mask
            ):
                found = function(chosen.recipe, mask, "5it", of, start=start, engine=engine)
                rows = frame[(frame.replicate == replicate) & (frame.kind == kind) & (frame.measure == measure)]
                assert tuple(rows[rows.unit == "L2"].value) == found.l2.values
                assert tuple(rows[rows.unit == "degrees"].value) == found.angle.values
                assert set(rows["sample"]) == ({0} if measure == "data order" else {1})
        errors = frame[(frame.replicate == replicate) & (frame.measure == "error")]
        assert errors[errors.kind == "imp"].value.iloc[0] == at.run.test_error
        assert errors[errors.kind == "random"].value.iloc[0] == at.controls["random"].test_error
        assert errors[errors.kind == "dense"].value.iloc[0] == chain[0].run.test_error


def test_instability_rows_are_the_measure(store):
    engine = Serial(store)
    chosen = options(rewind_to=("0it", "9it"), replicates=1)
    frame = papers.get("stabilizing.instability").run(chosen, engine)
    for k in (0, 9):
        found = lotto.landscape.instability(
            chosen.recipe, f"{k}it", order_seeds=Case(chosen, 5, 0).order_seeds(2), points=3, engine=engine
        )
        rows = frame[(frame.rewind_step == k) & (frame.measure == "test barrier, statistics interpolated")]
        assert tuple(rows[rows.unit == "points"].value) == found.barrier().values
        assert tuple(rows[rows.unit == "nats"].value) == found.barrier(what="loss").values
    assert not frame.measure.str.contains("recomputed").any(), "no BatchNorm in this model"


def test_three_data_orders_are_the_default_and_have_three_pairs(store):
    experiment = papers.get("stabilizing.distances")
    chosen = experiment.options(small_recipe(steps="8it"), {"replicates": 1, "levels": 1, "rewind_to": ("0it",)})
    assert experiment.own(chosen) == {"orders": 3}
    frame = experiment.run(chosen, Serial(store))
    imp = frame[(frame.kind == "imp") & (frame.unit == "L2")]
    assert list(imp[imp.measure == "data order"]["sample"]) == [0, 1, 2]
    assert list(imp[imp.measure == "pruning"]["sample"]) == [1, 2], "orders other than the mask's own"


def history(*points, examples=None):
    records = [{"step": step, "test_error": error} for step, error in points]
    if examples:
        records[:-1] = [{**record, "test_examples": examples} for record in records[:-1]]
    return records


def test_the_last_quarter_is_compared_on_the_same_examples(monkeypatch):
    recipe = small_recipe(steps="100it")

    def lost(records, wrong=None):
        mistakes = None if wrong is None else Mistakes.of(wrong)
        return lost_in_last_quarter(recipe, Run((0, 100), records, {}, mistakes=mistakes))

    assert lost(history((50, 9.0), (70, 4.0), (80, 3.0), (100, 2.5))) == (0.7, 1.5, recipe.arrays.size("test"))
    assert lost(history((50, 9.0), (100, 2.5))) is None, "half of the training is not three quarters"
    assert lost(history((100, 2.5))) is None
    # Of ten examples every fifth, two, are in the curve: both were wrong at three quarters, one is at the end.
    monkeypatch.setattr(case_module, "late_stride", lambda recipe, size: 5)
    wrong = [True] + 9 * [False]
    assert lost(history((75, 100.0), (100, 10.0), examples=2), wrong) == (0.75, 50.0, 2)
    assert lost(history((75, 100.0), (100, 10.0), examples=2)) is None


def test_level_0_restarted_at_k_is_a_training_of_its_own(store):
    engine = Serial(store)
    chosen = options(replicates=1)
    plain = papers.get("unmasking.connectivity").run(chosen, engine)
    frame = papers.get("unmasking.connectivity").run(options(replicates=1, restart_dense=True), engine)
    dense = lotto.train(chosen.recipe, init_seed=0, order_seed=0, keep=[5], engine=engine)
    again = lotto.train(chosen.recipe, start=dense.state(5).without_optimizer, order_seed=0, from_step=5, engine=engine)
    assert again.test_error != dense.test_error, "there is momentum"
    error = {"level": 0, "kind": "imp", "measure": "error"}
    assert rows_of(plain, **error) == (dense.test_error,)
    assert rows_of(frame, **error) == (again.test_error,)
    cut = lotto.pruning.prune(again.weights, masks.ones(chosen.recipe), chosen.recipe.pruning.rate)
    first = lotto.train(
        chosen.recipe, start=dense.state(5).without_optimizer, mask=cut, order_seed=0, from_step=5, engine=engine
    )
    assert rows_of(frame, level=1, kind="imp", measure="error") == (first.test_error,), "it is what is pruned"
    at_0 = [
        papers.get("unmasking.connectivity").run(options(replicates=1, rewind_to=("0it",), **more), engine)
        for more in ({}, {"restart_dense": True})
    ]
    pd.testing.assert_frame_equal(*at_0)


def rows_of(frame, **about):
    for column, value in about.items():
        frame = frame[frame[column] == value]
    return tuple(frame.value)


def test_sparsity_retraining_and_oneshot_rows_are_those_of_imp(store):
    engine = Serial(store)
    chosen = options(replicates=1)
    given = {"levels": 2, "rewind_to": "5it", "replicates": 1, "engine": engine}
    frame = papers.get("stabilizing.sparsity").run(chosen, engine)
    chain = lotto.imp(chosen.recipe, **given).replicates[0]
    for at in chain:
        assert rows_of(frame, level=at.level, kind="imp") == (at.run.test_error,)
        for control, run in at.controls.items():
            assert rows_of(frame, level=at.level, kind=control) == (run.test_error,)
    some = options(replicates=1, rewind_to=("0it", "5it"), control_steps=("5it",))
    frame = papers.get("stabilizing.sparsity").run(some, engine)
    assert not {"random", "reinit"} & {*frame[frame.rewind_step == 0].kind}
    assert {"random", "reinit"} < {*frame[frame.rewind_step == 5].kind}
    frame = papers.get("stabilizing.retraining").run(chosen, engine)
    for kind, after in (("lr rewinding", "lr"), ("fine-tuning", "finetune"), ("weight rewinding", "weights")):
        last = lotto.imp(chosen.recipe, controls=(), after=after, **given).replicates[0][2]
        assert rows_of(frame, level=2, kind=kind) == (last.run.test_error,)
    frame = papers.get("stabilizing.oneshot").run(chosen, engine)
    cut = lotto.imp(chosen.recipe, controls=(), one_shot=True, **given).replicates[0][1]
    assert rows_of(frame, kind="one-shot") == (cut.run.test_error,)
    assert rows_of(frame, kind="iterative") == (chain[2].run.test_error,)


def test_subnetworks_rows_are_instabilities(store):
    engine = Serial(store)
    chosen = options(replicates=1)
    frame = papers.get("stabilizing.subnetworks").run(chosen, engine)
    chain = lotto.imp(chosen.recipe, levels=2, rewind_to="5it", replicates=1, controls=(), engine=engine).replicates[0]
    start = chain[0].run.state(5).without_optimizer
    for at in chain[1:]:
        found = lotto.landscape.instability(
            chosen.recipe, "5it", at.mask, Case(chosen, 5, 0).order_seeds(2), start=start, points=3, engine=engine
        )
        rows = rows_of(
            frame, level=at.level, kind="imp", measure="test barrier, statistics interpolated", unit="points"
        )
        assert rows == found.barrier().values
    assert set(frame.kind) == {"dense", "imp", "random", "reinit"}
    last = papers.get("stabilizing.subnetworks").run(options(replicates=1, eval_levels=(2,)), engine)
    both = [f[f.level == 2].reset_index(drop=True) for f in (frame, last)]
    pd.testing.assert_frame_equal(*both)
    assert set(last.level) == {0, 2}


def test_levels_to_evaluate_exist():
    for level in (0, 3):
        with pytest.raises(lotto.core.errors.UsageError, match=f"levels 1 to 2 to look at; got {level}"):
            options(eval_levels=(level,))


def test_summary_is_the_spread_over_replicates():
    frame = pd.DataFrame(
        {"replicate": [0, 0, 1, 1], "kind": ["imp"] * 4, "sample": [0, 1, 0, 1], "value": [1.0, 3.0, 5.0, 9.0]}
    )
    (row,) = summary(frame, ["kind"]).to_dict("records")
    assert (row["mean"], row["n"]) == (4.5, 2)
    assert row["std"] == pytest.approx(np.std([2.0, 7.0], ddof=1))


def how_much_the_dense_networks_lost_in_their_last_quarter(frame, recipe, store):
    dense = [lotto.train(recipe, init_seed=r, order_seed=r, engine=Serial(store)) for r in (0, 1)]
    rows = frame[frame.measure == "error lost in the last quarter"].sort_values("replicate", kind="stable")
    lost = [r["test_error"] - run.test_error for run in dense for r in run.history if r["step"] == 15]
    assert rows.groupby("replicate")["value"].unique().map(list).tolist() == [[each] for each in lost]
    assert set(rows["x"]) == {0.75}
    assert set(rows["examples"]) == {recipe.arrays.size("test")}
    assert set(rows["kind"]) == {"dense"}


COSTLY = [f"unmasking.{name}" for name in ("membership", "projection", "robustness", "pruning_limit", "flatness")]
"""Those that take longest, whose rows and figures have tests in test_unmasking.py."""


@pytest.mark.parametrize(
    ("name", "rewinds"),
    [
        pytest.param(
            name,
            ("5it",) if name == "stabilizing.distances" else ("0it", "5it"),
            marks=pytest.mark.extras if name in COSTLY else (),
        )
        for name in papers.EXPERIMENTS
    ],
)
def test_files_and_report(store, tmp_path, name, rewinds, monkeypatch):
    monkeypatch.setattr(pruning_limit, "FRACTIONS", (0.5, 0.9))
    monkeypatch.setattr(pruning_limit, "LARGEST", 200)  # the exact model of the last level alone
    recipe = small_recipe(steps="20it", evaluations=4)
    experiment = papers.get(name)
    chosen = experiment.options(recipe, {**OPTIONS, "rewind_to": rewinds})
    frame = experiment.run(chosen, Serial(store))
    how_much_the_dense_networks_lost_in_their_last_quarter(frame, chosen.recipe, store)
    page = save_experiment(experiment, chosen, frame, tmp_path, "lotto run it", 1.5)
    saved = pd.read_csv(tmp_path / f"{experiment.name}.csv")
    assert np.allclose(saved.value, frame.value, equal_nan=True)
    text = page.read_text()
    assert text.count("<figure") == 1
    assert experiment.title in html.unescape(text)
    assert "lotto run it" in text
    assert not re.search(r"(src|href)=\"https?:", text)
    assert write_experiments(tmp_path, [experiment]).read_text() == text
    if name == "stabilizing.distances":
        table = readable(frame)
        line = table[(table.measure == "pruning") & (table.unit == "L2")].iloc[0]
        means = frame[(frame.measure == "pruning") & (frame.unit == "L2")].groupby("kind").value.mean()
        assert line["ratio"] == f"{means['random'] / means['imp']:.2f}×"


def test_a_ratio_to_nothing_is_not_shown():
    about = {"replicate": 0, "rewind_step": 0, "level": 1, "density": 0.5, "unit": "points", "sample": 0}
    rows = [
        {**about, "kind": kind, "measure": measure, "value": value}
        for measure, both in (("test barrier", (0.0, 3.0)), ("pruning", (2.0, 3.0)))
        for kind, value in zip(("imp", "random"), both, strict=True)
    ]
    assert list(readable(pd.DataFrame(rows))["ratio"]) == ["", "1.50×"]


def test_the_second_run_computes_nothing(store):
    events: list = []
    for _ in range(2):
        events.clear()
        papers.get("stabilizing.instability").run(options(), Serial(store), events.append)
    assert not any(getattr(e, "trained", False) for e in events)


def test_command_line(tmp_path, capsys):
    arguments = [
        "run", "stabilizing.distances", "mlp-mnist1d", "--steps", "20it", "--replicates", "1", "--levels", "1",
        "--jobs", "1", "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"),
    ]  # fmt: skip
    main(arguments)
    assert re.search(r"[1-9]\d* computed", capsys.readouterr().out)
    main(arguments)
    out = capsys.readouterr().out
    assert re.search(r"\b0 computed", out)
    assert "ratio" in out
    main(["report", str(tmp_path / "out")])
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"levels": 0}, "they need at least two: the dense network and levels=1; got levels=0"),
        ({"orders": 1}, "A distance needs at least 2 data orders, and at most 1000; got 1"),
        ({"replicates": 0}, "replicates is 1 or more"),
        ({"rewind_to": ("40it",)}, "rewind step 40 is not before the end"),
        ({"rewind_to": ("5it",), "control_steps": ("6it",)}, "some of the rewind steps, 5; got '6it' in control_steps"),
    ],
)
def test_bad_options(changes, text):
    with pytest.raises(UsageError, match=text):
        options(**changes)


def test_unknown_experiments_and_empty_folders(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown experiment 'stabilizing\.distance'.*Did you mean"):
        papers.get("stabilizing.distance")
    with pytest.raises(UsageError, match="holds no experiment"):
        write_experiments(tmp_path, [])
