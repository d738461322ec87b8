"""Verdicts of levels: by paired gaps and their bounds, in a fixed sequence, at one look or two."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd
import pytest
from rich.console import Console

import lotto
from conftest import small_arrays, small_recipe
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.statistics import confidence_per_look
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.lottery import search
from lotto.lottery.plan import make_plan, number_of_replicates
from lotto.lottery.procedure import SecondLook
from lotto.lottery.replicate import Level
from lotto.lottery.search import ImpResult
from lotto.pruning import masks
from lotto.report.html import write_report
from lotto.report.metric import Metric
from lotto.report.outcome import advice, headline
from lotto.report.plots import BAND, error_against_density
from lotto.report.save import load_result, save_result
from lotto.report.table import columns, console_table

T95 = {2: 6.313751514675043, 3: 2.919985580353724, 5: 2.131846786326649}
"""Student's t at 95 % by the number of values."""


@dataclass(frozen=True)
class Outcome:
    """Of a run what a table reads."""

    test_error: float
    diverged: str = ""


def result_of(errors: Sequence[Sequence[float]], tolerance: float = 0.2, replicates: int | str = 3) -> ImpResult:
    """A result with the given test errors, a row per replicate and a column per level."""
    recipe = small_recipe(tolerance=tolerance)
    plan = make_plan(recipe, levels=len(errors[0]) - 1, replicates=replicates, controls=())
    mask = masks.ones(recipe)
    return ImpResult(plan, [[Level(i, mask, Outcome(e)) for i, e in enumerate(row)] for row in errors])


ERRORS = [
    [10.0, 9.9, 10.0, 10.3, 9.0, 12.0],
    [11.0, 10.8, 11.1, 11.1, 10.0, 13.1],
    [10.5, 10.4, 10.5, 10.7, 9.5, 12.4],
]


def test_gaps_are_paired_and_their_bounds_decide():
    table = result_of(ERRORS).table()
    for level in range(1, 6):
        gaps = [row[level] - row[0] for row in ERRORS]
        half = T95[3] * stdev(gaps) / math.sqrt(3)
        low, high = fmean(gaps) - half, fmean(gaps) + half
        row = table.iloc[level]
        assert [row["gap"], row["gap_low"], row["gap_high"]] == pytest.approx([fmean(gaps), low, high])
        expected = "matching" if high < 0.2 else "failing" if low > 0.2 else "borderline"
        assert row["verdict"] == expected
        assert row["matching"] == (expected == "matching")
    assert list(table["verdict"]) == ["dense", "matching", "matching", "borderline", "matching", "failing"]
    assert table["gap"][0] == 0.0
    assert table["matching"].dtype == bool


def test_the_spread_between_replicates_has_no_part_in_a_gap():
    shifted = [[value + 5 * r for value in row] for r, row in enumerate(ERRORS)]
    one, other = result_of(ERRORS).table(), result_of(shifted).table()
    pd.testing.assert_frame_equal(one[["gap", "gap_high", "verdict"]], other[["gap", "gap_high", "verdict"]])
    assert other["error_std"].min() > 4


def test_the_sparsest_match_comes_before_the_first_level_that_does_not():
    result = result_of(ERRORS)
    assert result.matching_level == 2, "level 4 matches behind one that does not"
    assert result.open_level == 3
    assert result.chosen_level == 2
    failing = result_of([[10.0, 13.0, 10.0], [10.0, 13.1, 10.0]])
    assert (failing.matching_level, failing.open_level, failing.likely_level) == (0, None, 0)


def test_one_replicate_decides_nothing_and_names_what_is_within_the_tolerance():
    result = result_of([[10.0, 10.1, 10.2, 10.5, 10.0]], replicates=1)
    table = result.table()
    assert list(table["verdict"]) == ["dense", *["not decided (n = 1)"] * 4]
    assert list(table["matching"]) == [True, False, False, False, False]
    assert table[["gap_low", "gap_high"]].iloc[1:].isna().all(axis=None)
    assert (result.matching_level, result.likely_level, result.chosen_level) == (0, 2, 2)
    assert "not decided, within the tolerance: level 2" in repr(result)
    metric = Metric.of(result.plan.recipe)
    said = headline(table, result.matching_level, result.chosen_level, metric)
    assert said.startswith("Not decided with one replicate; the mean error is within the tolerance down to level 2, ")
    assert advice(table, 0, "--replicates 2") == (
        "Level 1 is not decided (n = 1): more replicates would decide (--replicates 2)."
    )


