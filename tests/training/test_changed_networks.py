"""Networks of ours that someone has changed are trained and evaluated as they are written."""

from __future__ import annotations

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_arrays, small_recipe
from lotto import SGD, Job
from lotto.core.errors import UsageError
from lotto.inference import compact, sparse_rows
from lotto.landscape import evaluate_path
from lotto.landscape.combinations import first_layer_dominates
from lotto.models import mlp
from lotto.models.fully_connected import MLP
from lotto.models.plain import is_plain
from lotto.pruning import masks
from lotto.training.evaluation import evaluate
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.channel_skipping import ChannelSkipping
from lotto.training.learners.perceptron import Perceptron
from lotto.training.loop import learner_of, train, train_stack
from lotto.training.network import Network


def base():
    return mlp([24, 16], (12,), 6)


def tanh():
    module = base()
    module.fc1 = nn.Sequential(module.fc1, nn.Tanh())
    return module


def no_bias():
    module = base()
    module.fc1 = nn.Linear(12, 24, bias=False)
    return module


def tied():
    module = mlp([12, 12], (12,), 6)
    module.fc2.weight = module.fc1.weight
    return module


def one_layer_twice():
    module = mlp([12, 12], (12,), 6)
    module.fc2 = module.fc1
    return module


def same_memory():
    module = mlp([12, 12], (12,), 6)
    module.fc2.weight = nn.Parameter(module.fc1.weight.data)
    return module


def hooked():
    module = base()
    module.fc2.register_forward_hook(lambda layer, given, outputs: outputs * 2)
    return module


def hooked_before():
    module = base()
    module.register_forward_pre_hook(lambda layer, given: (given[0] * 0.5,))
    return module


def hooked_gradient():
    module = base()
    module.fc1.weight.register_hook(lambda gradient: gradient * 0.1)
    return module


def hooked_backward():
    module = base()
    module.fc2.register_full_backward_hook(lambda layer, given, got: (given[0] * 0.5,))
    return module


def other_forward():
    module = base()
    module.forward = types.MethodType(lambda self, x: MLP.forward(self, x) * 3, module)
    return module


class Sub(MLP):
    def forward(self, x):
        return super().forward(x.abs())


def subclass():
    return Sub(12, [24, 16], 6)


class Shifted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def other_layer():
    module = base()
    module.fc2 = Shifted(24, 16)
    return module


def parametrized():
    module = base()
    nn.utils.parametrizations.orthogonal(module.fc2)
    return module


class Scaled(nn.Module):
    def forward(self, weight):
        return weight * 2


def scaled_bias():
    module = base()
    nn.utils.parametrize.register_parametrization(module.fc2, "bias", Scaled())
    return module


def shallower():
    module = base()
    module.depth, module.fc2 = 2, nn.Linear(24, 6)
    return module


def more():
    module = base()
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    return module


CHANGED = [
    tanh, no_bias, tied, one_layer_twice, same_memory, hooked, hooked_before, hooked_gradient, hooked_backward,
    other_forward, subclass, other_layer, scaled_bias, shallower,
]  # fmt: skip


class Wrapped(nn.Module):
    """The same forward in a class of one's own, which autograd trains."""

    def __init__(self, make):
        super().__init__()
        self.m = make()

    def forward(self, x):
        return self.m(x)


def recipe_of(model, **changes):
    return small_recipe(**{"model": model, "init": "module", "steps": "8it", "optimizer": SGD(0.1), **changes})


@pytest.mark.parametrize("make", CHANGED)
def test_trained_and_evaluated_as_the_same_network_in_a_class_of_ones_own(make):
    recipe, other = recipe_of(make), recipe_of(lambda: Wrapped(make))
    start, plain = recipe.initial(0), recipe_of(base).initial(0)
    # With a mask as well: layers that would be sparse.
    mask = {n: torch.rand(m.shape) < 0.05 for n, m in masks.ones(recipe).items()} if make is tied else None
    run = train(Job(recipe, mask=mask))
    there = train(Job(other, mask=mask and {f"m.{n}": m for n, m in mask.items()}))
    assert {f"m.{n}" for n in run.weights} == set(there.weights)
    assert all(torch.equal(t, there.weights[f"m.{n}"]) for n, t in run.weights.items())
    assert run.history == there.history
    assert run.arithmetic == "autograd"
    path = [
        evaluate_path(r, r.initial(0), ended.weights, points=3).loss["test"]
        for r, ended in ((recipe, run), (other, there))
    ]
    assert path[0] == path[1]
    assert not first_layer_dominates(recipe, Network(recipe, run.weights))
    assert set(start) != set(plain) or evaluate(recipe, start) is not None


