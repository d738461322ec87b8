"""SNIP, GraSP and SynFlow against float64 by hand: gradients of a training step, removed weights, products of matrices."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.lottery.scoring import score_task, score_weights
from lotto.pruning import at_init, masks, prune


class Curved(nn.Module):
    """Two derivatives everywhere, and BatchNorm between the layers."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(12, 7), nn.BatchNorm1d(7), nn.Linear(7, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.fc2(self.drop(torch.tanh(self.norm(self.fc1(x)))))


def curved(**changes):
    return small_recipe(model=Curved, precision="float64", init="module", batch_size=240, **changes)


class Straight(nn.Module):
    """A perceptron without biases; another activation may be given."""

    def __init__(self, widths=(12, 9, 8, 6), activation=torch.relu):
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.activation = activation

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def straight(**changes):
    return small_recipe(model=partial(Straight, **changes), precision="float64", init="module")


def scores_of(recipe, weights, name, mask=None, **more):
    return score_weights(recipe, weights, mask, name, store=None, **more)


def step_loss(recipe, weights):
    """The loss of a step on all examples, its parameters, in float64 by torch alone: the batch's statistics, no dropout."""
    module = recipe.build().double()
    module.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in weights.items()})
    module.train()
    module.drop.eval()
    parameters = {n: p for n, p in module.named_parameters() if n in masks.ones(recipe)}
    x, y = recipe.arrays.x["train"].double(), recipe.arrays.y["train"]
    return F.cross_entropy(module(x), y), parameters


def squared_norm(recipe, weights, mask):
    loss, parameters = step_loss(recipe, masks.apply(weights, mask))
    found = torch.autograd.grad(loss, list(parameters.values()))
    return sum(float((g * mask[n]).square().sum()) for n, g in zip(parameters, found, strict=True))


def test_snip_is_weight_times_gradient_of_a_training_step():
    recipe = curved()
    weights = {n: t.double() if t.is_floating_point() else t for n, t in recipe.initial(1).items()}
    mask = prune(weights, masks.ones(recipe), 0.3)
    got = scores_of(recipe, weights, "snip", mask)
    loss, parameters = step_loss(recipe, masks.apply(weights, mask))
    for (name, w), g in zip(parameters.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True):
        torch.testing.assert_close(got[name], (w * g).abs().detach(), rtol=1e-9, atol=1e-15)
        assert not got[name][~mask[name]].any()


def test_snip_is_about_how_much_the_loss_changes_without_a_weight():
    recipe = curved()
    weights = recipe.initial(2)
    got = scores_of(recipe, weights, "snip")
    before = float(step_loss(recipe, weights)[0].detach())
    for at in [(0, 0), (3, 5), (6, 11)]:
        part = 1e-4
        less = {n: t.clone().double() if t.is_floating_point() else t for n, t in weights.items()}
        less["fc1.weight"][at] *= 1 - part
        change = abs(float(step_loss(recipe, less)[0].detach()) - before) / part
        assert change == pytest.approx(float(got["fc1.weight"][at]), rel=2e-2, abs=1e-6)


def test_grasp_is_how_the_gradients_norm_changes_without_a_weight():
    recipe = curved()
    weights = {n: t.double() if t.is_floating_point() else t for n, t in recipe.initial(3).items()}
    weights["fc2.weight"][0] *= 1e-3  # of small weights the first derivative says it all
    mask = masks.ones(recipe)
    mask["fc1.weight"][2] = False  # derivatives are over what is kept
    got = scores_of(recipe, weights, "grasp", mask)
    before = squared_norm(recipe, weights, mask)
    removed = [("fc2.weight", (0, column), 1.0) for column in range(7)]
    lessened = [("fc1.weight", (row, column), 1e-5) for row in (0, 5) for column in range(12)]
    for name, at, part in (*removed, *lessened):
        less = {n: t.clone() for n, t in weights.items()}
        less[name][at] *= 1 - part
        change = (squared_norm(recipe, less, mask) - before) / part
        assert change == pytest.approx(-2 * float(got[name][at]), rel=0.02, abs=1e-9), (name, at)
    assert float(got["fc1.weight"].abs().max()) > 1e-2
    assert float(got["fc2.weight"][0].abs().max()) > 1e-6
    assert not got["fc1.weight"][2].any()


