"""Tables fit their terminal, and names in them are data."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
import torch
from rich.console import Console

import lotto
from conftest import small_arrays, small_recipe
from lotto.core.text import printable
from lotto.execution.serial import Serial
from lotto.recipe.tolerance import Tolerance
from lotto.report import plots
from lotto.report.fitting import SHORT, FittedTable, fitting, needed
from lotto.report.metric import Metric
from lotto.report.save import load_result, save_result
from lotto.report.table import console_table, frame_table

COLUMNS = [
    ("level", ["0", "16"]),
    ("left", ["100 %", "2.81 %"]),
    ("error % (n=3)", ["41.30 ± 10.28", "40.00 ± 0.42"]),
    ("vs dense", ["+0.00", "-1.30"]),
    ("match", ["yes", "no"]),
    ("new init", ["–", "43.75 ± 1.20"]),
    ("random mask", ["–", "42.00 ± 12.28"]),
]


def lines(shown: object, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [200, 80, 79, 60, 40, 30, 24])
def test_what_does_not_fit_is_left_out_by_name_and_no_number_is_cut(width):
    text = lines(FittedTable(COLUMNS, "caption", [None, None]), width)
    assert max(map(len, text)) <= width
    whole = "\n".join(text)
    for number in ("100 %", "2.81 %", "41.30", "40.00"):
        assert number in whole
    shown, left_out = fitting(COLUMNS, width)
    assert (needed(shown) <= width, bool(left_out)) == (True, width < 70)
    said = " ".join(whole.split())
    assert all(title in said for title in left_out)
    whole_titles = {long for long, short in SHORT.items() if short in {title for title, _ in shown} | {*left_out}}
    named = {title for title, _ in shown} | {*left_out, "error % (n=3)"} | whole_titles
    assert named >= {title for title, _ in COLUMNS}


def test_at_80_signs_nothing_is_left_out_even_with_one_more_column():
    more = [*COLUMNS[:2], ("of all", ["100 %", "55.4 %"]), *COLUMNS[2:]]
    assert fitting(more, 80)[1] == []


NAMES = [
    "[/b]",
    "$x_1$ $",
    "<script>alert(1)</script>",
    "_hidden",
    "x" * 300,
    "a\nb",
    "%s {}",
    "\U0001f9e0 ü",
    "\x1b[31m",
]


class Named(torch.nn.Module):
    """Layers with any names."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.add_module(name, torch.nn.Linear(12, 12))
        self.add_module("last", torch.nn.Linear(12, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = x + 0.1 * layer(x).tanh() if layer.out_features == 12 else layer(x)
        return x


@pytest.mark.filterwarnings("ignore:Runs of")
def test_names_of_layers_are_data_in_tables_plots_and_files(store, tmp_path):
    recipe = small_recipe(model=Named, data=small_arrays(), init="module", name="[/i] <b> $a$ \udcff")
    result = lotto.imp(recipe, levels=2, replicates=1, controls=(), engine=Serial(store))
    folder = tmp_path / "x" / "[red] $y$ \udcff"
    command = "lotto imp '<script>' [/b] \udcfe"
    paths = save_result(result, folder, command, 1.0)
    assert all(path.exists() for path in paths.values())
    page = paths["report"].read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 1, "the page's own, which shows values"
    assert "&lt;script&gt;" in page
    loaded = load_result(folder)
    assert loaded["command"] == command
    assert set(loaded["layers"]) >= {f"{name}.weight" for name in NAMES} or set(loaded["layers"]) >= set(NAMES)
    table = result.table()
    table["empty_layers"] = "[/b], $x$, " + "y" * 100
    assert "[/b]" in "".join(lines(console_table(table, Metric("error", " [%]", Tolerance(1.0))), 300))


def test_cells_and_titles_with_markup():
    frame = pd.DataFrame([{"measure": "[/b]", "[red]": "[/]"}])
    text = "\n".join(lines(frame_table(frame, "title [/x]"), 60))
    for name in ("[/b]", "[red]", "[/]", "title [/x]"):
        assert name in text


def test_a_dollar_sign_and_an_underscore_reach_the_legend():
    drawn = plots.layer_densities({"$a_1": [1.0, 0.5], "_b$": [1.0, 0.5], "\\frac$ $": [1, 0.2]}, [1.0, 0.5])
    assert "<svg" in plots.svg(drawn)
    shown = [text.get_text().strip() for text in drawn.axes[0].get_legend().get_texts()]
    assert shown[:2] == ["$a_1", "_b$"]


def test_printable():
    assert printable("ü \x1b[31m \udcff\n–") == "ü \\x1b[31m \\udcff\n–"
    short = printable("a" * 30 + "b" * 30, 20)
    assert re.fullmatch("a+ … b+", short)
    assert len(short) == 20
