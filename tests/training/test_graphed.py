"""Steps replayed as CUDA graphs: what is recorded once and for which batches, and what is refused.

No card is needed: what torch does with a module there is played by functions that move buffers in trial passes, as
torch's do, and refuse another shape, which torch would silently take for the recorded one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.training.check import check_trainable
from lotto.training.job import Job
from lotto.training.learners import graphed
from lotto.training.loop import train

TRIALS = 4


def recorded(replayed=lambda outputs: outputs):
    """A stand-in of `torch.cuda.make_graphed_callables`, and the list of the shapes that it has recorded."""
    shapes = []

    def record(module, inputs):
        (static,), forward = inputs, module.forward
        for _ in range(TRIALS):
            forward(static).sum().backward()
        shapes.append(tuple(static.shape))

        def replay(x):
            if x.shape != static.shape:
                raise AssertionError(f"{tuple(x.shape)} would be replayed as {tuple(static.shape)}")
            return replayed(forward(static.copy_(x)))

        module.forward = replay
        return module

    return record, shapes


@pytest.fixture
def card(monkeypatch):
    """A processor that is taken for a card."""
    record, shapes = recorded()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(graphed, "device_of", lambda recipe: torch.device("cuda"))
    return shapes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_ends_in_the_same_bits(card, precision):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8), rng.integers(0, 4, 30)
    data = lotto.data.Arrays(x[:24], y[:24], x[24:], y[24:])
    recipe = lotto.Recipe(
        "resnet-8", data, lotto.SGD(0.05, momentum=0.9), batch_size=12, steps="6it", evaluations=1, precision=precision
    )
    whole = masks.ones(recipe)
    mask = Mask({name: torch.rand(m.shape, generator=torch.manual_seed(1)) < 0.5 for name, m in whole.items()})
    run, expected = (train(Job(recipe.replace(graphs=g, arithmetic="dense"), mask=mask)) for g in (True, False))
    assert run.arithmetic == "autograd, CUDA graphs"
    assert len(card) == 1, "recorded once"
    for name, tensor in expected.weights.items():
        assert torch.equal(run.weights[name], tensor), name


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).train()


def test_another_size_of_batch_is_computed_as_ever_and_so_is_evaluation(card):
    module = network()
    run = graphed.Graphed(module)
    run(torch.randn(8, 3))
    plain = network()
    plain.load_state_dict(module.state_dict())
    odd = torch.randn(5, 3)
    assert torch.equal(run(odd), plain(odd))
    module.eval(), plain.eval()
    assert torch.equal(run(odd), plain(odd))
    assert card == [(8, 3)]


def test_trial_passes_leave_buffers_and_gradients_alone(card):
    module, plain = network(), network()
    x = torch.randn(8, 3)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    outputs = graphed.Graphed(module)(x)
    assert torch.equal(outputs, plain(x))
    assert all(torch.equal(p.grad, torch.full_like(p, 7.0)) for p in module.parameters())
    for name, buffer in plain.named_buffers():
        assert torch.equal(dict(module.named_buffers())[name], buffer), name


@pytest.mark.parametrize("wrong", [lambda y: y + 1.0, lambda y: y * torch.nan, lambda y: y.detach() * 2 - y])
def test_what_replays_other_outputs_or_gradients_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded(wrong)[0])
    with pytest.raises(UsageError, match="gives other outputs or gradients than without"):
        graphed.Graphed(network())(torch.randn(8, 3))


def test_it_needs_a_card_and_a_model_whose_forward_is_known(card, monkeypatch):
    own = small_recipe(model=lambda: nn.Linear(40, 10), graphs=True)
    with pytest.raises(UsageError, match="for lotto's own models"):
        check_trainable(own)
    with pytest.raises(UsageError, match="2 processes"):
        check_trainable(small_recipe(graphs=True), 2)
    monkeypatch.undo()
    for refused in (check_trainable, lambda recipe: train(Job(recipe))):
        with pytest.raises(UsageError, match="needs a GPU"):
            refused(small_recipe(graphs=True))


@pytest.mark.parametrize("beside", [{"compile": True}, {"accumulate": 2}, {"batch_groups": 2}])
def test_it_goes_with_whole_batches_alone(beside):
    with pytest.raises(UsageError, match="replays one whole batch"):
        small_recipe(graphs=True, **beside)
