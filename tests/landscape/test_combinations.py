"""Positions between networks, first layer combined, against whole networks evaluated one by one."""

from __future__ import annotations

import numpy as np
import pytest

import lotto
from conftest import small_recipe
from lotto import Job
from lotto.landscape import path, plane
from lotto.landscape.combinations import first_layer_dominates
from lotto.landscape.path import PathTask
from lotto.landscape.plane import PlaneTask
from lotto.training.loop import train
from lotto.training.network import Network


@pytest.fixture(scope="module")
def networks():
    recipe = small_recipe(model="mlp-24-8", precision="float64", loss="cross-entropy")
    return recipe, [dict(train(Job(recipe, init_seed=seed)).weights) for seed in range(3)]


def test_a_path_is_that_of_whole_networks(networks, monkeypatch):
    recipe, (a, b, _) = networks
    steps = []
    task = PathTask(recipe, a, b, 7, ("test", "train"))
    quick = task.execute(lambda step, loss: steps.append(step))
    assert steps == sorted(steps)
    assert steps[-1] == task.size
    monkeypatch.setattr(path, "first_layer_dominates", lambda recipe, network: False)
    slow = task.execute()
    for split in ("test", "train"):
        assert quick["error"][split] == slow["error"][split]
        assert quick["loss"][split] == pytest.approx(slow["loss"][split], rel=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_ends_are_exact(networks, precision):
    recipe, (a, b, _) = networks
    recipe = recipe.replace(precision=precision)
    found = lotto.landscape.evaluate_path(recipe, a, b, 3)
    for end, weights in ((0, a), (-1, b)):
        whole = lotto.evaluate(recipe, weights)
        assert (found.loss["test"][end], found.error["test"][end]) == (whole.loss, whole.error)


def test_a_part_of_the_examples(networks, monkeypatch):
    recipe, (a, b, _) = networks
    quick = PathTask(recipe, a, b, 3, examples=30).execute()
    monkeypatch.setattr(path, "first_layer_dominates", lambda recipe, network: False)
    slow = PathTask(recipe, a, b, 3, examples=30).execute()
    assert quick["error"] == slow["error"]


def test_a_plane_is_that_of_whole_networks(networks, monkeypatch):
    recipe, (a, b, c) = networks
    task, steps = PlaneTask(recipe, a, b, c, points=4), []
    quick = task.execute(lambda step, loss: steps.append(step))
    assert steps[-1] == task.size
    monkeypatch.setattr(plane, "first_layer_dominates", lambda recipe, network: False)
    slow = task.execute()
    assert quick["error"] == slow["error"]
    assert np.array(quick["loss"]) == pytest.approx(np.array(slow["loss"]), rel=1e-10)
    assert (quick["x"], quick["y"]) == (slow["x"], slow["y"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "mlp-24-8"}, True),
        ({"model": "mlp-24-8", "precision": "bfloat16"}, False),
        ({"model": "mlp-24-64"}, False),
    ],
)
def test_when_it_is_worth_it(changes, expected):
    recipe = small_recipe(**changes)
    assert first_layer_dominates(recipe, Network(recipe, recipe.initial(0))) == expected
