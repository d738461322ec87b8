from __future__ import annotations

import numpy as np
import pytest
import torch

import lotto
from lotto import recipes
from lotto.recipe.objectives import rmse
from lotto.training.evaluation import evaluate


def test_the_root_of_the_mean_squared_error_is_of_all_examples_at_once_whatever_the_batches():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, 5)), rng.normal(size=(70, 2))
    data = lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:])
    recipe = lotto.Recipe("mlp-6", data, loss="mse", error="rmse", batch_size=10, steps="1it", precision="float64")
    weights = recipe.initial(0)
    hidden = np.maximum(x[40:] @ weights["fc1.weight"].double().numpy().T + weights["fc1.bias"].double().numpy(), 0)
    outputs = hidden @ weights["fc2.weight"].double().numpy().T + weights["fc2.bias"].double().numpy()
    expected = float(np.sqrt(((outputs - y[40:]) ** 2).mean()))
    for size in (None, 7):
        loss, error = evaluate(recipe.replace(eval_batch_size=size), weights)
        assert error == pytest.approx(expected, rel=1e-6)
        assert loss == pytest.approx(expected**2, rel=1e-6)
    assert (recipe.error_title, recipe.in_points, str(recipe.margin)) == ("rmse", False, "5%")


def test_classes_count_as_one_hot_vectors():
    assert float(rmse(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0, 1]))) == pytest.approx((0.5 / 4) ** 0.5)


def test_the_error_of_a_named_set_of_numbers_is_known_before_it_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path / "cache"))
    assert recipes.get("mlp-diamonds", error=None).error_name == "mse"
    assert recipes.get("gru-vowels").error_name == "misclassification"
    assert not (tmp_path / "cache").exists()
