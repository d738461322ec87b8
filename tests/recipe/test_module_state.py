"""States that cannot be kept, gradients that cannot be masked, outputs that no loss reads: one sentence, before training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.training.loop import train


class Extra(nn.Module):
    kept: object = None

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 6)

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        self.kept = state

    def forward(self, x):
        return self.a(x)


class TensorExtra(Extra):
    def get_extra_state(self):
        return torch.tensor([3.0])


class Without(Extra):
    get_extra_state, set_extra_state = nn.Module.get_extra_state, nn.Module.set_extra_state


class Inside(nn.Sequential):
    def __init__(self):
        super().__init__(Extra())


def lazy():
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(6))


def no_longer_lazy():
    module = lazy()
    module(torch.zeros(1, 12))
    return module


def lazy_norm():
    return nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(12, 6))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 6)

    def forward(self, x):
        return self.a(x), x


class Nothing(Pair):
    def forward(self, x):
        return {"loss": self.a(x).sum(), "names": "abc"}


class SparseParameter(Pair):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.eye(6).to_sparse())


class SparseGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.a = nn.Embedding(10, 12, sparse=True), nn.Linear(12, 6)

    def forward(self, x):
        return self.a(self.table(x).mean(1))


def tokens():
    x = np.random.default_rng(0).integers(0, 10, (80, 5))
    return lotto.data.Arrays(x[:60], x[:60, 0] % 6, x[60:], x[60:, 0] % 6)


REFUSED = [
    (Extra, r"Extra \(the model itself\) has extra state that is no tensor"),
    (Inside, r"Extra \(0\) has extra state that is no tensor"),
    (lazy, r"'0\.weight' is lazy.*net\(torch\.zeros"),
    (lazy_norm, r"'0\.weight' is lazy"),
    (SparseParameter, "has the layout torch.sparse_coo"),
    (Nothing, r"returns a dict without a tensor that has the examples along its first axis"),
]


@pytest.mark.parametrize(("model", "text"), REFUSED)
def test_refused_in_one_sentence_before_training(model, text, store):
    recipe = small_recipe(model=model, init="module")
    for ask in (
        lambda: lotto.train(recipe, store=store),
        lambda: lotto.imp(recipe, levels=1, replicates=1, controls=(), jobs=1, store=store),
    ):
        with pytest.raises(UsageError, match=text):
            ask()


def test_sparse_gradients_are_refused(store):
    recipe = small_recipe(model=SparseGradient, init="module", data=tokens())
    with pytest.raises(UsageError, match=r"gradient of 'table\.weight' is sparse.*sparse=False"):
        lotto.train(recipe, store=store)


@pytest.mark.parametrize("model", [TensorExtra, Without, no_longer_lazy])
def test_what_can_be_kept_is(model):
    recipe = small_recipe(model=model, init="module", steps="6it")
    whole = train(Job(recipe, keep=(3,)))
    assert same_tensors(whole.weights, train(Job(recipe, start=whole.state(3), from_step=3)).weights)


def first(outputs, targets):
    return F.cross_entropy(outputs[0], targets)


def test_functions_of_ones_own_may_read_a_tuple(store):
    recipe = small_recipe(model=Pair, init="module", loss=first, error=first, steps="6it")
    run = lotto.train(recipe, store=store)
    assert run.test_error == pytest.approx(run.test_loss)
