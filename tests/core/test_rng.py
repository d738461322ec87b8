from __future__ import annotations

import random

import numpy as np
import torch

import lotto
from conftest import small_recipe
from lotto.core.rng import stream, torch_seed


def test_a_stream_is_a_function_of_seed_purpose_and_step():
    draw = stream(1, "order", 5).random(4)
    assert np.array_equal(draw, stream(1, "order", 5).random(4))
    for other in (stream(2, "order", 5), stream(1, "augment", 5), stream(1, "order", 6)):
        assert not np.array_equal(draw, other.random(4))


def test_long_draws_of_neighbouring_steps_do_not_overlap():
    first, second = (stream(0, "x", s).integers(0, 2**63, 20_000) for s in (0, 1))
    assert not set(first.tolist()) & set(second.tolist())


def test_torch_seeds_differ():
    assert len({torch_seed(0, "forward", s) for s in range(1000)}) == 1000


class Dropped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(12, 30), torch.nn.Linear(30, 6)

    def forward(self, x):
        return self.b(torch.nn.functional.dropout(self.a(x).relu(), 0.5, self.training))


def test_no_global_generator_is_read_or_changed():
    def states():
        legacy = np.random.get_state()
        return random.getstate(), (legacy[0], legacy[1].tolist(), *legacy[2:]), torch.get_rng_state().tolist()

    recipe = small_recipe(model=Dropped, init="module", steps="5it")
    torch.manual_seed(1)
    before = states()
    first = lotto.train(recipe, store=None).weights
    assert states() == before
    lotto.data.sources.synthetic.mnist1d(100)
    assert states() == before
    # Other global seeds, same outcome.
    torch.manual_seed(2)
    np.random.seed(3)
    lotto.Store().clear()
    second = lotto.train(recipe).weights
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_dropout_depends_on_the_order_seed():
    recipe = small_recipe(model=Dropped, init="module", steps="5it", batch_size=240)
    runs = [lotto.train(recipe, order_seed=s).weights["a.weight"] for s in (0, 1)]
    # One batch holds all examples, so that only dropout (and the order of a sum) differs.
    assert (runs[0] - runs[1]).abs().max() > 1e-3