def test_sentences_about_what_is_and_is_not_shown():
    def said(errors):
        result = result_of(errors)
        table, metric = result.table(), Metric.of(result.plan.recipe)
        return (
            headline(table, result.matching_level, result.chosen_level, metric),
            advice(table, result.matching_level),
        )

    matching, more = said(ERRORS)
    assert matching.startswith("Sparsest matching ticket: level 2, 100 % of the weights, ")
    assert "(error 10.53 %, dense 10.50 %)" in matching
    assert more == "Level 3 is borderline: more replicates would decide."
    open_, more = said([[10.0, 10.0], [10.0, 10.3], [10.0, 9.9]])
    assert open_.startswith("No pruned level is shown to match by 3 replicates; the mean error is within the tolerance")
    assert more.startswith("Level 1 is borderline")
    assert said([[10.0, 13.0], [10.0, 13.1], [10.0, 13.2]]) == ("No pruned level matches the dense network.", "")


def test_a_table_shows_the_gap_with_its_bound_and_the_verdict():
    result = result_of(ERRORS)
    table, metric = result.table(), Metric.of(result.plan.recipe)
    cells = dict(columns(table, metric))
    half = T95[3] * stdev([-0.1, -0.2, -0.1]) / math.sqrt(3)
    assert cells["gap"][:2] == ["–", f"-0.13 ± {half:.2f}"]
    assert cells["verdict"] == ["–", "matching", "matching", "borderline", "matching", "failing"]
    console = Console(width=80, record=True)
    console.print(console_table(table, metric))
    text = " ".join(console.export_text().split())
    assert "± its one-sided 95 % bound. Matching (yes): the gap with its bound is below 0.2;" in text


def test_the_plots_band_is_that_of_the_gap():
    table = result_of(ERRORS).table()
    axis = error_against_density(table, Metric("error", " %", result_of(ERRORS).plan.recipe.margin)).axes[0]
    (band,) = [c for c in axis.collections if c.get_label() == BAND]
    found = band.get_paths()[0].vertices[:, 1]
    dense = fmean(row[0] for row in ERRORS)
    assert found.max() == pytest.approx(dense + table["gap_high"].max())
    assert found.min() == pytest.approx(dense + table["gap_low"].min())
    limit = [line for line in axis.lines if str(line.get_label()).startswith("matching: dense")]
    assert limit[0].get_ydata()[0] == pytest.approx(dense + 0.2)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (lotto.Recipe("lenet-300-100", "mnist"), 5),
        (lotto.Recipe("mlp-256-256", "mnist1d"), 5),
        (lotto.Recipe("resnet-20", "cifar10"), 8),
        (lotto.Recipe("vgg-16", "cifar10"), 3),
        (small_recipe(), 3),
        (small_recipe(data=lotto.data.Arrays(*(small_arrays().x[s] if i % 2 == 0 else small_arrays().y[s] for i, s in enumerate(("train", "train", "test", "test"))), name="mnist1d")), 5),
    ],
)  # fmt: skip
def test_the_default_number_of_replicates_is_the_data_sets(recipe, expected):
    assert number_of_replicates(recipe) == (expected, 0)
    assert number_of_replicates(recipe, "auto") == (expected, expected)
    assert number_of_replicates(recipe, 7) == (7, 0)


@pytest.mark.parametrize("wrong", [0, -1, "many", 2.5])
def test_what_is_no_number_of_replicates_is_refused_before_training(wrong):
    with pytest.raises(UsageError, match="replicates is"):
        make_plan(small_recipe(), replicates=wrong)


def test_one_replicate_is_said_to_decide_nothing_before_training(store, caplog):
    with caplog.at_level(logging.INFO):
        lotto.imp(small_recipe(steps="3it"), levels=1, replicates=1, controls=(), engine=Serial(store))
    assert (
        "One replicate has no spread: its verdicts are 'not decided (n = 1)'. Two or more give bounds." in caplog.text
    )


def looking(store, monkeypatch, open_levels):
    """IMP with ``replicates='auto'``, where the first look finds the given open level."""
    answers = iter(open_levels)
    monkeypatch.setattr(search.ImpResult, "open_level", property(lambda self: next(answers)))
    events: list = []
    result = lotto.imp(
        small_recipe(steps="4it"),
        levels=1,
        replicates="auto",
        controls=(),
        engine=Serial(store),
        progress=events.append,
    )
    return result, events


