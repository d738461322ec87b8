"""Training without cut-off units against training with them."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors
from lotto import SGD, Adam, Job, Mask, Recipe, masks
from lotto.schedules import Linear
from lotto.training import loop, train
from lotto.training.autograd import Autograd
from lotto.training.loop import learner_of
from lotto.training.network import Network

STEPS = 5


def image_recipe(model, size=8, **changes):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (60, 3, size, size), dtype=np.uint8), generator.integers(0, 4, 60)
    recipe = Recipe(
        model=model, data=lotto.data.Arrays(x[:48], y[:48], x[48:], y[48:]), batch_size=12, steps=f"{STEPS}it",
        optimizer=SGD(0.05, momentum=0.9, weight_decay=0.01), schedule=Linear(), init="kaiming-normal",
        precision="float64", evaluations=1, name="images",
    )  # fmt: skip
    return recipe.replace(**changes)


def cutting(recipe, unread, seed=0):
    """A mask of about half of the weights in which nothing reads these channels: layer -> (their number, places)."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.rand(ones.shape, generator=generator) < 0.5 for name, ones in masks.ones(recipe).items()}
    for name, (count, places) in unread.items():
        made[f"{name}.weight"][:, : count * places] = False
    return Mask(made)


def whole(monkeypatch, job):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Autograd", partial(Autograd, worth=0.0))
        return train(job)


class Own(nn.Module):
    """Dropout, biases, a norm by torch, a flattened layer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1)
        self.dropout, self.c, self.d = nn.Dropout(dropout), nn.Linear(6 * 16, 20), nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.relu(self.norm(self.a(x)))).relu()
        x = nn.functional.max_pool2d(self.dropout(x), 2)
        return self.d(self.c(x.flatten(1)).relu())


CASES = {
    "resnet": ("resnet-8", {"blocks.0.conv2": (9, 1), "blocks.2.conv2": (60, 1)}),
    "vgg": ("vgg-11", {"features.4": (30, 1), "features.8": (100, 1), "features.15": (256, 1), "features.25": (500, 1)}),
    "conv": ("conv-2", {"conv2": (20, 1), "fc1": (30, 16), "fc2": (100, 1)}),
    "own": (Own, {"b": (3, 1), "c": (4, 16), "d": (10, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9, weight_decay=0.01), Adam(0.001)], ids=repr)
@pytest.mark.parametrize("name", CASES)
def test_the_outcome_is_that_of_the_whole_network(monkeypatch, name, optimizer):
    model, unread = CASES[name]
    recipe = image_recipe(model, 16 if name == "vgg" else 8, optimizer=optimizer)
    job = Job(recipe, mask=cutting(recipe, unread), keep=(2,))
    small, large = train(job), whole(monkeypatch, job)
    assert "of the multiplications" in small.arithmetic
    assert large.arithmetic == "autograd"
    read = {n for n, t in large.weights.items() if "running" not in n}
    assert read
    for step in job.steps:
        for key in read:
            torch.testing.assert_close(small.at(step)[key], large.at(step)[key], rtol=1e-8, atol=1e-10, msg=key)
        for key, tensor in large.state(step).optimizer.items():
            torch.testing.assert_close(small.state(step).optimizer[key], tensor, rtol=1e-8, atol=1e-10, msg=key)
    for key, mask in job.mask.items():
        assert not small.weights[key][~mask].any()
    assert small.test_error == large.test_error
    assert small.history[-1]["train_loss"] == pytest.approx(large.history[-1]["train_loss"], rel=1e-9)


def test_running_statistics_of_what_is_left_are_those_of_the_whole_network(monkeypatch):
    model, unread = CASES["resnet"]
    recipe = image_recipe(model)
    job = Job(recipe, mask=cutting(recipe, unread))
    small, large, start = train(job), whole(monkeypatch, job), recipe.initial(0)
    picks = learner_of(job, Network(recipe, masks.apply(start, job.mask))).small.picks
    assert len(picks["blocks.0.bn1.running_mean"][0]) == 16 - 9
    for name in (n for n in large.weights if "running" in n or "tracked" in n):
        left = torch.ones(large.weights[name].shape, dtype=torch.bool)
        if name in picks:
            left = torch.zeros_like(left).index_fill(0, picks[name][0], True)
        torch.testing.assert_close(small.weights[name][left], large.weights[name][left], rtol=1e-9, atol=1e-12)
        assert torch.equal(small.weights[name][~left].double(), start[name][~left].double())


def test_what_only_removed_units_read_is_removed_too():
    recipe = image_recipe("conv-2")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["fc2.weight"][:, 1:] = False  # of fc1's units one is read,
    mask["fc1.weight"][0, : 10 * 16] = False  # which reads all but ten of conv2's channels
    learner = learner_of(Job(recipe, mask=mask), Network(recipe, masks.apply(recipe.initial(0), mask)))
    shapes = {name: tuple(p.shape) for name, p in learner.small.graph.named_parameters()}
    assert shapes["fc1.weight"] == (1, 54 * 16)
    assert shapes["conv2.weight"][:2] == (54, 64)
    assert shapes["fc2.weight"] == (256, 1)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("resnet-8", lambda mask: None),
        ("resnet-8", lambda mask: mask["blocks.0.conv2.weight"][:, :1].zero_()),  # not worth it
        ("resnet-8", lambda mask: mask["blocks.1.conv1.weight"].zero_()),  # the shortcut reads its inputs, too
        (lambda: Own(0.5), lambda mask: mask["c.weight"][:, : 4 * 16].zero_()),  # dropout would draw other numbers
    ],
)
def test_other_networks_are_trained_whole(model, change):
    recipe = image_recipe(model)
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    change(mask)
    learner = learner_of(Job(recipe, mask=mask), Network(recipe, masks.apply(recipe.initial(0), mask)))
    assert learner.small is None
    assert learner.describe() == "autograd"


def test_a_resumed_run_ends_in_the_same_bits():
    recipe = image_recipe("resnet-8", precision="bfloat16")
    job = Job(recipe, mask=cutting(recipe, CASES["resnet"][1]))
    undisturbed = train(job)
    kept = []
    train(job, on_checkpoint=lambda point: kept.append(copy.deepcopy(point)), checkpoint_seconds=0.0)
    assert len(kept) == STEPS - 1
    for point in kept:
        assert same_tensors(train(job, resume=point).weights, undisturbed.weights)


def test_without_anything_read_a_unit_stays():
    recipe = image_recipe("conv-2")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["fc2.weight"].zero_()
    run = train(Job(recipe, mask=mask))
    assert "of the multiplications" in run.arithmetic
    assert np.isfinite(run.history[-1]["train_loss"])
