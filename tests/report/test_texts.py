"""Tables as texts: what another program or a typesetter reads of them is what the table says."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from matplotlib.figure import Figure

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.report.metric import Metric
from lotto.report.table import columns
from lotto.report.texts import frame_text


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    engine = Serial(lotto.Store(tmp_path_factory.mktemp("store")))
    return lotto.imp(small_recipe(), levels=2, replicates=2, control_levels=[2], engine=engine)


def test_csv_has_every_column_to_the_last_digit(result):
    found = pd.read_csv(io.StringIO(result.table_as("csv")))
    assert list(found) == list(result.table())
    assert found["gap_high"].tolist() == result.table()["gap_high"].tolist()


def test_markdown_has_a_row_for_each_level_with_bounds(result):
    lines = result.table_as("markdown").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    expected = columns(result.table(), Metric.of(small_recipe()))
    assert cells[0] == [title for title, _ in expected]
    assert set(cells[1]) == {"--:"}
    assert cells[2:] == [list(row) for row in zip(*(values for _, values in expected), strict=True)]
    gap = cells[4][cells[0].index("gap")]
    row = result.table().iloc[2]
    assert gap == f"{row['gap']:+.2f} ± {row['gap_high'] - row['gap']:.2f}"
    assert "one-sided 95 % bound" in lines[6]


def test_latex_is_a_table_of_booktabs_with_no_bare_signs(result):
    text = result.table_as("latex")
    assert text.count(r"\\") == 4
    assert re.findall(r"\\(\w+rule)", text) == ["toprule", "midrule", "bottomrule"]
    aligned = "r" * len(columns(result.table(), Metric.of(small_recipe())))
    assert rf"\begin{{tabular}}{{{aligned}}}" in text
    assert rf"{100 * result.table()['density'][2]:.3g} \%" in text
    assert r"$\pm$" in text
    assert not re.search(r"(?<!\\)[%_#]", text)
    assert text.isascii()


def test_names_that_mean_something_to_a_typesetter_are_spelled_out():
    frame = pd.DataFrame({"a_b|c": ["x*y\n\\z", "50 % & $1"]})
    assert frame_text(frame, "t", "markdown").splitlines()[0] == "| a_b\\|c |"
    assert frame_text(frame, "t", "markdown").splitlines()[2] == "| x\\*y \\\\z |"
    latex = frame_text(frame, "t", "latex").splitlines()
    assert latex[4] == r"a\_b|c \\"
    assert latex[6:8] == [r"x*y \textbackslash{}z \\", r"50 \% \& \$1 \\"]


def test_unknown_formats_and_plots_name_the_known_ones(result):
    with pytest.raises(UsageError, match=r"Unknown format of a table 'latx'. Choices: csv, latex, markdown. Did you"):
        result.table_as("latx")
    with pytest.raises(UsageError, match=r"Unknown kind of plot 'errors'. Choices: curves, error, layers. Did you"):
        result.plot("errors")


@pytest.mark.parametrize("kind", ["error", "curves", "layers"])
def test_plots_are_figures_that_notebooks_show(result, kind, tmp_path):
    figure = result.plot(kind)
    assert isinstance(figure, Figure)
    assert figure._repr_svg_().startswith("<svg")
    figure.savefig(tmp_path / "figure.png")
    if kind == "error":
        line = figure.axes[0].containers[0].lines[0]
        assert line.get_ydata().tolist() == result.table()["error"].tolist()