def test_auto_looks_twice_where_a_level_that_matters_is_borderline(store, monkeypatch, tmp_path):
    result, events = looking(store, monkeypatch, [1, 1])
    assert [e for e in events if isinstance(e, SecondLook)] == [SecondLook(1, 6)]
    assert len(result.replicates) == result.plan.replicates == 6
    assert sum(e.trained for e in events if isinstance(e, JobFinished)) == 6 * 2
    monkeypatch.undo()
    plain = lotto.imp(small_recipe(steps="4it"), levels=1, replicates=6, controls=(), engine=Serial(store))
    both = result.table(), plain.table()
    assert list(both[0]["error"]) == list(both[1]["error"]), "the same trainings"
    t = 2.015048372669157  # of five degrees of freedom at 95 %
    wide = (both[0]["gap_high"] - both[0]["gap"])[1] / (both[1]["gap_high"] - both[1]["gap"])[1]
    from scipy.stats import t as student

    assert wide == pytest.approx(student.ppf(confidence_per_look(3), 5) / t, rel=1e-6)
    one = save_result(result, tmp_path / "out", "c", 1.0)
    assert load_result(tmp_path / "out")["plan"]["replicates"] == 6
    first, _ = looking(store, monkeypatch, [None])
    two = save_result(first, tmp_path / "out", "c", 1.0)
    assert one == two, "one look or two, it is the same experiment"


def test_auto_looks_once_where_nothing_is_open(store, monkeypatch):
    result, events = looking(store, monkeypatch, [None])
    assert len(result.replicates) == result.plan.replicates == result.plan.first_look == 3
    assert not [e for e in events if isinstance(e, SecondLook)]


def test_what_is_behind_a_failing_or_diverged_level_is_no_reason_to_look_again():
    result = result_of([[10.0, 13.0, 10.0], [10.0, 13.1, 10.5], [10.0, 13.0, 10.2]])
    assert list(result.table()["verdict"]) == ["dense", "failing", "borderline"]
    assert result.open_level is None


def test_results_of_the_time_before_verdicts_are_still_drawn(store, tmp_path):
    result = lotto.imp(small_recipe(), levels=2, replicates=2, controls=(), engine=Serial(store))
    save_result(result, tmp_path, "c", 1.0)
    content = json.loads((tmp_path / "result.json").read_text())
    for name in ("matching_level", "chosen_level"):
        del content[name]
    for row in content["table"]:
        for name in ("gap", "gap_low", "gap_high", "verdict"):
            del row[name]
        row["matching"] = True
    (tmp_path / "result.json").write_text(json.dumps(content))
    old = load_result(tmp_path)
    write_report(old, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Sparsest matching ticket: level 2" in page
    assert "mean error at most 5 above the dense mean" in " ".join(page.split())
    assert "vs dense" in dict(columns(old["table"], Metric.of_result(old)))


def test_saved_results_say_what_was_decided(store, tmp_path):
    result = lotto.imp(small_recipe(tolerance=100.0), levels=2, replicates=1, controls=(), engine=Serial(store))
    paths = save_result(result, tmp_path, "c", 1.0)
    ticket = lotto.Ticket.load(paths["ticket"])
    assert (ticket.info["level"], ticket.info["verdict"]) == (2, "not decided (n = 1)")
    assert "Not decided with one replicate" in paths["report"].read_text()
    stored = load_result(tmp_path)
    assert (stored["matching_level"], stored["chosen_level"]) == (0, 2)
    assert list(stored["table"]["verdict"]) == list(result.table()["verdict"])


def test_the_command_prints_the_gap_the_verdict_and_what_would_decide(tmp_path, capsys):
    main(
        ["imp", "mlp-mnist1d", "--steps", "20it", "--levels", "1", "--replicates", "2", "--controls", "none", "--jobs", "1",
         "--set", "tolerance=0.5", "--out", str(tmp_path)]
    )  # fmt: skip
    shown = " ".join(capsys.readouterr().out.split())
    assert "gap" in shown
    assert "Level 1 is borderline: more replicates would decide (--replicates 4, or auto)." in shown
    with pytest.raises(SystemExit) as caught:
        main(["imp", "mlp-mnist1d", "--replicates", "lots"])
    assert caught.value.code == 2
    assert "--replicates is a whole number from 1, or auto; got 'lots'." in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"validation": 240}, {}, "Can hold out 1 to 239 examples for validation; got 240."),
        ({"validation": 1000}, {}, "Can hold out 1 to 239 examples for validation; got 1000."),
        ({}, {"rewind_to": "41it"}, "The rewind step 41 is not before the end of training at 40 iterations"),
        ({}, {"replicates": 0}, "replicates is 1 or more; got 0."),
        ({}, {"replicates": "three"}, "replicates is a whole number from 1, or 'auto'; got 'three'."),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(store, changes, asked, said):
    events: list = []
    with pytest.raises(UsageError) as caught:
        lotto.imp(small_recipe(**changes), levels=1, store=store, jobs=1, progress=events.append, **asked)
    assert said in str(caught.value)
    assert not events
