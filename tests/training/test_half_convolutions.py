"""Convolutional networks with activations in bfloat16: as near to float64 as autocast, and a training like any other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_convolutions import IMAGES, OTHERS, SIGNALS, after, made, masked_job, recipe_of

from conftest import same_tensors
from lotto import Job
from lotto.training.learners import arithmetic
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.break_even import Costs, costs_of
from lotto.training.learners.convolutions import Convolutions
from lotto.training.loop import learner_of, train

NETWORKS = [("resnet-14-w5", SIGNALS), ("resnet-8-w5", IMAGES), *OTHERS[:-1]]


def gradient(kind, recipe, density):
    """The first step's loss and gradient, with weight decay, as one vector."""
    (loss,), state = after(made(kind, masked_job(recipe, density)), 1)
    return loss, torch.cat([state.optimizer[name].flatten().double() for name in sorted(state.optimizer)])


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize(("model", "shape"), NETWORKS, ids=str)
def test_a_step_is_as_near_to_float64_as_autocasts(model, shape, density):
    precisions = {p: recipe_of(shape, model=model, precision=p) for p in ("bfloat16", "float64")}
    loss, ours = gradient(Convolutions, precisions["bfloat16"], density)
    their_loss, theirs = gradient(Autograd, precisions["bfloat16"], density)
    exact_loss, exact = gradient(Autograd, precisions["float64"], density)
    assert loss == pytest.approx(exact_loss, abs=max(0.01, 1.5 * abs(their_loss - exact_loss)))
    # A bias is added to what is rounded already, and rounding decides on which side of 0 a ReLU's input lies.
    assert 0 < float((ours - exact).norm()) <= 2 * float((theirs - exact).norm())


def test_a_training_learns_as_well_as_in_float32():
    errors = {}
    for precision in ("float32", "bfloat16"):
        jobs = [masked_job(recipe_of(steps="60it", precision=precision), 0.3, order_seed=seed) for seed in range(4)]
        errors[precision] = [train(job).test_loss for job in jobs]
    assert np.mean(errors["bfloat16"]) == pytest.approx(np.mean(errors["float32"]), rel=0.1)


def test_a_training_goes_on_with_the_same_bits_and_says_what_ran():
    job, points = masked_job(recipe_of(IMAGES, precision="bfloat16"), 0.2, keep=(3,)), []
    whole = train(job, on_checkpoint=lambda p: points.append(copy.copy(p)), checkpoint_seconds=0.0)
    assert "activations in bfloat16" in whole.arithmetic
    assert all(t.dtype == torch.float32 for t in whole.weights.values() if t.is_floating_point())
    assert same_tensors(train(job, resume=points[2]).weights, whole.weights)
    fork = train(Job(job.recipe, mask=job.mask, start=whole.state(3), from_step=3))
    assert same_tensors(fork.weights, whole.weights)
    for name, mask in job.mask.items():
        assert not whole.weights[name][~mask].any()


def test_batches_of_any_size_and_numbers_that_are_none():
    recipe = recipe_of(SIGNALS, precision="bfloat16", batch_size=7, steps="1ep")
    assert np.isfinite(train(Job(recipe)).test_loss)
    learner = made(Convolutions, Job(recipe))
    (x, y), *_ = learner.batches(0, 1)
    x[0, 0] = torch.nan
    assert torch.isnan(learner.train_step((x, y), 0))


@pytest.mark.parametrize(("torchs", "kind"), [(100.0, Convolutions), (0.1, Autograd)])
def test_what_is_quicker_in_bfloat16_computes(torchs, kind, monkeypatch):
    asked = []

    def costs(layers, batch, half):
        asked.append(half)
        return dict.fromkeys(layers, Costs(torchs, dense=4.0, none=1.0, all=11.0))

    monkeypatch.setattr(arithmetic, "costs_of", costs)
    recipe = recipe_of(IMAGES, arithmetic="auto", precision="bfloat16")
    assert type(learner_of([masked_job(recipe, 0.2)])) is kind
    assert asked == [True]


def test_costs_of_both_precisions_are_kept_apart(tmp_path, monkeypatch):
    asked = []

    def costs(layers, batch, half):
        found = costs_of(layers, batch, tmp_path, half)
        asked.append(found)
        return found

    monkeypatch.setattr(arithmetic, "costs_of", costs)
    for precision in ("float32", "bfloat16", "float32", "bfloat16"):
        learner_of([masked_job(recipe_of(IMAGES, arithmetic="auto", precision=precision), 0.2)])
    assert asked[:2] == asked[2:]
    assert asked[0] != asked[1]
