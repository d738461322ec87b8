"""Pruned recurrent and attention matrices stay pruned, in every way of computing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import lotto
from conftest import small_recipe
from lotto import Adam, Job, Recipe
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.training.loop import train, train_stack


def tokens():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 9, size=(120, 6))
    y = (x[:, :3].sum(1) > x[:, 3:].sum(1)).astype(np.int64)
    return lotto.data.Arrays(x[:80], y[:80], x[80:], y[80:])


class Recurrent(nn.Module):
    kind: type[nn.RNNBase] = nn.LSTM

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(9, 5), self.kind(5, 6, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.inner(self.embed(x))[0][:, -1])


class GRU(Recurrent):
    kind = nn.GRU


class RNN(Recurrent):
    kind = nn.RNN


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(9, 5), nn.GRUCell(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        state = None
        for part in self.embed(x).unbind(1):
            state = self.cell(part, state)
        return self.head(state)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 2)
        self.inner = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.head(self.inner(self.embed(x)).mean(1))


def recipe_of(model):
    return Recipe(model, tokens(), Adam(1e-2, weight_decay=1e-3), batch_size=20, steps="8it", evaluations=0)


def half(recipe):
    return masks.random_like(lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), 0.5), 1)


@pytest.mark.parametrize("model", [Recurrent, GRU, RNN, Cell, Encoder])
def test_pruned_matrices_are_zero_after_every_step_and_in_use(model):
    recipe = recipe_of(model)
    mask = half(recipe)
    assert len(mask) > 2
    assert "embed.weight" not in mask
    run = train(Job(recipe, mask=mask, keep=tuple(range(8))))
    start = run.at(0)
    for step in range(9):
        weights = run.at(step)
        for name, keep in mask.items():
            assert torch.equal(weights[name] != 0, keep & (weights[name] != 0))
            assert step == 0 or not torch.equal(weights[name], start[name])
    plain = model()
    plain.load_state_dict(run.weights)
    x, y = torch.from_numpy(recipe.arrays.x["test"].numpy()), recipe.arrays.y["test"]
    with torch.no_grad():
        wrong = (plain.eval()(x).argmax(1) != y).double().mean()
    assert run.test_error == pytest.approx(100 * float(wrong), abs=1e-9)


@pytest.mark.parametrize("model", [Recurrent, GRU, RNN, Cell, Encoder])
@pytest.mark.parametrize("training", [True, False])
def test_weights_given_to_a_functional_call_are_those_in_use(model, training):
    # Recurrent layers hold their weights a second time, in a flat list.
    recipe, other = recipe_of(model), model()
    weights = masks.apply(recipe.initial(3), half(recipe))
    plain = model()
    plain.load_state_dict(weights)
    plain.train(training), other.train(training)
    x = torch.from_numpy(recipe.arrays.x["test"].numpy())
    names = [n for n, _ in plain.named_parameters()]
    given = {n: weights[n].clone().requires_grad_() for n in names}
    found, expected = functional_call(other, given, (x,)), plain(x)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other(x), expected, atol=1e-4)
    found.sum().backward()
    expected.sum().backward()
    for name, parameter in plain.named_parameters():
        assert torch.allclose(given[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("model", [Cell, Encoder])
def test_stacked_matrices_stay_pruned_and_end_as_those_of_one(model):
    recipe = recipe_of(model)
    mask = half(recipe)
    jobs = [Job(recipe, seed, seed, mask=masks.random_like(mask, seed)) for seed in (0, 1)]
    for job, run in zip(jobs, train_stack(jobs), strict=True):
        for name, keep in job.mask.items():
            assert not run.weights[name][~keep].any()
        alone = train(job)
        for name, tensor in alone.weights.items():
            assert torch.allclose(run.weights[name], tensor, rtol=1e-3, atol=1e-4)


def test_recurrent_layers_in_a_stack_are_one_sentence():
    recipe = recipe_of(Recurrent)
    with pytest.raises(UsageError, match=r"cannot train stacked: .* Use a stack of 1\."):
        train_stack([Job(recipe, seed) for seed in (0, 1)])


def test_a_level_of_imp_prunes_recurrent_matrices_as_all_others():
    result = lotto.imp(recipe_of(Recurrent), levels=2, rate=0.5, replicates=1, controls=("reinit", "random"), jobs=1)
    level = result.replicates[0][2]
    assert set(level.mask) == {"head.weight", *(n for n, _ in Recurrent().named_parameters() if ".weight_" in n)}
    assert level.mask.density == pytest.approx(0.25, abs=1e-3)
    for run in (level.run, *level.controls.values()):
        zeros = {n: (run.weights[n] == 0).sum() for n in level.mask}
        assert all(zeros[n] >= (~m).sum() for n, m in level.mask.items())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("density", [0.1, 0.6])
def test_a_mask_of_a_bias_is_held_in_perceptrons_too(momentum, density):
    recipe = small_recipe(optimizer__momentum=momentum)
    keep = torch.arange(24) % 2 == 0
    mask = {**lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), 1 - density), "fc1.bias": keep}
    bias = train(Job(recipe, mask=lotto.Mask(mask))).weights["fc1.bias"]
    assert not bias[~keep].any()
    assert bias[keep].any()


def test_a_mask_of_what_is_no_parameter_is_refused_before_training():
    def net():
        return nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6))

    with pytest.raises(UsageError, match=r"The mask has '1\.running_mean', which the model has not"):
        Job(small_recipe(model=net, init="module"), mask=lotto.Mask({"1.running_mean": torch.ones(6)}))
