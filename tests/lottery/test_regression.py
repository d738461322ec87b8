"""Regressions: tolerances and thresholds are in the metric's unit, never in percentage points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lotto
from lotto.core.errors import UsageError
from lotto.experiments.results import tolerance_of
from lotto.landscape.stability import instability
from lotto.pruning import masks
from lotto.recipe.tolerance import Tolerance
from lotto.report.metric import Metric
from lotto.report.save import load_result, save_result
from lotto.report.table import columns, console_table


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def regression(**changes: object) -> lotto.Recipe:
    """A target of variance about 0.005: any network is within 0.2 of any other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 10)).astype("float32")
    y = (0.1 * np.tanh(x[:, 0] + x[:, 1] * x[:, 2])).astype("float32")
    data = lotto.data.Arrays(x[:600], y[:600], x[600:], y[600:])
    made = {"model": net, "data": data, "optimizer": lotto.Adam(1e-2), "batch_size": 50, "steps": "200it", **changes}
    return lotto.Recipe(loss="mse", **made)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> lotto.lottery.ImpResult:
    store = tmp_path_factory.mktemp("store")
    return lotto.imp(regression(), levels=3, rate=0.9, replicates=1, controls=(), jobs=1, store=store)


def test_the_default_tolerance_of_a_regression_is_a_part_of_the_dense_error(result) -> None:
    table = result.table()
    dense, variance = table["error"][0], float(regression().arrays.y["test"].var())
    assert dense < 0.5 * variance
    assert list(table["verdict"][:3]) == ["dense", *["not decided (n = 1)"] * 2]
    within = [e <= 1.05 * dense for e in table["error"]]
    assert not within[-1]
    assert result.likely_level == within.index(False) - 1
    assert result.sparsest_matching().density == 1.0


def test_a_relative_tolerance_moves_with_each_replicates_dense_error(tmp_path) -> None:
    found = lotto.imp(regression(), levels=2, rate=0.5, replicates=3, controls=(), jobs=1, store=tmp_path)
    errors = np.array([[at.run.test_error for at in levels] for levels in found.replicates])
    for level in (1, 2):
        beyond = errors[:, level] - 1.05 * errors[:, 0]  # what is bounded: below 0, each is within its own limit
        half = 2.919985580353724 * beyond.std(ddof=1) / np.sqrt(3)  # Student's t of two degrees of freedom at 95 %
        expected = "matching" if beyond.mean() + half < 0 else "failing" if beyond.mean() > half else "borderline"
        row = found.table().iloc[level]
        assert row["verdict"] == expected
        assert row["gap"] == pytest.approx((errors[:, level] - errors[:, 0]).mean())
        limit = 0.05 * errors[:, 0].mean()
        assert row["gap_high"] == pytest.approx(limit + beyond.mean() + half)
        assert row["gap_low"] == pytest.approx(limit + beyond.mean() - half)


def test_a_stated_tolerance_is_in_the_metrics_unit_and_an_empty_network_never_matches(result) -> None:
    recipe = regression(tolerance=10.0)
    found = lotto.imp(recipe, levels=3, rate=0.95, replicates=2, controls=(), jobs=1)
    table = found.table()
    assert table["verdict"].iloc[-1] == "no weights"
    assert table["density"].iloc[-1] == 0.0
    assert list(table["matching"]) == [True, True, True, False]
    with pytest.raises(UsageError, match="no weight"):
        found.ticket(3).save("nowhere.safetensors")


def test_a_ticket_with_a_dead_layer_says_which(result, tmp_path, caplog) -> None:
    recipe = regression(tolerance=10.0, pruning=lotto.pruning.Pruning(rates={"2.weight": 0.999}))
    found = lotto.imp(recipe, levels=1, rate=0.5, replicates=2, controls=(), jobs=1)
    ticket = found.sparsest_matching()
    assert masks.empty_layers(ticket.mask) == ["2"]
    assert ticket.warning.endswith("weights: 2.")
    assert ticket.warning in caplog.text
    assert ticket.warning.rstrip(".") in repr(ticket)
    assert lotto.Ticket.load(ticket.save(tmp_path / "ticket.safetensors")).warning == ticket.warning
    assert result.ticket(0).warning == ""


