"""Evaluation gets as many examples at once as memory allows, which changes results within rounding only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lotto
from lotto.core.errors import UsageError
from lotto.recipe.presets import PRESETS
from lotto.training.batch_size import BATCH, activations, eval_batch
from lotto.training.evaluation import evaluate
from lotto.training.loop import train
from lotto.training.network import Network


class Wide(nn.Module):
    """One activation of 256 kB for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.h = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.c(x).relu().mean((2, 3)))


def images(**changes: Any) -> lotto.Recipe:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(620, 1, 64, 64)).astype("float32"), np.arange(620) % 2
    data = lotto.data.Arrays(x[:20], y[:20], x[20:], y[20:])
    return lotto.Recipe(Wide, data, lotto.SGD(0.1), batch_size=4, steps="2it", arithmetic="dense", **changes)


def test_a_network_with_large_activations_gets_fewer_examples_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = images()
    network = Network(recipe, recipe.initial(0))
    assert activations(recipe, network).largest == 16 * 64 * 64 * 4
    assert eval_batch(recipe, network) == 256  # 64 MiB
    assert network.module.training == Network(recipe, recipe.initial(0)).module.training
    seen, call = set(), Network.__call__

    def counted(network: Network, x: Tensor) -> Tensor:
        seen.add((network.module.training, len(x)))
        return call(network, x)

    monkeypatch.setattr(Network, "__call__", counted)
    train(lotto.Job(recipe))
    assert max(size for training, size in seen if training) == 4
    assert max(size for training, size in seen if not training) == 256


@pytest.mark.parametrize("size", [1, 37, 600, 5_000])
def test_the_size_of_a_batch_changes_no_metric(size: int) -> None:
    weights = images().initial(0)
    torch.testing.assert_close(
        torch.tensor(evaluate(images(eval_batch_size=size), weights)), torch.tensor(evaluate(images(), weights)),
        rtol=1e-5, atol=0.0,
    )  # fmt: skip
    assert lotto.Job(images(eval_batch_size=size)).key == lotto.Job(images()).key


@pytest.mark.parametrize("given", [0, -1, 1.5, "many", True])
def test_what_is_no_size_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="eval_batch_size"):
        images(eval_batch_size=given)


@pytest.mark.parametrize("name", ["mlp-mnist1d", "conv2-cifar10", "conv2-cifar10-fast", "vgg16-cifar10-fast"])
def test_presets_are_evaluated_on_a_thousand_examples_at_once(name: str) -> None:
    recipe = PRESETS[name]()
    if name != "mlp-mnist1d":  # their shapes on made-up images
        x, y = np.zeros((200, 3, 32, 32), "uint8"), np.arange(200) % 10
        x[0] = 255
        recipe = recipe.replace(data=lotto.data.Arrays(x, y, x, y), validation=0)
    assert eval_batch(recipe, Network(recipe, recipe.initial(0))) == BATCH