def test_grasp_takes_first_what_raises_the_gradients_norm():
    recipe = curved()
    weights = {n: t.double() if t.is_floating_point() else t for n, t in recipe.initial(4).items()}
    weights["fc1.weight"] *= 0.05
    got, mask = scores_of(recipe, weights, "grasp"), masks.ones(recipe)
    before = squared_norm(recipe, weights, mask)
    new = prune(weights, mask, density=(masks.size(mask) - 1) / masks.size(mask), score=got)
    (name,) = [n for n in mask if not bool(new[n].all())]
    gone = {n: t.clone() for n, t in weights.items()}
    gone[name][~new[name]] = 0.0
    assert squared_norm(recipe, gone, mask) > before


def test_scores_of_several_batches_are_their_mean(monkeypatch):
    recipe = curved().replace(batch_size=20)
    weights = recipe.initial(0)
    monkeypatch.setattr(at_init, "EXAMPLES", 41)  # three batches of 20
    got = {name: scores_of(recipe, weights, name, seed=5) for name in ("snip", "grasp")}
    gradients, batches = [], list(recipe.arrays.batches(5, 0, 3, 20, None))
    module = recipe.build().double()
    module.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in weights.items()})
    module.train()
    module.drop.eval()
    parameters = {n: p for n, p in module.named_parameters() if n in masks.ones(recipe)}
    for x, y in batches:
        loss = F.cross_entropy(module(x.double()), y)
        gradients.append(torch.autograd.grad(loss, list(parameters.values()), create_graph=True))
    mean = [torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True)]
    inner = sum((g * g.detach()).sum() for g in mean)
    products = torch.autograd.grad(inner, list(parameters.values()))
    for (name, w), g, product in zip(parameters.items(), mean, products, strict=True):
        torch.testing.assert_close(got["snip"][name], (w * g).abs().detach(), rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(got["grasp"][name], (w * product).detach(), rtol=1e-8, atol=1e-14)


def flows_by_hand(matrices):
    """``|w · ∂R/∂w|`` of a chain of matrices fed ones, by products alone."""
    forward, found = [np.ones(matrices[0].shape[1])], []
    for matrix in matrices:
        forward.append(np.abs(matrix) @ forward[-1])
    back = np.ones(len(forward[-1]))
    for matrix, before in zip(reversed(matrices), reversed(forward[:-1]), strict=True):
        found.append(np.abs(matrix) * np.outer(back, before))
        back = np.abs(matrix).T @ back
    return found[::-1]


def test_synflow_of_a_chain_of_matrices_is_by_their_products():
    recipe = straight()
    weights = recipe.initial(0)
    got = scores_of(recipe, weights, "synflow")
    for (name, value), expected in zip(
        got.items(), flows_by_hand([w.double().numpy() for w in weights.values()]), strict=True
    ):
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-10, err_msg=name)


def test_synflow_to_a_density_is_a_hundred_rounds_by_hand():
    recipe = straight()
    weights, density = recipe.initial(1), 0.1
    matrices = [w.double().numpy().copy() for w in weights.values()]
    size = sum(m.size for m in matrices)
    wanted = round(density * size)
    kept = np.ones(size, dtype=bool)
    for number in range(1, 101):
        scores = np.concatenate([s.ravel() for s in flows_by_hand(matrices)])
        scores[~kept] = -1.0
        left = round(size * (wanted / size) ** (number / 100))
        kept = np.zeros(size, dtype=bool)
        kept[np.argsort(-scores, kind="stable")[:left]] = True
        flat = np.concatenate([m.ravel() for m in matrices]) * kept
        ends = np.cumsum([m.size for m in matrices])[:-1]
        matrices = [part.reshape(m.shape) for part, m in zip(np.split(flat, ends), matrices, strict=True)]
    scores = scores_of(recipe, weights, "synflow", density=density)
    mask = prune(weights, masks.ones(recipe), density=density, score=scores)
    assert masks.count(mask) == wanted
    assert np.array_equal(np.concatenate([m.numpy().ravel() for m in mask.values()]), kept)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 1000), st.floats(0.3, 1.0))
def test_synflow_flows_through_every_layer_alike(hidden, seed, part):
    recipe = straight(widths=(12, *hidden, 6))
    weights = recipe.initial(seed)
    mask = masks.ones(recipe) if part == 1.0 else masks.random_like(
        prune(weights, masks.ones(recipe), density=part, score="random"), seed
    )  # fmt: skip
    sums = [float(score.sum()) for score in scores_of(recipe, weights, "synflow", mask).values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9, abs=1e-12)


