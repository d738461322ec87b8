"""Permutations of units: what they leave as it is, what finds a hidden one again, what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.landscape import permutation as module
from lotto.landscape.permutation import (
    MatchTask,
    Permutation,
    UnitAxis,
    UnitGroup,
    match_units,
    permuted,
    random_permutation,
    unit_groups,
)
from lotto.landscape.permutation import spaces as spaces_module
from lotto.landscape.permutation.groups import first_inputs, float64_network
from lotto.landscape.permutation.matching import match_by_weights
from lotto.landscape.permutation.orders import check_permutation
from lotto.pruning import masks
from lotto.pruning.channels import channel_spaces, traced
from lotto.training.learners import conv_networks

RESNET, PERCEPTRON, SIGNALS = "resnet-8-w4", "mlp-24-16", "resnet-8-w2"


class Branching(nn.Module):
    """Convolutions, a sum that joins channels, flattened channels: 2 groups of units."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(1, 5, 3, padding=1)
        self.norm = nn.BatchNorm1d(5)
        self.inner = nn.Conv1d(5, 4, 3, padding=1)
        self.back = nn.Conv1d(4, 5, 1, bias=False)
        self.pool, self.fc = nn.MaxPool1d(2), nn.Linear(5 * 6, 6)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x[:, None])))
        x = x + self.back(torch.relu(self.inner(x)))
        return self.fc(self.pool(x).flatten(1))


class Transformed(nn.Module):
    """Nothing between its layers that is understood."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(12, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.two(self.one(x).softmax(1))


class Tied(nn.Module):
    """A weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(12, 6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.three.weight = self.one.weight

    def forward(self, x):
        return self.three(torch.relu(self.two(torch.relu(self.one(x)))))


def recipe_of(model):
    if model is not RESNET:
        return small_recipe(model=model)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 3, 8, 8)).astype("float32")
    return small_recipe(model=model, data=lotto.data.Arrays(x[:40], np.arange(40) % 4, x[40:], np.arange(20) % 4))


