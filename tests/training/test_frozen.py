"""Parameters with `requires_grad=False` stay as they are, whatever trains the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import SGD, AdamW, Job
from lotto.core.errors import UsageError
from lotto.landscape.batchnorm import recompute_statistics
from lotto.models import mlp
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training.learners.autograd import Autograd
from lotto.training.loop import learner_of, train, train_stack
from lotto.training.network import Network


class Features(nn.Module):
    """A frozen layer below, a frozen scale, a frozen bias of a layer that is trained, and BatchNorm kept in eval."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.kept = nn.Linear(12, 12), nn.BatchNorm1d(12), nn.BatchNorm1d(12)
        self.second, self.out = nn.Linear(12, 12), nn.Linear(12, 6)
        self.first.requires_grad_(False)
        self.norm.weight.requires_grad_(False)
        self.second.bias.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, x):
        return self.out(self.second(self.kept(self.norm(self.first(x).relu()))).relu())


FROZEN = {"first.weight", "first.bias", "norm.weight", "second.bias"}


def frozen_mlp():
    module = mlp([24], (12,), 6)
    module.fc1.requires_grad_(False)
    return module


def frozen_bias():
    module = mlp([24], (12,), 6)
    module.fc2.bias.requires_grad_(False)
    return module


OPTIMIZERS = [SGD(0.1, momentum=0.9, weight_decay=0.01), SGD(0.1), AdamW(0.01, weight_decay=0.1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("model", "frozen"),
    [(Features, FROZEN), (frozen_mlp, {"fc1.weight", "fc1.bias"}), (frozen_bias, {"fc2.bias"})],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_frozen_parameters_stay_and_the_others_move(optimizer, model, frozen, stacked):
    recipe = small_recipe(model=model, init="module", optimizer=optimizer, steps="6it")
    mask = prune(recipe.initial(0), masks.ones(recipe), 0.8)
    jobs = [Job(recipe, 0, 3, mask=mask, keep=(3,)), Job(recipe, 1, 4, keep=(3,))]
    runs = train_stack(jobs) if stacked else [train(job) for job in jobs]
    for seed, run in enumerate(runs):
        start = recipe.initial(seed)
        for name, _ in recipe.build().named_parameters():
            assert torch.equal(run.weights[name], start[name]) == (name in frozen), name
            assert any(of.startswith(f"{name}/") for of in run.state(3).optimizer) <= (name not in frozen)
        assert model is not Features or torch.equal(run.weights["kept.running_mean"], torch.zeros(12))
        assert model is not Features or run.weights["norm.running_mean"].any()


def test_trained_as_in_plain_torch():
    recipe = small_recipe(model=Features, init="module", optimizer=SGD(0.1, 0.9, weight_decay=0.01), steps="5it")
    module = recipe.build()
    module.load_state_dict(recipe.initial(0))
    module.train()
    optimizer = torch.optim.SGD(
        [p for p in module.parameters() if p.requires_grad], 0.1, momentum=0.9, weight_decay=0.01
    )
    for step, (x, y) in enumerate(recipe.arrays.batches(0, 0, 5, 20)):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    run = train(Job(recipe))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(run.weights[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_frozen_layer_is_not_pruned_and_keeps_its_own_start():
    recipe = small_recipe(model=Features, init="kaiming-normal", norm_init="uniform", steps="4it")
    assert set(masks.ones(recipe)) == {"second.weight", "out.weight"}
    own, start = recipe.build(2).state_dict(), recipe.initial(2)
    for name in ("first.weight", "first.bias", "norm.weight", "second.bias"):
        assert torch.equal(own[name], start[name])
    for name in ("second.weight", "out.weight", "out.bias", "kept.weight"):
        assert not torch.equal(own[name], start[name])


def test_levels_leave_it_and_resume_goes_on_in_the_same_bits(store):
    recipe = small_recipe(model=Features, init="module", steps="6it")
    result = lotto.imp(recipe, levels=1, rate=0.5, replicates=2, jobs=1, store=store, rewind_to="2it")
    for replicate, levels in enumerate(result.replicates):
        first = recipe.initial(replicate)["first.weight"]
        for at in levels:
            assert torch.equal(at.run.weights["first.weight"], first)
            for control in at.controls.values():
                assert control.weights["first.weight"].all()
    assert "Frozen: first.weight, first.bias, norm.weight and 1 more, 180 of 438 parameters." in result.left_out
    whole = train(Job(recipe, keep=(3,)))
    rest = train(Job(recipe, start=whole.state(3), from_step=3))
    assert same_tensors(whole.weights, rest.weights)


def test_statistics_that_the_model_keeps_are_not_estimated_anew():
    recipe = small_recipe(model=Features, init="module", steps="6it")
    run = train(Job(recipe))
    network = Network(recipe, run.weights)
    recompute_statistics(recipe, network)
    found = network.module.state_dict()
    assert torch.equal(found["kept.running_mean"], torch.zeros(12))
    assert torch.equal(found["kept.running_var"], torch.ones(12))
    assert not torch.equal(found["norm.running_mean"], run.weights["norm.running_mean"])
    assert not network.module.training


def test_an_optimizer_state_of_a_layer_that_is_now_frozen_is_left(recipe):
    dense = train(Job(small_recipe(model=lambda: mlp([24], (12,), 6), init="module", steps="6it"), keep=(2,)))
    frozen = small_recipe(model=frozen_mlp, init="module", steps="6it")
    for runs in ([train(Job(frozen, start=dense.state(2), from_step=2))],
                 train_stack([Job(frozen, 0, i, start=dense.state(2), from_step=2) for i in (0, 1)])):  # fmt: skip
        for run in runs:
            assert torch.equal(run.weights["fc1.weight"], dense.at(2)["fc1.weight"])


def all_frozen():
    return nn.Linear(12, 6).requires_grad_(False)


class Thawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 12).requires_grad_(False), nn.Linear(12, 6)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.a.requires_grad_(self.calls > 3)
        return self.b(self.a(x))


def test_what_cannot_be_trained_is_told_before_training():
    recipe = small_recipe(model=all_frozen, init="module")
    for ask in (lambda: lotto.imp(recipe, levels=1), lambda: lotto.train(recipe), lambda: train(Job(recipe))):
        with pytest.raises(UsageError, match=r"frozen|Nothing of Linear is trained"):
            ask()
    with pytest.raises(UsageError, match=r"changes requires_grad of 'a\.bias'"):
        train(Job(small_recipe(model=Thawing, init="module", steps="5it")))


def test_the_quick_way_for_perceptrons_is_for_those_that_are_trained_whole():
    assert type(learner_of([Job(small_recipe(model=frozen_mlp, init="module"))])) is Autograd
