"""Linear layers at the end of a convolutional network: their unpruned weights alone, against autograd in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lotto
from conftest import same_tensors
from lotto import SGD, Job
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training.learners.activations import RELU
from lotto.training.learners.break_even import Costs, measured
from lotto.training.learners.conv_networks import description_of
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.descriptions import LinearLayer
from lotto.training.learners.linear_head import DenseLinear, Head, Linear, SparseLinear
from lotto.training.loop import train
from lotto.training.network import Network


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    batch=st.sampled_from([1, 3, 16, 37, 128]),
    density=st.sampled_from([0.02, 0.3, 1.0]),
    bias=st.booleans(),
    sparse=st.lists(st.booleans(), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_autograds(widths, batch, density, bias, sparse, seed):
    torch.manual_seed(seed)
    layers, modules, found = [], [], []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        mask = torch.rand(outputs, inputs) < density
        weight, offset = torch.randn(outputs, inputs) * mask, torch.randn(outputs) if bias else None
        by_weight, by_offset = torch.zeros(outputs, inputs), torch.zeros(outputs) if bias else None
        layer = Linear(weight, offset, by_weight, by_offset, mask)
        layers.append((SparseLinear if sparse[i] else DenseLinear)(layer))
        slow = [t.double().requires_grad_() for t in (weight, offset) if t is not None]
        modules.append((slow, mask))
        found.append((by_weight, by_offset))
    x = torch.randn(widths[0], batch)
    slow_x = x.double().t().requires_grad_()
    expected = slow_x
    for i, (slow, _) in enumerate(modules):
        expected = torch.nn.functional.linear(expected.relu() if i else expected, *slow)
    given_ = torch.randn_like(expected)
    expected.backward(given_)

    head = Head(layers, [None, *[RELU] * (len(layers) - 1)])
    outputs = head.forward(x)
    back = head.backward(given_.float().t())
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(outputs.t().double(), expected.detach(), **close)
    torch.testing.assert_close(back.t().double(), slow_x.grad, **close)
    for (slow, mask), (by_weight, by_offset) in zip(modules, found, strict=True):
        torch.testing.assert_close(by_weight.double(), slow[0].grad * mask, **close)
        assert not by_weight[~mask].any()
        if by_offset is not None:
            torch.testing.assert_close(by_offset.double(), slow[1].grad, **close)


def conv_job(density=0.1, **changes):
    x = torch.randn(60, 3, 8, 6, generator=torch.Generator().manual_seed(0)).numpy()
    y = torch.arange(60).numpy() % 4
    recipe = lotto.Recipe(
        "conv-2", lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:]), SGD(0.02, momentum=0.9), batch_size=10,
        steps="6it", device="cpu", arithmetic="sparse",
    ).replace(**changes)  # fmt: skip
    return Job(
        recipe, mask=prune(recipe.initial(0), masks.ones(recipe), rate=1 - density, allocation="layer"), keep=(3,)
    )


def learner_of_job(job, **how):
    state = job.initial_state()
    return Convolutions([job], Network(job.recipe, state.weights), [state], **how)


def kinds(learner):
    return [type(layer) for layer in learner.layers.network.head.layers]


def test_a_layer_is_a_list_below_its_own_crossover():
    job = conv_job()
    assert kinds(learner_of_job(job)) == [SparseLinear] * 3
    chosen = {"fc1": 0.0, "fc2": 1.0, "fc3": 0.0}
    learner = learner_of_job(job, crossovers=chosen)
    assert kinds(learner) == [DenseLinear, SparseLinear, SparseLinear]  # the last one is small
    assert learner.crossovers == chosen


def test_linear_layers_are_measured_with_the_convolutions(monkeypatch):
    asked = {}

    def costs(layers, batch, half=False):
        asked.update(layers)
        return dict.fromkeys(layers, Costs(torch=10.0, dense=4.0, none=1.0, all=11.0))

    monkeypatch.setattr("lotto.training.learners.arithmetic.costs_of", costs)
    job = conv_job(arithmetic="auto")
    network = Network(job.recipe, job.initial_state().weights)
    assert description_of(network, (3, 8, 6)) is not None
    chosen = Convolutions.choice(job, network)
    assert asked["fc1"] == LinearLayer(64 * 12, 256)
    assert set(chosen) == {"conv1", "conv2", "fc1", "fc2"}


def test_costs_of_a_linear_layer():
    found = measured(LinearLayer(300, 70), 12)
    assert found.torch > 0 < found.dense
    assert 0 <= found.none <= found.all


def test_pruned_weights_and_moments_stay_zero_and_a_resumed_training_has_the_same_bits():
    job, points = conv_job(), []
    whole = train(job)
    train(job, on_checkpoint=points.append, checkpoint_seconds=0.0)
    assert same_tensors(train(job, resume=points[2]).weights, whole.weights)
    fork = train(Job(job.recipe, mask=job.mask, start=whole.state(3), from_step=3))
    assert same_tensors(fork.weights, whole.weights)
    for name, mask in job.mask.items():
        assert not whole.weights[name][~mask].any()
        assert not whole.state(3).optimizer[f"{name}/momentum_buffer"][~mask].any()
    assert whole.weights["fc1.weight"].any()


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_the_record_counts_linear_layers(density):
    assert kinds(learner_of_job(conv_job(density)))[:2] == [SparseLinear if density == 0.05 else DenseLinear] * 2
    sparse = 5 if density == 0.05 else 0
    assert train(conv_job(density)).arithmetic == f"convolutions, {sparse} of 5 layers sparse"
