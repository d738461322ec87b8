"""Beside density stands the fraction of all parameters; what is left out of pruning is named once."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from torch import nn

import lotto
from conftest import small_recipe
from lotto.execution.serial import Serial
from lotto.experiments.results import StoredResult, grouped
from lotto.recipe.tolerance import Tolerance
from lotto.report.experiments import readable
from lotto.report.html import write_report
from lotto.report.metric import Metric
from lotto.report.save import load_result, save_result
from lotto.report.table import console_table


class Wide(nn.Module):
    """Two layers, of which the last is tied and the middle one frozen, and a matrix of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.fixed, self.last = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 6)
        self.same, self.shift = self.last, nn.Parameter(nn.init.zeros_(self.first.weight.new_empty(2, 8)))
        self.fixed.requires_grad_(False)

    def forward(self, x):
        return self.same(self.fixed(self.first(x) + self.shift.sum(0)).relu())


ALL = 12 * 8 + 8 + 8 * 8 + 8 + 8 * 6 + 6 + 2 * 8
PRUNABLE = 12 * 8 + 8 * 6


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    recipe = small_recipe(model=Wide, init="module", steps="6it")
    store = lotto.Store(tmp_path_factory.mktemp("store"))
    return lotto.imp(recipe, levels=2, rate=0.5, replicates=1, engine=Serial(store))


def test_tables_and_tickets_say_what_is_left_of_all_parameters(result, tmp_path):
    expected = [1 - (PRUNABLE - left) / ALL for left in (144, 72, 36)]
    table = result.table()
    assert table["density"].tolist() == [1, 0.5, 0.25]
    assert table["parameter_fraction"].tolist() == pytest.approx(expected)
    assert list(table)[1:3] == ["density", "parameter_fraction"]
    assert set(result.runs_table()["parameter_fraction"]) == set(table["parameter_fraction"])
    ticket = result.ticket(2)
    assert ticket.parameter_fraction == pytest.approx(expected[2])
    assert lotto.Ticket.load(ticket.save(tmp_path / "t.safetensors")).parameter_fraction == ticket.parameter_fraction
    assert lotto.Ticket(ticket.start, ticket.mask).parameter_fraction is None
    zeros = sum(int((t == 0).sum()) for n, t in ticket.start.items() if n in ("first.weight", "last.weight"))
    assert zeros == 144 - 36


def test_what_is_left_out_is_said_once_and_in_the_report(result, tmp_path, caplog):
    said = f"Not pruned: shift (parameter of Wide, {100 * 16 / ALL:.3g} % of all parameters); fixed.weight (frozen, "
    assert result.left_out == result.plan.recipe.left_out
    assert result.left_out.startswith(said)
    with caplog.at_level(logging.INFO):
        lotto.imp(result.plan.recipe, levels=1, replicates=1, controls=(), jobs=1)
        lotto.imp(small_recipe(steps="3it", exclude=("fc3",)), levels=1, replicates=1, controls=(), jobs=1)
        lotto.imp(small_recipe(steps="3it"), levels=1, replicates=1, controls=(), jobs=1)
    found = [(r.levelno, r.getMessage()) for r in caplog.records if r.getMessage().startswith("Not pruned")]
    assert found[0] == (logging.WARNING, result.left_out)
    assert found[1][0] == logging.INFO
    assert len(found) == 2
    page = save_result(result, tmp_path, "c", 1.0)["report"].read_text()
    assert "Not pruned: shift" in page
    assert "of all parameters (error" in page or "no pruned level" in page
    assert "of all parameters are prunable" in (tmp_path / "error.svg").read_text()


def test_results_without_the_column_are_still_drawn(result, tmp_path):
    save_result(result, tmp_path, "c", 1.0)
    path = tmp_path / "result.json"
    content = json.loads(path.read_text())
    del content["left_out"]
    for row in content["table"]:
        del row["parameter_fraction"]
    path.write_text(json.dumps(content))
    write_report(load_result(tmp_path), tmp_path / "report.html")
    assert "of all" not in (tmp_path / "report.html").read_text()


def test_the_table_fits_eighty_columns():
    row = {"level": 10, "density": 0.0282, "parameter_fraction": 0.0313, "error": 48.8, "error_std": 1.7, "n": 3}
    row |= {"dense_error": 50.1, "dense_std": 1.4, "matching": False, "empty_layers": ""}
    row |= {"gap": -1.3, "gap_low": -3.4, "gap_high": 0.84, "verdict": "borderline"}
    row |= {"reinit": 52.85, "reinit_std": 0.35, "random": 53.25, "random_std": 0.21}
    console = Console(width=80, record=True)
    console.print(console_table(pd.DataFrame([row]), Metric("error", " %", Tolerance(1.0))))
    text = console.export_text()
    assert "…" not in text
    assert "10  2.82 %  3.13 %" in text
    assert "-1.30±2.14" in text
    assert "For lack of room" not in text


def test_rows_of_experiments_have_the_fraction_and_older_rows_join_them():
    row = {"replicate": 0, "rewind_step": 0, "level": 1, "density": 0.5, "kind": "imp", "measure": "test error"}
    row |= {"unit": "points", "sample": 0, "value": 3.0}
    new = pd.DataFrame([{**row, "parameter_fraction": 0.6}])
    assert list(readable(new))[:3] == ["step", "left", "of all"]
    assert "of all" not in readable(pd.DataFrame([row]))
    about = {"recipe": {"name": "r"}, "training": {}, "options": {}}
    (group,) = grouped([StoredResult(about, frame, Path("some.csv")) for frame in (new, pd.DataFrame([row]))])
    assert len(group.frame) == 1
