"""An experiment is one generator: its keyword arguments are options, its cases are replicates at rewind steps."""

from __future__ import annotations

import pytest

from conftest import small_recipe
from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.experiments.case import At, Case
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import DENSE, ERROR, Measure
from lotto.experiments.options import Options
from lotto.training.job import Job

DOUBLED = Measure("doubled", "points", ("orders",))


@experiment("doubling", title="Twice the error", source="nobody's, figure 1", rewind_to=("3it",))
def doubling(case: Case, *, factor: int = 2, orders: int = 2):
    """A figure of one's own."""
    runs = yield {seed: Job(case.recipe, case.seed, seed) for seed in case.order_seeds(orders)}
    errors = [run.test_error for run in runs.values()]
    at = At(0, 1.0)
    return [*case.rows(at, DENSE, ERROR, errors), case.row(at, DENSE, DOUBLED, factor * errors[0], x=factor)]


def test_a_generator_s_keyword_arguments_are_the_options_of_its_experiment(store):
    recipe = small_recipe(steps="4it")
    given = {"replicates": 2, "factor": 3, "points": 9}
    options = doubling.options(recipe, given)
    assert options.rewind_steps == (3,), "the experiment's own, if none are given"
    assert doubling.own(options) == {"factor": 3, "orders": 2}, "points are for others"
    frame = doubling.run(options, Serial(store))
    assert list(frame) == [
        "replicate", "seed", "rewind_step", "level", "density", "parameter_fraction", "x", "orders", "kind", "measure",
        "unit", "sample", "value",
    ]  # fmt: skip
    assert list(frame["replicate"]) == [0, 0, 0, 1, 1, 1]
    first = ERROR.of(frame)
    assert list(first["sample"]) == [0, 1, 0, 1]
    doubled = DOUBLED.of(frame)
    assert list(doubled["value"]) == [3 * v for v in first[first["sample"] == 0]["value"]]
    assert set(doubled["x"]) == {3}
    assert set(doubled["orders"]) == {2}, "its measure depends on them"
    assert first["orders"].isna().all(), "errors do not"
    assert list(doubled["seed"]) == [0, 1]
    again = doubling.run(doubling.options(recipe, {"replicates": 1, "seed": 1}), Serial(store))
    assert list(again["seed"]) == [1, 1, 1]
    assert list(ERROR.of(again)["value"]) == list(first[first["seed"] == 1]["value"]), "one replicate, by its seed"
    assert doubling.paper == "test_experiment"
    assert doubling.describe(options) == {
        "replicates": 2, "rewind_to": [3], "levels": 10, "seed": 0, "factor": 3, "orders": 2,
    }  # fmt: skip


def test_an_option_that_no_experiment_has_is_named_before_anything_is_trained(store):
    for wrong in (lambda: doubling.options(small_recipe(), {"pionts": 3}), lambda: doubling.run(
        Options(small_recipe(), pionts=3), Serial(store)
    )):  # fmt: skip
        with pytest.raises(UsageError, match=r"Unknown option 'pionts'.*Did you mean 'points'"):
            wrong()
    assert not store.root.exists()


def test_the_former_name_of_eval_levels_works_and_warns():
    with pytest.warns(DeprecationWarning, match="look_at is eval_levels now"):
        assert Options(small_recipe(), look_at=(2,)).own == {"eval_levels": (2,)}


def test_every_experiment_of_the_papers_is_found_under_its_paper():
    for name, one in papers.EXPERIMENTS.items():
        assert name == f"{one.paper}.{one.name}"
        assert one.plot is not None
        assert one.procedure.__doc__


@pytest.mark.parametrize("flag", ["--eval-levels", "--look-at"])
def test_levels_to_evaluate_are_named_on_the_command_line_by_both_names(flag, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", "stabilizing.subnetworks", "mlp-mnist1d", "--levels", "2", flag, "1,9", "--out", str(tmp_path)])
    assert "There are the levels 1 to 2 to look at; got 9" in capsys.readouterr().err.replace("\n", " ")