def test_stability_of_a_regression_is_measured_by_its_own_error(tmp_path) -> None:
    recipe = regression()
    found = instability(recipe, "0it", order_seeds=(1, 2), store=tmp_path, points=5, splits=("test",))
    mean = float(np.mean(found.errors))
    assert found.threshold == pytest.approx(0.1 * mean)
    assert found.stable == (found.barrier().mean < 0.1 * mean)
    stated = instability(
        recipe.replace(tolerance=0.5), "0it", order_seeds=(1, 2), store=tmp_path, points=5, splits=("test",)
    )
    assert stated.threshold == 1.0


def test_adaptive_pruning_of_a_regression_keeps_no_collapsed_network(tmp_path) -> None:
    found = lotto.imp(regression(), adaptive=True, density=0.05, replicates=1, controls=(), jobs=1, store=tmp_path)
    dense = found.table()["error"][0]
    for trial in found.trials:
        assert trial.kept == (trial.error <= 1.05 * dense + 1e-12 and trial.barrier <= 0.1 * dense)
    assert found.likely_level == len(found.table()) - 1


def test_tables_and_reports_call_an_error_by_its_name(result, tmp_path) -> None:
    metric = Metric.of(result.plan.recipe)
    titles = dict(columns(result.table(), metric))
    assert "error, mse (n=1)" in titles
    assert not any("%" in title for title in titles)
    assert titles["gap"][-1] not in ("+0.00", "+0.01")
    caption = console_table(result.table(), metric).caption
    assert "test mse" in caption
    assert "below 5% of the dense mse" in caption
    paths = save_result(result, tmp_path, "a command", 1.0)
    assert Metric.of_result(load_result(tmp_path)) == metric
    assert "test mse" in paths["report"].read_text()
    assert "test error" not in paths["report"].read_text().replace("Error against", "")


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs.argmax(1) - targets) ** 2).double().mean()


def test_a_number_of_points_is_not_taken_along_to_another_metric() -> None:
    recipe = lotto.recipes.mlp_mnist1d()
    assert recipe.margin == Tolerance(1.0)
    assert recipe.replace(error="mse").margin == Tolerance(0.05, relative=True)
    assert recipe.replace(error=squared).margin == Tolerance(0.05, relative=True)
    assert recipe.replace(error=squared, tolerance=2).margin == Tolerance(2.0)
    assert recipe.replace(error=squared).error_title == "squared"
    assert recipe.replace(tolerance="10%").replace(error="mse").margin == Tolerance(0.1, relative=True)
    assert lotto.recipes.lenet_mnist_sgd().margin == Tolerance(0.2)
    assert lotto.recipes.lenet_mnist_sgd().describe()["tolerance"] == 0.2
    assert regression().describe()["tolerance"] == "5%"


@pytest.mark.parametrize("given", ["five %", -1, "-1%", float("nan"), "inf", True, [1], "%"])
def test_what_is_no_tolerance_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match="tolerance"):
        regression(tolerance=given)


def test_rows_of_experiments_are_in_the_metrics_unit() -> None:
    from lotto.experiments.case import At, Case
    from lotto.experiments.measures import BARRIERS, ERROR, IMP
    from lotto.experiments.options import Options

    def units(recipe: lotto.Recipe) -> list[str]:
        case = Case(Options(recipe), 0, 0)
        wanted = (ERROR, BARRIERS["interpolate", "test", "loss"])
        return [case.row(At(0, 1.0), IMP, measure, 0.5)["unit"] for measure in wanted]

    assert units(lotto.recipes.mlp_mnist1d()) == ["points", "nats"]
    assert units(regression()) == ["mse", "loss"]


def test_a_stored_relative_tolerance_is_of_the_stored_dense_error() -> None:
    frame = pd.DataFrame(
        {"measure": ["error"] * 2, "unit": ["points"] * 2, "level": [0, 1], "value": [4.0, 9.0], "density": 1.0}
    )
    assert tolerance_of({"tolerance": "5%"}, frame) == pytest.approx(0.2)
    assert tolerance_of({"tolerance": 0.3}, frame) == 0.3
