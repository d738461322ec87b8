"""BatchNorm, sum and ReLU in one layer: against float64, against torch's layers, and where the kernels do not apply."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_recipe
from lotto.models import norm_relu
from lotto.models.norm_relu import NormReLU
from lotto.training.loop import train


def activations(shape, seed=0, requires_grad=True):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * 2 + 0.7).bfloat16()
    return x.contiguous(memory_format=torch.channels_last).requires_grad_(requires_grad)


def layers(channels):
    """Ours and torch's with the same parameters."""
    made = NormReLU(channels), nn.BatchNorm2d(channels)
    for layer in made:
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-0.5, 1.5, channels))
            layer.bias.copy_(torch.linspace(0.8, -0.4, channels))
    return made


def relative(found, expected):
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.fixture
def counted(monkeypatch):
    """How often the kernels were used."""
    calls = []
    real = norm_relu._Fused.apply
    monkeypatch.setattr(norm_relu._Fused, "apply", lambda *a: calls.append(1) or real(*a))
    return calls


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shape", [(8, 16, 6, 6), (5, 3, 7, 5), (4, 64, 2, 2), (2, 80, 3, 3), (3, 1, 5, 5)])
def test_like_float64(counted, shape, added):
    ours, theirs = layers(shape[1])
    x, residual = activations(shape), activations(shape, 1) if added else None
    gradient = activations(shape, 2, requires_grad=False)
    exact, other = x.detach().double().requires_grad_(), residual.detach().double().requires_grad_() if added else None
    weight, bias = (p.detach().double().requires_grad_() for p in (ours.weight, ours.bias))
    y = ours(x, residual)
    assert counted
    reference = F.batch_norm(exact, None, None, weight, bias, True)
    reference = (reference + other if added else reference).relu()
    assert relative(y, reference) < 4e-3
    assert bool((y >= 0).all())
    inputs, exacts = [x, ours.weight, ours.bias], [exact, weight, bias]
    if added:
        inputs.append(residual)
        exacts.append(other)
    # Where an output is nearly 0 the rounded one may be cut off: give those no gradient.
    gradient = gradient * (reference > 0.05).bfloat16()
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(y, inputs, gradient)
    for one, expected in zip(found, torch.autograd.grad(reference, exacts, gradient.double()), strict=True):
        assert one.shape == expected.shape
        assert relative(one, expected) < 6e-3
    with torch.no_grad():
        theirs(x.float())
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)
    assert int(ours.num_batches_tracked) == 1


def test_the_average_of_all_batches_with_no_momentum():
    ours, theirs = layers(4)
    ours.momentum = theirs.momentum = None
    for seed in range(3):
        x = activations((6, 4, 5, 5), seed)
        ours(x)
        theirs(x.detach().float())
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-3, atol=1e-4)


def test_torch_does_the_rest(counted):
    ours, theirs = layers(4)
    half, full = activations((6, 4, 5, 5)), torch.randn(6, 4, 5, 5, requires_grad=True)
    cases = [(full, True), (half.detach().contiguous().requires_grad_(), True), (half, False)]
    for x, training in cases:
        for layer in (ours, theirs):
            layer.train(training)
        expected = theirs(x).relu()
        assert torch.equal(ours(x), expected)
        assert torch.equal(ours(x.clone(), x), (theirs(x) + x).relu())
    with torch.no_grad():
        ours.train()(half)
    torch.set_num_threads(2)
    ours.train()(half)
    assert not counted
    torch.set_num_threads(1)
    ours(half)
    assert counted


def test_nan_is_kept():
    ours, _ = layers(4)
    x = activations((6, 4, 5, 5), requires_grad=False)
    x[2, 1, 3, 3] = torch.nan
    y = ours(x.requires_grad_())
    assert y[:, 1].isnan().all()
    assert not y[:, [0, 2, 3]].isnan().any()


def test_the_state_is_that_of_batchnorm():
    ours, theirs = layers(4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert isinstance(ours, nn.BatchNorm2d)
    with torch.no_grad(), pytest.raises(ValueError, match="4D"):
        ours(torch.zeros(2, 4))


def test_a_killed_residual_network_ends_in_the_same_bits(counted):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (48, 3, 8, 8), dtype=np.uint8), np.arange(48) % 4
    recipe = small_recipe(
        data=lotto.data.Arrays(x, y, x, y),
        model="resnet-8",
        precision="bfloat16",
        batch_size=16,
        steps="6it",
        arithmetic="dense",  # autograd
    )
    points = []
    whole = train(lotto.Job(recipe), on_checkpoint=points.append, checkpoint_seconds=0.0)
    assert counted

    class Killed(Exception):
        pass

    points = []

    def stop(point):
        points.append(point)
        if point.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(lotto.Job(recipe), on_checkpoint=stop, checkpoint_seconds=0.0)
    resumed = train(lotto.Job(recipe), resume=points[-1])
    assert same_tensors(resumed.weights, whole.weights)
