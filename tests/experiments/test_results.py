"""Results of several commands come together by the seeds of their replicates and the settings of their measures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from conftest import small_recipe
from lotto import papers
from lotto.execution.serial import Serial
from lotto.experiments.claims import gap
from lotto.experiments.evidence import below
from lotto.experiments.measures import DENSE, ERROR, IMP, TEST_BARRIER
from lotto.experiments.results import StoredResult, grouped, read_below
from lotto.papers.stabilizing.measures import DATA_ORDER
from lotto.report.experiments import save_experiment

RECIPE = {"name": "some", "model": "resnet-20", "tolerance": 0.2}
TRAINING = {"iterations": 1000, "per_epoch": 100, "learning_rate": 0.1, "warmup": 0}


def stored(lines, former=False, **options):
    """A result whose lines are (replicate, kind, level, measure, sample, value): as files hold it, or held it."""
    about = {"name": "some", "recipe": RECIPE, "training": TRAINING, "options": {"seed": 0, "orders": 2, **options}}
    rows = [
        {
            "replicate": replicate, "rewind_step": 0, "level": level, "density": 0.8**level, "kind": kind,
            "measure": measure.name, "unit": measure.unit, "sample": sample, "value": value,
            **({} if former else {"seed": replicate + options.get("seed", 0)}),
            **({} if former else {name: options.get(name) for name in measure.settings}),
        }
        for replicate, kind, level, measure, sample, value in lines
    ]  # fmt: skip
    return StoredResult(about, pd.DataFrame(rows), Path("results/some.csv"))


def by_seed(values):
    """Values of networks that were trained once."""
    return values.droplevel("copy").to_dict()


def errors(replicates, dense, sparse, **options):
    lines = [(r, DENSE, 0, ERROR, 0, dense[r]) for r in range(replicates)]
    return stored([*lines, *((r, IMP, 8, ERROR, 0, sparse[r]) for r in range(replicates))], **options)


@pytest.mark.parametrize("former", [False, True], ids=["with the seed's column", "without"])
def test_errors_of_different_seeds_are_paired_by_seed(former):
    # Of the second command only the sparse network's replicate 0 is stored in the first's file, so to speak: a pairing
    # by the replicate's number takes 7.0 - 1.9 = 5.1 for a gap that is 7.0 - 6.9 = 0.1.
    first = errors(1, [1.9], [2.0], former=former)
    second = errors(1, [6.9], [7.0], former=former, seed=5)
    (group,) = grouped([first, second])
    assert by_seed(gap(group, 0, 8)) == pytest.approx({0: 0.1, 5: 0.1})
    lone = stored([(0, IMP, 8, ERROR, 0, 7.0)], former=former, seed=5)
    (group,) = grouped([first, lone])
    assert by_seed(gap(group, 0, 8)) == pytest.approx({0: 0.1}), "the dense error of seed 5 is not known"


def test_a_field_that_came_later_separates_nothing_at_its_default():
    older, newer = errors(1, [1.0], [1.1]), errors(1, [2.0], [2.2], seed=1)
    described = small_recipe().describe()
    newer.about["recipe"] = {**RECIPE, "loop": described["loop"], "pretrained": described["pretrained"]}
    (group,) = grouped([older, newer])
    assert by_seed(gap(group, 0, 8)) == pytest.approx({0: 0.1, 1: 0.2})
    newer.about["recipe"] = {**RECIPE, "pretrained": "some weights"}
    assert len(grouped([older, newer])) == 2


def test_overlapping_seeds_are_one_replicate():
    (group,) = grouped([errors(3, [1.0, 1.1, 1.2], [1.1, 1.3, 1.5]), errors(1, [1.2], [1.5], seed=2)])
    assert by_seed(gap(group, 0, 8)) == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    assert len(group.frame) == 6, "the row of seed 2 is kept once"


@pytest.mark.parametrize("former", [False, True], ids=["with columns", "without"])
@pytest.mark.parametrize(("setting", "one", "two"), [("points", 11, 30), ("examples", 500, None), ("orders", 2, 3)])
def test_values_of_different_settings_are_all_kept_and_never_averaged(former, setting, one, two):
    common = {"points": 30, "examples": None, "orders": 2}
    results = [
        stored([(0, DENSE, 0, TEST_BARRIER, 0, value)], former=former, **{**common, setting: option})
        for option, value in ((one, 3.0), (two, 5.0))
    ]
    (group,) = grouped(results)
    assert sorted(group.rows(TEST_BARRIER)["value"]) == [3.0, 5.0]
    assert by_seed(group.values(TEST_BARRIER)) == {0: 5.0}, "the finer one, where both have as many replicates"
    more = stored([(r, DENSE, 0, TEST_BARRIER, 0, 3.0) for r in range(2)], former=former, **{**common, setting: one})
    (group,) = grouped([more, results[1]])
    assert by_seed(group.values(TEST_BARRIER)) == {0: 3.0, 1: 3.0}, "that of more replicates"


def test_what_does_not_depend_on_a_setting_is_one_row_whatever_the_setting():
    (group,) = grouped([errors(2, [1.0, 1.1], [1.1, 1.3], points=n, orders=n) for n in (5, 11)])
    assert len(group.frame) == 4


def test_pairs_of_data_orders_are_numbered_anew_when_there_are_more_orders():
    # The second pair of four orders is another than the second of three.
    three, four = (
        stored([(0, IMP, 8, DATA_ORDER, sample, value) for sample, value in enumerate(values)], orders=orders)
        for orders, values in ((3, (1.0, 2.0, 3.0)), (4, (1.0, 2.0, 4.0, 3.0, 5.0, 6.0)))
    )
    (group,) = grouped([three, four])
    assert by_seed(group.values(DATA_ORDER)) == {0: 3.5}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_trainings_of_one_seed_that_parted_are_paired_each_with_its_own(order, caplog):
    # Gaps are 0.1 in one place and 0.3 in the other; across them they would be -0.2 and 0.6.
    one, other = errors(2, [1.0, 2.0], [1.1, 2.1]), errors(1, [1.3], [1.6])
    beside = stored([(0, DENSE, 0, ERROR, 0, 1.3), (0, DENSE, 0, TEST_BARRIER, 0, 4.0)])  # of the second place
    (group,) = grouped([(one, other, beside)[i] for i in order])
    found = gap(group, 0, 8)
    assert sorted(found.loc[0]) == pytest.approx([0.1, 0.3])
    assert sorted(found.loc[1]) == pytest.approx([0.1])
    assert "networks of seeds [0] differ between files" in caplog.text
    with_barrier = (group.values(TEST_BARRIER) - group.dense_errors).dropna()
    assert list(with_barrier) == pytest.approx([4.0 - 1.3]), "files whose errors agree are one copy"
    evidence = below(found, 0.2)
    assert evidence.n == 2, "copies of one seed are one replicate"
    assert evidence.figure == below(pd.Series([0.2, 0.1]), 0.2).figure


def test_a_seed_of_which_no_file_has_both_is_paired_by_none():
    (group,) = grouped([errors(1, [1.0], [1.1]), stored([(0, DENSE, 0, ERROR, 0, 1.4), (0, IMP, 7, ERROR, 0, 1.2)])])
    assert gap(group, 0, 7).to_dict() == pytest.approx({(0, 1): -0.2})
    assert gap(group, 0, 8).to_dict() == pytest.approx({(0, 0): 0.1})


def test_other_values_that_disagree_are_reported(caplog):
    lines = [(0, DENSE, 0, ERROR, 0, 1.0), (0, DENSE, 0, TEST_BARRIER, 0, 4.0)]
    (group,) = grouped([stored(lines), stored([lines[0], (*lines[1][:-1], 5.0)])])
    assert "some, 2 files below results: 1 rows have different values in several files" in caplog.text
    assert list(group.values(TEST_BARRIER)) == [4.0]


def test_a_restarted_dense_network_is_another_training_setting():
    groups = grouped([errors(1, [1.0], [1.1]), errors(1, [1.5], [1.6], restart_dense=True)])
    assert [g.restarted for g in groups] == [False, True]
    assert groups[1].title == "some, resnet-20, 1000 iterations, level 0 restarted"


def test_commands_that_differ_in_seed_or_settings_have_their_own_files_and_come_together(store, tmp_path):
    experiment = papers.get("stabilizing.instability")
    asked = [{"seed": 0}, {"seed": 2}, {"points": 4}, {"examples": 50}, {"orders": 3}]
    frames = []
    for options in asked:
        given = {"replicates": 1, "levels": 1, "points": 3, "orders": 2, "rewind_to": ("0it",), **options}
        chosen = experiment.options(small_recipe(steps="10it"), given)
        frames.append(experiment.run(chosen, Serial(store)))
        save_experiment(experiment, chosen, frames[-1], tmp_path / "out", "lotto run it", 1.0)
    assert len(list(tmp_path.rglob("instability.csv"))) == len(asked), "none has taken the place of another"
    (group,) = grouped(read_below(tmp_path))
    stored_rows = group.rows(TEST_BARRIER)
    assert len(stored_rows) == sum(len(TEST_BARRIER.of(frame)) for frame in frames), "no row has vanished"
    about = json.loads(next((tmp_path / "out").glob("instability.json")).read_text())
    assert about["options"]["seed"] == 0
    by_hand = {frame["seed"].iloc[0]: TEST_BARRIER.of(frame)["value"].mean() for frame in frames[:2]}
    assert by_seed(group.values(TEST_BARRIER, orders=2, points=3)) == pytest.approx(by_hand)
