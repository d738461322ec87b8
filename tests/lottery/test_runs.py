"""Runs, overlaps and signs of a result, against slow references."""

from __future__ import annotations

import math

import pytest

import lotto
from conftest import small_recipe
from lotto.execution.serial import Serial


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    engine = Serial(lotto.Store(tmp_path_factory.mktemp("store")))
    # Of large weights none changes its sign in so few steps, so they are chosen at random.
    return lotto.imp(small_recipe(), levels=2, rate=0.5, rewind_to="5it", replicates=3, score="random", engine=engine)


def test_runs_by_replicate_level_and_kind(result):
    assert len(result.runs) == 3 * (1 + 2 * 3) == len(result.runs_table())
    assert result.runs[1, 2, "random"] is result.replicates[1][2].controls["random"]
    assert result.runs[2, 0, "imp"] is result.replicates[2][0].run
    errors = [run.test_error for run in result.runs.values()]
    assert result.runs_table()["test_error"].tolist() == errors


def test_overlaps_are_those_of_sets(result):
    table = result.overlap_table()
    assert len(table) == 3 * 3 + 3 * 2

    def kept(replicate, level):
        mask = result.replicates[replicate][level].mask
        return {(name, i) for name, keep in mask.items() for i, k in enumerate(keep.flatten().tolist()) if k}

    for row in table.to_dict("records"):
        one, two = kept(row["replicate"], row["level"]), kept(row["other_replicate"], row["other_level"])
        assert row["common"] == len(one & two)
        assert row["jaccard"] == len(one & two) / len(one | two)
    within = table[table["replicate"] == table["other_replicate"]]
    assert within["jaccard"].tolist() == [0.5] * 6  # nested masks: the ratio of their densities
    assert (within["level"] - within["other_level"]).tolist() == [1] * 6
    between = table[table["level"] == table["other_level"]]
    dense = between[between["level"] == 0]
    assert dense["jaccard"].tolist() == dense["expected"].tolist() == [1.0] * 3
    sparse = between[between["level"] == 2]  # a quarter of the weights each
    assert sparse["expected"].tolist() == pytest.approx([1 / 7] * 3, rel=0.03)  # 1/16 of 7/16
    assert sparse["jaccard"].tolist() == pytest.approx([1 / 7] * 3, abs=0.06)  # masks at random agree as expected


def test_signs_are_counted_one_by_one(result):
    table = result.sign_table()
    assert list(zip(table["replicate"], table["level"], strict=True)) == [(r, k) for r in range(3) for k in range(3)]

    def changed(start, end, mask):
        pairs = [
            (float(a), float(b))
            for name, keep in mask.items()
            for a, b, k in zip(start[name].flatten(), end[name].flatten(), keep.flatten(), strict=True)
            if k and a != 0 and b != 0
        ]
        return sum((a > 0) != (b > 0) for a, b in pairs) / len(pairs)

    for row in table[table["replicate"] == 1].to_dict("records"):
        levels = result.replicates[1]
        at = levels[row["level"]]
        assert row["kept"] == round(768 * row["density"])
        assert row["in_training"] == changed(levels[0].run.at(5), at.run.weights, at.mask) > 0
        if row["level"]:
            assert row["since_last_level"] == changed(levels[row["level"] - 1].run.weights, at.run.weights, at.mask)
    assert table["since_last_level"].isna().sum() == 3


def test_where_weights_were_not_rewound_no_start_is_made_up(store):
    result = lotto.imp(small_recipe(), levels=1, after="lr", replicates=1, controls=(), engine=Serial(store))
    table = result.sign_table()
    assert not math.isnan(table["in_training"][0])
    assert math.isnan(table["in_training"][1])
    assert not math.isnan(table["since_last_level"][1])
