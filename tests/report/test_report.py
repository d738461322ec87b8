from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from rich.console import Console

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.recipe.tolerance import Tolerance
from lotto.report.html import write_report
from lotto.report.metric import Metric
from lotto.report.save import load_result, save_result
from lotto.report.table import console_table


@pytest.fixture
def result(store):
    return lotto.imp(small_recipe(), levels=3, replicates=2, control_levels=[1, 3], engine=Serial(store))


def test_everything_is_written_and_the_report_opens_offline(result, tmp_path):
    paths = save_result(result, tmp_path / "out", "lotto imp small", 12.3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "error.svg",
        "report.html",
        "result.json",
        "result.safetensors",
        "runs.csv",
        "table.csv",
        "ticket.safetensors",
        "trained.safetensors",
    ]
    page = paths["report"].read_text()
    assert page.count("<svg") == 6, "each figure twice: for wide and for narrow screens"
    assert not re.search(r"(src|href)=\"https?:", page)
    for text in ("lotto imp small", "Matching (yes):", "rewind_step", "torch", "new init", "12.3 s"):
        assert text in page, text
    saved = pd.read_csv(paths["table"])
    assert saved["error"].tolist() == pytest.approx(result.table()["error"].tolist())
    assert lotto.Ticket.load(paths["ticket"]).density == result.chosen_ticket().density


def test_the_report_can_be_made_again_from_the_files(result, tmp_path):
    paths = save_result(result, tmp_path, "command <b>", 1.0)
    first = paths["report"].read_text()
    assert "command &lt;b&gt;" in first
    write_report(load_result(tmp_path), paths["report"])
    assert paths["report"].read_text() == first


def test_the_table_reads_well(result):
    console = Console(width=100, record=True)
    console.print(console_table(result.table(), Metric("error", " %", Tolerance(5.0))))
    text = console.export_text()
    for word in ("level", "left", "(n=2)", "gap", "verdict", "new init", "random mask", "Dense:", "below 5;", "±"):
        assert word in text, word
    assert len([line for line in text.splitlines() if "%" in line]) >= 4


def test_a_single_replicate_has_no_spread_and_still_reports(store, tmp_path):
    result = lotto.imp(small_recipe(), levels=1, replicates=1, controls=(), engine=Serial(store))
    page = save_result(result, tmp_path, "c", 1.0)["report"].read_text()
    assert "1 replicate<" in page
    assert "nan" not in page.replace("maintenance", "")


def test_folders_without_a_result(tmp_path):
    with pytest.raises(UsageError, match="holds no result"):
        load_result(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(UsageError, match="holds no result"):
        load_result(tmp_path)


def test_curves_are_drawn_where_there_is_more_than_their_end(store, tmp_path):
    for evaluations, drawn in ((0, False), (2, True)):
        recipe = small_recipe(evaluations=evaluations)
        found = lotto.imp(recipe, levels=1, replicates=1, controls=(), engine=Serial(store))
        page = save_result(found, tmp_path / str(evaluations), "lotto imp it", 1.0)["report"].read_text()
        assert ("Training curves" in page) is drawn


def test_what_rounds_to_no_gap_has_no_minus():
    metric = Metric("error", " %", Tolerance(0.5))
    assert metric.gap(-0.0004, 0.45) == "+0.00 ± 0.45"
    assert metric.gap(-0.006, 0.45) == "-0.01 ± 0.45"
