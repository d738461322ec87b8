"""BatchNorm statistics are re-estimated exactly over the examples that are used, whatever their number."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lotto
from lotto.core.errors import UsageError
from lotto.landscape.batchnorm import recompute_statistics, statistics_batch
from lotto.landscape.path import PathTask
from lotto.training.evaluation import evaluate
from lotto.training.network import Network


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.n(self.a(x)).relu())


class Deep(nn.Module):
    """Layers behind each other, one of them used twice, one that averages cumulatively, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.m = nn.Linear(6, 6), nn.BatchNorm1d(6, momentum=None), nn.BatchNorm1d(6, affine=False)
        self.o, self.b = nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.o(self.m(self.a(self.n(self.a(x)).relu()))).relu())


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.n = nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4)
        self.d, self.m, self.b = nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n(self.c(x.view(-1, 1, 2, 3))).relu()
        return self.b(self.m(self.d(x.unsqueeze(1))).flatten(1))


def recipe_of(model: Any, n: int, **changes: Any) -> lotto.Recipe:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n + 100, 6)) * [1, 2, 3, 4, 5, 6] + np.linspace(0, 40, n + 100)[:, None]).astype("float32")
    y = rng.integers(0, 3, n + 100)
    data = lotto.data.Arrays(x[:n], y[:n], x[n:], y[n:])
    return lotto.Recipe(model, data, lotto.SGD(0.1), batch_size=min(50, n), steps="1it", **changes)


def norms(module: nn.Module) -> dict[str, Any]:
    return {
        n: m
        for n, m in module.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    }


def in_one_batch(recipe: lotto.Recipe, weights: Any, count: int) -> nn.Module:
    """The slow reference: one forward of all examples in float64, whose statistics are kept."""
    module = recipe.build()
    module.load_state_dict(weights)
    module = module.double().eval()
    for norm in norms(module).values():
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(recipe.arrays.x["train"][:count].double())
    return module.eval()


@pytest.mark.parametrize("n", [2, 999, 1000, 1001, 1002, 2003, 3001])
@pytest.mark.parametrize("model", [One, Deep, Images])
def test_statistics_are_those_of_one_batch_of_all_examples(model: Any, n: int) -> None:
    recipe = recipe_of(model, n)
    weights = recipe.initial(0)
    network = Network(recipe, weights)
    momenta = {name: norm.momentum for name, norm in norms(network.module).items()}
    recompute_statistics(recipe, network)
    expected = norms(in_one_batch(recipe, weights, n))
    for name, norm in norms(network.module).items():
        torch.testing.assert_close(norm.running_mean, expected[name].running_mean.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var, expected[name].running_var.float(), rtol=1e-4, atol=1e-4)
        assert norm.momentum == momenta[name]
        assert not norm.training
        assert not norm._forward_hooks


@pytest.mark.parametrize("size", [2, 7, 333, 1000])
@pytest.mark.parametrize("n", [1001, 1002])
def test_batches_of_any_size_give_the_first_layer_the_statistics_of_all_examples(n: int, size: int) -> None:
    recipe = recipe_of(One, n, eval_batch_size=size).replace(batch_size=2)
    weights = recipe.initial(0)
    network = Network(recipe, weights)
    assert statistics_batch(recipe, network) == size
    recompute_statistics(recipe, network)
    expected = in_one_batch(recipe, weights, n).n
    torch.testing.assert_close(network.module.n.running_mean, expected.running_mean.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.module.n.running_var, expected.running_var.float(), rtol=1e-5, atol=1e-5)


def test_at_most_so_many_examples_are_used() -> None:
    recipe = recipe_of(One, 3001, bn_examples=1234)
    weights = recipe.initial(0)
    network = Network(recipe, weights)
    recompute_statistics(recipe, network)
    expected = in_one_batch(recipe, weights, 1234).n
    torch.testing.assert_close(network.module.n.running_mean, expected.running_mean.float(), rtol=1e-5, atol=1e-5)


def test_a_path_has_the_error_of_exact_statistics() -> None:
    recipe = recipe_of(One, 1001)
    weights = recipe.initial(0)
    exact = {
        n: t.float() if t.is_floating_point() else t
        for n, t in in_one_batch(recipe, weights, 1001).state_dict().items()
    }
    found = PathTask(recipe, weights, weights, 2, batchnorm="recompute").execute()
    assert found["loss"]["test"][0] == pytest.approx(evaluate(recipe, exact).loss, rel=1e-5)


def test_a_single_value_has_no_variance() -> None:
    recipe = recipe_of(One, 5)
    with pytest.raises(UsageError, match="1 training examples"):
        recompute_statistics(recipe, Network(recipe, recipe.initial(0)), examples=1)


def test_the_number_of_examples_is_part_of_what_a_path_is_only_where_it_is_used() -> None:
    one, few = recipe_of(One, 500), recipe_of(One, 500, bn_examples=100)
    a, b = one.initial(0), one.initial(1)
    assert lotto.Job(one).key == lotto.Job(few).key
    keys = {p: [PathTask(r, a, b, 2, batchnorm=p).key for r in (one, few)] for p in ("interpolate", "recompute")}
    assert None not in (*keys["interpolate"], *keys["recompute"])
    assert keys["interpolate"][0] == keys["interpolate"][1]
    assert keys["recompute"][0] != keys["recompute"][1]


def test_layers_that_are_called_with_names_or_not_at_all_are_left_in_order() -> None:
    recipe = recipe_of(Named, 60)
    network = Network(recipe, recipe.initial(0))
    recompute_statistics(recipe, network)
    plain = copy.deepcopy(network.module).n
    assert float(plain.running_var.sum()) != 8.0
    assert float(network.module.unused.running_var.sum()) == 8.0


class Named(One):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.n(input=self.a(x)).relu())