def network_of(recipe, seed):
    """Weights that are no initialisation's: BatchNorm's vectors and statistics are drawn, too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: t + 0.3 * torch.rand(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in recipe.initial(seed).items()
    }


def outputs(recipe, weights):
    with torch.no_grad():
        return float64_network(recipe, weights)(first_inputs(recipe, 20))


MODELS = [PERCEPTRON, Branching, RESNET, SIGNALS]


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_permuted_networks_give_the_same_outputs(model, seed):
    recipe = recipe_of(model)
    weights, order = network_of(recipe, seed), random_permutation(unit_groups(recipe), seed)
    before, after = outputs(recipe, weights), outputs(recipe, permuted(order, weights))
    assert (before - after).abs().max() <= 1e-10 * max(1.0, before.abs().max())
    check_permutation(recipe, order, weights)
    assert same_tensors(permuted(order.inverse, permuted(order, weights)), weights)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_masking_and_permuting_commute(model, seed):
    recipe = recipe_of(model)
    weights, order = network_of(recipe, seed), random_permutation(unit_groups(recipe), seed)
    mask = masks.random_like(lotto.pruning.prune(weights, masks.ones(recipe), 0.7), seed)
    moved = permuted(order, mask)
    assert type(moved) is type(mask)
    assert masks.layer_densities(moved) == masks.layer_densities(mask)
    assert same_tensors(masks.apply(permuted(order, weights), moved), permuted(order, masks.apply(weights, mask)))


@pytest.mark.parametrize("method", ["weights", "activations"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_permutation_is_found_again(model, method, seed, store):
    recipe = recipe_of(model)
    weights, hidden = network_of(recipe, seed), random_permutation(unit_groups(recipe), seed + 7)
    assert match_units(recipe, weights, permuted(hidden, weights), method, store=store) == hidden
    assert match_units(recipe, weights, weights, method, store=store).moved == 0


def test_groups_are_the_channels_that_layers_share():
    groups = unit_groups(recipe_of(Branching))
    assert [(group.name, group.size) for group in groups] == [("stem", 5), ("inner", 4)]
    stem = {(axis.name, axis.axis, axis.positions) for axis in groups[0].axes}
    parts = {(f"norm.{part}", 0, 1) for part in ("weight", "bias", "running_mean", "running_var")}
    assert stem == parts | {
        ("stem.weight", 0, 1), ("stem.bias", 0, 1), ("inner.weight", 1, 1), ("back.weight", 0, 1), ("fc.weight", 1, 6)
    }  # fmt: skip
    assert {(axis.name, axis.axis) for axis in groups[1].axes} == {
        ("inner.weight", 0), ("inner.bias", 0), ("back.weight", 1)
    }  # fmt: skip


def test_a_residual_stream_is_one_group():
    groups = unit_groups(recipe_of(RESNET))
    streams = [group for group in groups if len(group.readers) > 1]
    assert streams
    assert all(axis.positions == 1 for group in groups for axis in group.axes)
    assert sum(group.size for group in groups) > 20


@pytest.mark.parametrize("model", [Branching, RESNET])
def test_layers_and_traced_forwards_tell_the_same_groups(model):
    recipe = recipe_of(model)
    module, inputs = recipe.build().eval(), first_inputs(recipe, 2)

    def told(spaces):
        return {
            (frozenset(space.producers), frozenset(space.norms), frozenset((n, p) for n, _, p in space.readers))
            for space in spaces
        }

    described = conv_networks.described(module, inputs.shape[1:])
    by_layers = spaces_module._Joined(module, described, inputs.shape[1:]).spaces()
    assert told(by_layers) == told(channel_spaces(traced(module), inputs)) != set()


def slow_best(a, b, groups):
    """All orders of small groups, tried one by one."""
    names = {axis.name for group in groups for axis in group.axes if "running" not in axis.name}
    best, found = -np.inf, None
    for orders in itertools.product(*(itertools.permutations(range(group.size)) for group in groups)):
        moved = permuted(Permutation(groups, orders), a)
        alike = sum(float((moved[name].double() * b[name].double()).sum()) for name in names)
        if alike > best:
            best, found = alike, orders
    return best, found


@pytest.mark.parametrize("seed", range(6))
def test_matching_by_weights_ends_where_no_group_can_do_better(seed):
    recipe = small_recipe(model="mlp-4-3")
    groups, (a, b) = unit_groups(recipe), (network_of(recipe, seed), network_of(recipe, seed + 50))
    best, _ = slow_best(a, b, groups)
    found = match_by_weights(groups, a, b, seed)

    def alike(orders):
        moved = permuted(Permutation(groups, tuple(orders)), a)
        return sum(float((moved[name].double() * b[name].double()).sum()) for name in a)

    reached = alike(found.orders)
    offset = sum(float((a[n].double() * b[n].double()).sum()) for n in a) - sum(
        float((a[n].double() * b[n].double()).sum()) for n in {axis.name for g in groups for axis in g.axes}
    )
    assert reached - offset <= best + 1e-9
    for i, group in enumerate(groups):  # of one group alone, every order
        for order in itertools.permutations(range(group.size)):
            assert alike([order if i == j else found.orders[j] for j in range(len(groups))]) <= reached + 1e-9


def test_matching_by_activations_takes_the_largest_correlations(store):
    recipe = small_recipe(model="mlp-4")
    (group,) = unit_groups(recipe)
    a, b = (network_of(recipe, seed) for seed in (1, 2))
    found = match_units(recipe, a, b, "activations", store=store)
    inputs = first_inputs(recipe, 240).double().numpy()
    units = []
    for weights in (a, b):
        names = [axis.name for axis in group.axes if axis.axis == 0]
        weight, bias = (weights[name].double().numpy() for name in names)
        units.append(np.maximum(inputs @ weight.T + bias, 0))
    correlation = np.corrcoef(units[1].T, units[0].T)[:4, 4:]
    sums = {order: sum(correlation[i, order[i]] for i in range(4)) for order in itertools.permutations(range(4))}
    assert sums[found.orders[0]] == pytest.approx(max(sums.values()))


def test_matching_does_not_hang_on_the_order_of_the_other_networks_units(store):
    recipe = recipe_of(PERCEPTRON)
    a, b = (network_of(recipe, seed) for seed in (1, 2))
    hidden = random_permutation(unit_groups(recipe), 5)
    for method in ("activations",):
        plain = permuted(match_units(recipe, a, b, method, store=store), a)
        moved = permuted(match_units(recipe, permuted(hidden, a), b, method, store=store), permuted(hidden, a))
        assert same_tensors(plain, moved)


def test_a_matching_is_remembered_by_what_it_depends_on(recipe):
    a, b = recipe.initial(0), recipe.initial(1)
    key = MatchTask(recipe, a, b).key
    assert key == MatchTask(recipe, a, b, label="other").key
    assert key != MatchTask(recipe, b, a).key
    assert key != MatchTask(recipe, a, b, examples=10).key
    assert MatchTask(recipe, a, b, "weights").key == MatchTask(recipe, a, b, "weights", 10).key


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda recipe, a: match_units(recipe, a, a, "signs"), "Unknown method of matching"),
        (lambda recipe, a: unit_groups(small_recipe(model=Transformed)), "No units of .*Transformed.* can be permuted"),
        (lambda recipe, a: unit_groups(small_recipe(model=Tied)), "No units of .*Tied.* can be permuted"),
        (lambda recipe, a: permuted(random_permutation(unit_groups(recipe)), {"x": torch.ones(3)}), "None of these"),
        (lambda recipe, a: Permutation((UnitGroup("fc", 2, (UnitAxis("w", 0),)),), ((0, 0),)), "each of the numbers"),
        (lambda recipe, a: Permutation(unit_groups(recipe), ()), "an order for each of 2 groups"),
        (
            lambda recipe, a: permuted(random_permutation(unit_groups(recipe)), {"fc1.weight": torch.ones(3, 3)}),
            "has the shape",
        ),
    ],
)
def test_what_cannot_be_permuted_is_refused(recipe, call, said):
    with pytest.raises(UsageError, match=said):
        call(recipe, recipe.initial(0))


class Reading(nn.Module):
    """A module that reads its units once more, where no trace of them is seen."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(12, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.two(torch.relu(self.one(x))) + self.one.bias[0]


def test_units_that_are_read_in_another_way_stay():
    with pytest.raises(UsageError, match="No units of"):
        unit_groups(small_recipe(model=Reading))


def test_a_permutation_that_changes_outputs_is_not_handed_over(recipe):
    groups = unit_groups(recipe)
    less = UnitGroup(groups[0].name, groups[0].size, groups[0].axes[:1], groups[0].readers)
    wrong = Permutation((less,), (tuple(range(groups[0].size))[::-1],))
    with pytest.raises(UsageError, match="changes this network's outputs"):
        check_permutation(recipe, wrong, network_of(recipe, 0))


def test_all_names_are_exported():
    assert {*module.__all__} >= {"match_units", "permuted", "Permutation"}
    assert small_arrays().size() == 240