def test_what_synflow_prunes_early_lies_below_what_it_prunes_late():
    recipe = straight()
    weights, every = recipe.initial(2), []
    for density in (0.5, 0.25):
        scores = scores_of(recipe, weights, "synflow", density=density)
        flat = torch.cat([s.flatten() for s in scores.values()])
        wanted = round(density * len(flat))
        assert int((flat >= 0).sum()) == round(len(flat) * (wanted / len(flat)) ** 0.99)  # what the last round has
        every.append(prune(weights, masks.ones(recipe), density=0.7, score=scores))
    assert masks.count(every[0]) == masks.count(every[1])  # an order of all weights, also where more is kept


def around(part):
    return nn.Sequential(nn.Linear(12, 9), part, nn.Linear(9, 6))


@pytest.mark.parametrize(
    ("part", "takes"),
    [
        (nn.ReLU(), True), (nn.LeakyReLU(0.1), True), (nn.Identity(), True), (nn.Dropout(0.5), True),
        (nn.BatchNorm1d(9), True), (nn.Sequential(nn.Unflatten(1, (1, 9)), nn.MaxPool1d(3, 1, 1), nn.Flatten()), True),
        (nn.Tanh(), False), (nn.Sigmoid(), False), (nn.GELU(), False), (nn.SiLU(), False), (nn.Softmax(1), False),
        (nn.LayerNorm(9), False), (nn.Hardtanh(), False), (nn.Softplus(), False), (nn.GroupNorm(3, 9), False),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_synflow_takes_networks_that_are_positively_homogeneous_alone(part, takes, scale):
    recipe = small_recipe(model=partial(around, part), precision="float64", init="module")
    weights = recipe.initial(0)
    weights["0.weight"] = weights["0.weight"] * scale
    if takes:
        assert all(bool((s >= 0).all()) for s in scores_of(recipe, weights, "synflow").values())
        return
    with pytest.raises(UsageError, match="for networks that are positively homogeneous"):
        scores_of(recipe, weights, "synflow")
    with pytest.raises(UsageError, match="for networks that are positively homogeneous"):
        lotto.imp(recipe, score="synflow", prune_at="init", levels=1, replicates=1)


def test_synflow_refuses_what_cannot_be_fed_ones_and_attention():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.words(x).mean(1))

    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 6)

        def forward(self, x):
            x = x.view(-1, 3, 4)
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    x, y = np.random.default_rng(0).integers(0, 20, (60, 5)), np.arange(60) % 3
    recipe = small_recipe(model=Words, init="module", data=lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:]))
    with pytest.raises(UsageError, match="feeds one tensor of ones, and the network takes numbers of the type int64"):
        scores_of(recipe, recipe.initial(0), "synflow")
    recipe = small_recipe(model=Attentive, init="module")
    with pytest.raises(UsageError, match="for networks that are positively homogeneous"):
        scores_of(recipe, recipe.initial(0), "synflow")


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_scores_at_initialisation_read_nothing_global_and_change_nothing(name):
    recipe = curved() if name != "synflow" else small_recipe()
    weights = recipe.initial(0)
    before = {n: t.clone() for n, t in weights.items()}
    torch.manual_seed(1)
    one = scores_of(recipe, weights, name, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    two = scores_of(recipe, weights, name, seed=3)
    assert all(torch.equal(one[n], two[n]) for n in one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[n], before[n]) for n in weights)


def test_a_score_that_asks_for_the_density_is_told_what_its_cut_leaves(store):
    told = []

    def counting(context, density=None):
        told.append(density)
        return {n: w.abs() for n, w in context.weights.items()}

    recipe = small_recipe()
    weights, mask = recipe.initial(0), masks.ones(recipe)
    prune(weights, mask, density=0.25, score=counting)
    prune(weights, mask, 0.5, score=counting)
    once = prune(weights, mask, 0.5, score=counting, allocation="layer", rates={"fc3": 0.0})
    assert told == [0.25, 0.5, masks.density(once)]
    prune(weights, once, 0.5, score=counting)
    assert told[-1] == masks.density(prune(weights, once, 0.5))  # of all prunable weights


def test_the_density_is_in_the_key_of_those_scores_alone():
    recipe = small_recipe()
    weights, mask = recipe.initial(0), masks.ones(recipe)

    def key(score, density):
        return score_task(recipe, score, weights, mask, density=density).key

    assert key("snip", 0.5) == key("snip", 0.1) == key("snip", None)
    assert "density" not in score_task(recipe, "snip", weights, mask, density=0.5).description
    assert len({key("synflow", density) for density in (None, 0.5, 0.1)}) == 3
    with pytest.raises(UsageError, match="A target density is greater than 0 and less than 1"):
        scores_of(recipe, weights, "synflow", density=1.5)
