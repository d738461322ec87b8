"""Random numbers that a user's code draws from global generators: the same for one seed, and no one else's."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.core.rng import host_state, private_rng
from lotto.data.augment import Augment
from lotto.execution.autotune import measured_width
from lotto.training.evaluation import evaluate
from lotto.training.loop import train, train_stack


class Built(nn.Module):
    """Initial weights by numpy, Python and torch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 6)
        self.a.weight = nn.Parameter(torch.from_numpy(np.random.randn(8, 12).astype("float32") * 0.3))
        self.b.bias = nn.Parameter(torch.tensor([random.gauss(0, 1) for _ in range(6)]))

    def forward(self, x):
        return self.b(self.a(x).relu())


class Noisy(Built):
    """Noise by numpy and Python in every forward, evaluation too."""

    def forward(self, x):
        noise = torch.from_numpy(np.random.randn(*x.shape).astype("float32"))
        return super().forward(x + 0.1 * noise * random.random())


class Later(Built):
    """Draws in training from the fourth step on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (random.random() if self.calls > 3 else 1)


class Jitter(Augment):
    def __call__(self, images, seed, step):
        return images * torch.rand(()) + float(np.random.rand())


class Shaken(lotto.data.Arrays):
    def batches(self, *args, **named):
        for x, y in super().batches(*args, **named):
            yield x + torch.randn_like(x) * random.random(), y


def shaken():
    plain = small_arrays()
    return Shaken(plain.x["train"], plain.y["train"], plain.x["test"], plain.y["test"])


def noisy_loss(outputs, targets):
    return F.cross_entropy(outputs * (1 + 0.1 * random.random()), targets)


def recipe_of(model, **changes):
    return small_recipe(**{"model": model, "init": "module", "steps": "8it", **changes})


def everything():
    return host_state(), torch.get_rng_state().numpy().tobytes()


RECIPES = {
    "constructor": lambda: recipe_of(Built),
    "forward": lambda: recipe_of(Noisy),
    "loss": lambda: recipe_of("mlp-16", loss=noisy_loss, error="misclassification"),
    "data": lambda: recipe_of("mlp-16", data=shaken()),
    "augmentation": lambda: recipe_of("mlp-16", augment=Jitter()),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_one_seed_gives_one_training_from_any_step_and_leaves_the_generators(kind):
    recipe = RECIPES[kind]()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = everything()
    run = train(Job(recipe, 0, 7, keep=(3,)))
    assert everything() == before
    random.seed(4), np.random.seed(5), torch.manual_seed(6)
    again = train(Job(recipe, 0, 7, keep=(3,)))
    assert same_tensors(run.weights, again.weights)
    assert run.history == again.history
    rest = train(Job(recipe, order_seed=7, start=run.state(3), from_step=3))
    assert same_tensors(run.weights, rest.weights)
    saved = []
    train(Job(recipe, 0, 7), on_checkpoint=saved.append, checkpoint_seconds=-1)
    assert same_tensors(train(Job(recipe, 0, 7), resume=saved[-1]).weights, run.weights)
    if kind != "constructor":
        other = train(Job(recipe, order_seed=8, start=run.state(3), from_step=3))
        assert not same_tensors(run.weights, other.weights)


def test_initial_weights_are_a_function_of_the_seed():
    recipe, before = recipe_of(Built), everything()
    assert same_tensors(recipe.initial(0), recipe.initial(0))
    one, two = recipe.initial(0), recipe.initial(1)
    assert not torch.equal(one["a.weight"], two["a.weight"])
    assert not torch.equal(one["b.bias"], two["b.bias"])
    assert everything() == before
    assert Job(recipe).key == Job(recipe_of(Built)).key


def test_an_evaluation_is_a_function_of_the_weights(store):
    recipe = recipe_of(Noisy)
    run = lotto.train(recipe, store=store)
    before = everything()
    assert evaluate(recipe, run.weights) == evaluate(recipe, run.weights)
    assert evaluate(recipe, run.weights).loss == run.test_loss
    assert everything() == before


def test_draws_in_some_steps_only_are_refused():
    with pytest.raises(UsageError, match="in some steps and in others not"):
        train(Job(recipe_of(Later)))


def test_callbacks_may_draw_what_they_like():
    seen = []
    train(Job(recipe_of(Built, steps="120it")), on_step=lambda step, loss: seen.append(random.random()))
    assert len(seen) > 2


def test_networks_that_draw_are_not_stacked(store):
    recipe = recipe_of(Noisy)
    with pytest.raises(UsageError, match=r"draws from Python's random or from numpy\.random.*Use a stack of 1"):
        train_stack([Job(recipe, 0, 0), Job(recipe, 0, 1)])
    assert measured_width(recipe, store, 1)[0] == 1


class Unseeded(Built):
    def __init__(self):
        super().__init__()
        self.a.weight = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=(8, 12)).astype("float32")))


class Scaled(Built):
    def __init__(self):
        super().__init__()
        self.scale = np.random.default_rng().uniform(0.5, 2)

    def forward(self, x):
        return super().forward(x) * self.scale


class Drawing(Built):
    def forward(self, x):
        return super().forward(x) * float(np.random.default_rng().uniform(0.5, 2))


@pytest.mark.parametrize("model", [Unseeded, Scaled, Drawing])
def test_what_nobody_can_seed_is_refused_before_training(model, store):
    with pytest.raises(UsageError, match=r"is not the same twice.*cannot be seeded"):
        lotto.train(recipe_of(model), store=store)
    lotto.train(recipe_of(Noisy), store=store)


def test_initial_weights_that_are_drawn_anyway_may_be_built_by_chance(store):
    assert lotto.train(recipe_of(Unseeded, init="kaiming-normal"), store=store).test_error < 60


def draw_and_fail():
    return random.random() + np.random.rand() + float(torch.rand(())) / 0


def test_a_private_block_restores_after_an_error():
    before = everything()
    with pytest.raises(ZeroDivisionError), private_rng(5):
        draw_and_fail()
    assert everything() == before
