"""Errors against density: each level's paired gap, its verdict, and sentences that say what one sees."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conftest import small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.experiments.gaps import gap_table
from lotto.papers.stabilizing import plots
from lotto.papers.stabilizing.experiments import sparsity
from lotto.recipe.tolerance import Tolerance
from lotto.report.against_dense import readable_gaps, sentences
from lotto.report.metric import Metric

DENSITIES = (1.0, 0.35, 0.06)
PERCENT = Metric("error", " %", Tolerance(0.2))


def rows(errors):
    """Rows of errors by rewind step, of shape (replicates, levels)."""
    return pd.DataFrame(
        {"replicate": r, "seed": 10 + r, "rewind_step": k, "level": level, "density": DENSITIES[level], "kind": "imp",
         "measure": "error", "unit": "points", "sample": 0, "value": value}
        for k, found in errors.items()
        for r, levels in enumerate(found)
        for level, value in enumerate(levels)
    )  # fmt: skip


ERRORS = {
    0: [(1.4, 1.1, 2.2), (1.6, 1.4, 2.5), (1.5, 1.2, 2.2)],
    100: [(1.4, 1.0, 1.3), (1.6, 1.2, 1.4), (1.5, 1.1, 1.4)],
}
FRAME = rows(ERRORS)
GAPS = gap_table(FRAME, PERCENT.margin)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=2, max_size=6), st.floats(0, 5))
@settings(max_examples=60)
def test_gaps_are_paired_and_bounded_by_students_t(pairs, tolerance):
    line = gap_table(rows({7: pairs}), Tolerance(tolerance)).iloc[1]
    gaps = np.array([sparse - dense for dense, sparse in pairs], np.float64)
    width = stats.t.ppf(0.95, len(gaps) - 1) * gaps.std(ddof=1) / math.sqrt(len(gaps))
    assert line["gap"] == pytest.approx(gaps.mean(), abs=1e-9)
    assert line["gap_high"] == pytest.approx(gaps.mean() + width, abs=1e-7)
    assert line["gap_low"] == pytest.approx(gaps.mean() - width, abs=1e-7)
    if min(abs(line["gap_high"] - tolerance), abs(line["gap_low"] - tolerance)) > 1e-6:
        shown = (
            "matching" if line["gap_high"] < tolerance else "failing" if line["gap_low"] > tolerance else "borderline"
        )
        assert line["verdict"] == shown


def test_what_diverged_or_stands_alone_is_not_decided():
    lost = rows({0: [(1.0, 0.5), (1.0, math.nan), (1.0, 0.5)]})
    assert gap_table(lost, Tolerance(0.2))["verdict"].tolist() == ["dense", "diverged"]
    assert gap_table(rows({0: [(1.0, 0.5)]}), Tolerance(0.2))["verdict"].tolist() == ["dense", "not decided (n = 1)"]
    assert gap_table(rows({0: [(1.0,), (2.0,)]}), Tolerance(0.2)).empty


def test_controls_have_gaps_to_the_dense_network_of_imp():
    control = FRAME[FRAME["level"] == 2].assign(kind="random", value=lambda frame: frame["value"] + 1)
    gaps = gap_table(pd.concat([FRAME, control]), PERCENT.margin)
    assert gaps[gaps["kind"] == "random"]["gap"].round(2).tolist() == [1.8, 0.87]
    assert readable_gaps(gaps, PERCENT)["kind"].tolist() == [*["dense", "imp", "imp"] * 2, *["random mask"] * 2]


def test_every_column_is_whole_on_a_narrow_screen():
    table = readable_gaps(GAPS, PERCENT)
    assert list(table) == ["rewound to", "left", "error % (n=3)", "gap", "verdict"]
    assert table["verdict"].tolist() == ["–", "matching", "failing", "–", "matching", "matching"]
    assert table["gap"].tolist()[2] == "+0.80 ± 0.17"
    assert sum(max(map(len, [name, *table[name]])) + 2 for name in table) <= 80


def test_sentences_say_down_to_where_each_step_matches_and_what_the_later_one_brings():
    assert sentences(FRAME, GAPS, PERCENT) == [
        "Rewound to 0, subnetworks match the dense network down to 35 % of the weights; 6 % is failing "
        "(gap +0.80 ± 0.17).",
        "Rewound to 100, subnetworks match the dense network down to 6 % of the weights.",
        "At 6 % left, rewinding to 100 instead of 0 takes 0.93 points off the error (at least 0.68).",
    ]


def test_sentences_say_what_is_not_shown():
    worse = rows({0: ERRORS[100], 100: [(1.4, 2.0, 2.3), (1.6, 2.2, 2.4), (1.5, 2.1, 2.4)]})
    said = sentences(worse, gap_table(worse, PERCENT.margin), PERCENT)
    assert said[1].startswith("Rewound to 100, no level is shown to match the dense network; 35 % is failing")
    assert said[2] == "At 6 % left, rewinding to 100 is no better than to 0."
    alone = rows({0: ERRORS[0][:1], 100: ERRORS[100][:1]})
    assert len(sentences(alone, gap_table(alone, PERCENT.margin), PERCENT)) == 2


def test_a_level_matches_where_its_band_ends_below_the_dotted_line():
    means = GAPS.rename(columns={"error": "mean", "error_std": "std"}).assign(measure="error", unit="points")
    axis = plots.against_density(means, 0.2).axes[0]
    bands = [collection.get_paths()[0].get_extents() for collection in axis.collections if collection.get_alpha()]
    assert len(bands) == 2
    limit = next(line.get_ydata()[0] for line in axis.lines if line.get_label() == "dense + tolerance")
    assert [band.y1 < limit for band in bands] == [False, True]


def test_densities_take_the_place_of_levels_and_controls_can_be_left_out(store, tmp_path):
    recipe, asked = small_recipe(steps="8it"), {"rewind_to": ("0it", "2it"), "densities": (0.5, 0.2), "replicates": 2}
    options = sparsity.options(recipe, {**asked, "control_steps": ("none",)})
    assert options.levels == 2
    assert options.describe()["densities"] == [0.5, 0.2]
    frame = sparsity.run(options, Serial(store))
    errors = frame[frame["measure"] == "error"]
    assert set(errors["kind"]) == {"imp"}
    assert errors.groupby("level")["density"].first().round(2).tolist() == [1.0, 0.5, 0.2]
    once = papers.get("stabilizing.oneshot").run(
        papers.get("stabilizing.oneshot").options(recipe, asked), Serial(store)
    )
    assert once[once["kind"] == "one-shot"]["density"].round(2).unique().tolist() == [0.2]
    with pytest.raises(UsageError, match="Densities fall from level to level"):
        sparsity.options(recipe, {**asked, "densities": (0.2, 0.5)})


def test_the_demo_shows_gaps_verdicts_and_sentences(tmp_path, capsys):
    folder = tmp_path / "demo"
    asked = "--rewind-to 0it,2it --densities 0.5,0.2 --control-steps none --replicates 2 --steps 6it --jobs 1"
    main(["run", "stabilizing.sparsity", "mlp-mnist1d", *asked.split(), "--out", str(folder)])
    said = capsys.readouterr().out
    assert "verdict" in said
    assert said.count("Rewound to ") == 2
    assert "10 computed, 0 remembered" in said, "two dense trainings for both rewind steps"
    report = (folder / "report.html").read_text()
    assert "Rewound to 2, " in report
    assert "one-sided 95 % bounds of its paired gap" in report