@pytest.mark.parametrize("make", CHANGED)
def test_a_stack_computes_the_same_or_is_refused(make):
    recipe = recipe_of(make, precision="float64")
    jobs = [Job(recipe, 0, 1), Job(recipe, 2, 3)]
    if make in (hooked, hooked_before, hooked_gradient, hooked_backward):
        with pytest.raises(UsageError, match="Use a stack of 1"):
            train_stack(jobs)
        return
    runs = train_stack(jobs)
    for run, job in zip(runs, jobs, strict=True):
        single = train(job)
        for name, tensor in single.weights.items():
            torch.testing.assert_close(run.weights[name], tensor, rtol=1e-9, atol=1e-9)


def test_parameters_in_one_memory_are_not_stacked():
    recipe = recipe_of(same_memory)
    with pytest.raises(UsageError, match="share their memory"):
        train_stack([Job(recipe, 0, 0), Job(recipe, 0, 1)])


class Keeping(nn.Module):
    """Reads a parameter from a list of its own, where a stack cannot put another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 6)
        self.mine = [self.a.weight]

    def forward(self, x):
        return self.b((x @ self.mine[0].t()).relu())


def test_a_module_that_keeps_its_parameters_is_not_stacked():
    recipe = recipe_of(Keeping)
    with pytest.raises(UsageError, match="something else than by itself"):
        train_stack([Job(recipe, 0, 0), Job(recipe, 0, 1)])
    assert train(Job(recipe)).test_error < 80


def test_hooks_on_all_modules_count():
    job = Job(small_recipe())
    skipping = Job(small_recipe(model="resnet-8", data=images(), steps="400it", arithmetic="dense"))
    skipping = Job(skipping.recipe, mask=half_of_the_channels(skipping.recipe))
    assert type(learner_of([job])) is Perceptron
    assert type(learner_of([skipping])) is ChannelSkipping
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, outputs: None)
    try:
        assert type(learner_of([job])) is type(learner_of([skipping])) is Autograd
    finally:
        handle.remove()


def images():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 3, 8, 8)).astype(np.float32)
    y = generator.integers(0, 4, 60)
    return lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:])


def half_of_the_channels(recipe):
    mask = {n: m.clone() for n, m in masks.ones(recipe).items()}
    for name in mask:
        if name.endswith("conv2.weight"):
            mask[name][:, ::2] = False
    return mask


def test_unchanged_networks_are_plain_and_changed_ones_are_not():
    assert is_plain(base(), (MLP, nn.Linear))
    for make in CHANGED:
        if make is not shallower:  # plain parts, put together in another way
            assert make is no_bias or not is_plain(make(), (MLP, nn.Linear)), make
        assert type(learner_of([Job(recipe_of(make))])) is Autograd, make
    assert type(learner_of([Job(recipe_of(more))])) is Autograd
    assert type(learner_of([Job(recipe_of(base))])) is Perceptron


def test_a_changed_class_is_not_plain(monkeypatch):
    monkeypatch.setattr(MLP, "forward", lambda self, x: self.fc3(self.fc2(self.fc1(x))))
    assert type(learner_of([Job(recipe_of(base))])) is Autograd


class Doubled(lotto.data.Arrays):
    def batches(self, *args, **named):
        for x, y in super().batches(*args, **named):
            yield x * 2, y


def test_data_of_ones_own_goes_by_autograd():
    plain = small_arrays()
    data = Doubled(plain.x["train"], plain.y["train"], plain.x["test"], plain.y["test"])
    recipe = small_recipe(data=data)
    mask = {n: torch.rand(m.shape) < 0.05 for n, m in masks.ones(recipe).items()}
    assert type(learner_of([Job(recipe, mask=mask)])) is not Perceptron


def test_too_few_outputs_are_refused_and_touch_no_other_memory():
    recipe = recipe_of(lambda: mlp([24], (12,), 3))  # six classes
    with pytest.raises((IndexError, RuntimeError), match=r"holds the label|out of bounds"):
        train(Job(recipe))
    with pytest.raises(UsageError, match=r"holds the label|out of bounds"):
        lotto.train(recipe)


@pytest.mark.parametrize("make", [hooked, other_layer, scaled_bias])
def test_smaller_forms_do_what_the_network_does_or_are_refused(make):
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) < 0.1)
            if name.startswith("fc1"):
                parameter[::2] = 0
    x = torch.randn(5, 12)
    expected = module(x)
    for small in (lambda: compact(module, x), lambda: sparse_rows(module)):
        try:
            found = small()
        except UsageError:
            continue
        torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-5)


def test_copies_of_a_plain_network_are_plain():
    assert is_plain(copy.deepcopy(base()), (MLP, nn.Linear))
