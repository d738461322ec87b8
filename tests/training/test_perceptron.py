"""Perceptrons without autograd against autograd, and their sparse layers against masked dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lotto
from conftest import same_tensors, small_recipe
from lotto import SGD, Adam, AdamW, Job, Mask, RMSprop
from lotto.pruning import masks
from lotto.training import loop
from lotto.training.learners import perceptron, sparse_linear
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.cross_entropy import by_operators, cross_entropy
from lotto.training.learners.perceptron import DenseLayer, Perceptron
from lotto.training.learners.sparse_linear import SMALL, SparseLayer
from lotto.training.loop import learner_of, train
from lotto.training.network import Network

OPTIMIZERS = [
    SGD(0.1),
    SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    Adam(1e-2, weight_decay=1e-2),
    AdamW(1e-2, weight_decay=1e-1),
    RMSprop(1e-2, momentum=0.5),
]


def random_mask(recipe, *densities, seed=0):
    """A mask with these densities by layer, exactly."""
    generator = np.random.default_rng(seed)
    made = {}
    for (name, ones), density in zip(masks.ones(recipe).items(), densities, strict=True):
        keep = np.zeros(ones.numel(), dtype=bool)
        keep[generator.permutation(ones.numel())[: round(density * ones.numel())]] = True
        made[name] = torch.from_numpy(keep).view(ones.shape)
    return Mask(made)


def by_autograd(monkeypatch, job):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "LEARNERS", (Autograd,))
        return train(job)


CASES = {
    "dense": None,
    "masked": (0.5, 0.5, 1.0),
    "sparse": (0.05, 0.05, 0.05),
    "mixed": (0.09, 0.5, 1.0),
    "dense first": (1.0, 0.09, 0.5),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("densities", CASES.values(), ids=CASES)
@pytest.mark.parametrize("small", [0, SMALL])
def test_trains_like_autograd(monkeypatch, optimizer, densities, small):
    class Small(Perceptron):
        def __init__(self, *given):
            super().__init__(*given, small=small)

    monkeypatch.setattr(loop, "LEARNERS", (Small,))
    recipe = small_recipe(precision="float64", optimizer=optimizer, steps="12it")
    job = Job(recipe, mask=densities and random_mask(recipe, *densities), keep=(5,))
    ours, theirs = train(job), by_autograd(monkeypatch, job)
    for step in job.steps:
        for name, tensor in theirs.at(step).items():
            torch.testing.assert_close(ours.at(step)[name], tensor, rtol=1e-9, atol=1e-11)
    assert set(ours.state(5).optimizer) == set(theirs.state(5).optimizer)
    for name, tensor in theirs.state(5).optimizer.items():
        torch.testing.assert_close(ours.state(5).optimizer[name], tensor, rtol=1e-9, atol=1e-11)
    assert ours.test_error == theirs.test_error
    assert ours.history[-1]["train_loss"] == pytest.approx(theirs.history[-1]["train_loss"], rel=1e-10)


def made(job, small):
    state = job.initial_state()
    return Perceptron([job], Network(job.recipe, state.weights), [state], small=small)


def test_layers_are_sparse_below_the_crossover_only():
    recipe = small_recipe()
    mask = random_mask(recipe, 0.5, 0.24, 0.05)
    layers = made(Job(recipe, mask=mask), 0).layers
    assert [type(layer) for layer in layers] == [DenseLayer, SparseLayer, SparseLayer]
    assert len(layers[1].weight) == int(mask["fc2.weight"].sum())


def test_small_layers_are_sparse_beside_a_sparse_one():
    recipe = small_recipe()
    size = recipe.initial(0)["fc2.weight"].numel()
    for densities, small, expected in (
        ((0.05, 1.0, 1.0), size, (SparseLayer, SparseLayer, SparseLayer)),
        ((0.05, 1.0, 1.0), size - 1, (SparseLayer, DenseLayer, SparseLayer)),
        ((1.0, 1.0, 1.0), size, (DenseLayer, DenseLayer, DenseLayer)),
    ):
        mask = random_mask(recipe, *densities)
        layers = made(Job(recipe, mask=mask), small).layers
        assert tuple(type(layer) for layer in layers) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_a_sparse_layer(dtype):
    generator = torch.Generator().manual_seed(0)
    weight, bias, x, gradient = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((9, 23), (9,), (23, 13), (9, 13))
    )
    mask = torch.rand(9, 23, generator=generator) < 0.3
    mask[2], mask[5], mask[:, 7] = False, True, False  # an empty row, a full one, an input that is cut off
    layer = SparseLayer(weight * mask, bias, mask)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    weight = (weight * mask).double()
    x[x < 0] = 0.0  # as if by ReLU
    passed = weight.T @ gradient.double() * (x > 0)
    for _ in range(2):  # again in the same memory
        expected = weight @ x.double() + bias.double()[:, None]
        torch.testing.assert_close(layer.forward_feature_major(x, False).double(), expected, **close)
        torch.testing.assert_close(layer.forward_feature_major(x, True).double(), expected.relu(), **close)
        torch.testing.assert_close(layer.input_gradient(gradient, x).double(), passed, **close)
        layer.set_gradients(gradient, x)
        torch.testing.assert_close(layer.weight.grad.double(), (gradient.double() @ x.T.double())[mask], **close)
        torch.testing.assert_close(layer.bias.grad.double(), gradient.double().sum(1), **close)
    x[int(mask[0].nonzero()[0]), 3] = torch.nan
    for relu in (False, True):
        outputs = layer.forward_feature_major(x, relu)
        assert outputs[0, 3].isnan()
        assert not outputs[0, :3].isnan().any()
    gradient[0, 5] = torch.nan
    assert layer.input_gradient(gradient, x)[:, 5][mask[0] & (x[:, 5] > 0)].isnan().all()


def test_batches_by_feature_are_the_turned_ones():
    generator = np.random.default_rng(0)
    for x in (
        generator.integers(0, 256, (20, 3, 5, 4), dtype=np.uint8),
        generator.integers(0, 256, (20, 7), dtype=np.uint8),
        generator.normal(size=(20, 2, 6)).astype("float32"),
    ):
        data = lotto.data.Arrays(x, np.arange(20) % 4, x, np.arange(20) % 4)
        both = [data.batches(3, 0, 4, 6, feature_major=turned) for turned in (False, True)]
        for (plain, y), (turned, again) in zip(*both, strict=True):
            assert torch.equal(turned, plain.flatten(1).t())
            assert turned.is_contiguous()
            assert torch.equal(y, again)


@pytest.mark.parametrize("densities", [None, (0.05, 0.5, 1.0)])
def test_another_loss(monkeypatch, densities):
    recipe = small_recipe(loss="mse", error="mse", precision="float64", steps="6it")
    job = Job(recipe, mask=densities and random_mask(recipe, *densities))
    ours, theirs = train(job), by_autograd(monkeypatch, job)
    for name, tensor in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_by_operators_is_that_of_autograd_to_the_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(33, 5, generator=generator, dtype=dtype) * 4
    y = torch.randint(0, 5, (33,), generator=generator)
    y[3] = -100  # which torch does not count
    loss, gradient = by_operators(outputs, y)
    expected, by_autograd = perceptron.differentiated(torch.nn.functional.cross_entropy, outputs.clone(), y)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, by_autograd)
    hot = torch.nn.functional.one_hot(y.clamp(min=0), 5) * (y >= 0)[:, None]
    by_hand = (outputs.double().softmax(1) - hot) * (y >= 0)[:, None] / 32
    torch.testing.assert_close(gradient.double(), by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_cross_entropy_in_one_piece(dtype, near, turned, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(33, 5, generator=generator, dtype=dtype) * 30
    y = torch.randint(0, 5, (33,), generator=generator)
    given = outputs.t().contiguous().t() if turned else outputs
    monkeypatch.setattr(
        lotto.training.learners.cross_entropy, "by_operators", lambda *given: pytest.fail("not in one piece")
    )
    loss, gradient = cross_entropy(given, y)
    assert loss.dtype == gradient.dtype == dtype
    assert gradient.stride() == given.stride()
    exact = outputs.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact, y)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=near, atol=0)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=0, atol=near)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_comes_through(bad):
    outputs, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    outputs[2] = bad
    loss, _ = cross_entropy(outputs, y)
    assert not torch.isfinite(loss)


def test_a_class_that_does_not_count_and_many_outputs_go_by_operators():
    x, y = torch.randn(40, 12), torch.arange(40) % 6
    y[5] = -100
    recipe = small_recipe(data=lotto.data.Arrays(x, y, x, y.clamp(min=0)), steps="3it")
    assert perceptron.loss_of(Job(recipe)) is by_operators
    assert perceptron.loss_of(Job(small_recipe())) is cross_entropy
    outputs, y = torch.randn(2, 10_000), torch.tensor([3, 9_999])
    loss, gradient = cross_entropy(outputs, y)
    expected, by_hand = by_operators(outputs, y)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, by_hand)


def test_without_numba_all_layers_are_dense(monkeypatch):
    recipe = small_recipe(precision="float64", steps="6it")
    job = Job(recipe, mask=random_mask(recipe, 0.05, 0.05, 0.05))
    with_numba = train(job)
    monkeypatch.setattr(sparse_linear, "can_compile", lambda: False)
    dense = train(job)
    assert (with_numba.arithmetic, dense.arithmetic) == (
        "perceptron, 3 of 3 layers sparse",
        "perceptron, 0 of 3 layers sparse",
    )
    for name, tensor in dense.weights.items():
        torch.testing.assert_close(with_numba.weights[name], tensor, rtol=1e-9, atol=1e-11)


def test_class_probabilities_as_targets(monkeypatch):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 12)).astype("float32"), generator.dirichlet(np.ones(4), 60)
    data = lotto.data.Arrays(x, y, x, y)
    recipe = small_recipe(data=data, precision="float64", error="mse", steps="6it", loss="cross-entropy")
    job = Job(recipe, mask=random_mask(recipe, 0.09, 1.0, 1.0))
    ours, theirs = train(job), by_autograd(monkeypatch, job)
    for name, tensor in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], tensor, rtol=1e-9, atol=1e-11)


def test_a_killed_sparse_run_ends_in_the_same_bits():
    recipe = small_recipe(model="mlp-300-100", optimizer=SGD(0.05, momentum=0.9, weight_decay=1e-3))
    job = Job(recipe, mask=random_mask(recipe, 0.05, 0.04, 0.09))
    points = []
    whole = train(job, on_checkpoint=points.append, checkpoint_seconds=0.0)
    assert len(points) > 10
    points = []

    class Killed(Exception):
        pass

    def stop(point):
        points.append(point)
        if point.step == 17:
            raise Killed

    with pytest.raises(Killed):
        train(job, on_checkpoint=stop, checkpoint_seconds=0.0)
    again = train(job, resume=points[-1])
    assert same_tensors(whole.weights, again.weights)
    other = train(Job(recipe, order_seed=1, mask=job.mask))
    assert not same_tensors(whole.weights, other.weights), "two orders differ"


def test_a_fork_with_the_optimizer_is_the_continuation():
    recipe = small_recipe(model="mlp-64-32", optimizer=Adam(1e-2))
    mask = random_mask(recipe, 0.05, 0.05, 0.09)
    whole = train(Job(recipe, mask=mask, keep=(15,)))
    fork = train(Job(recipe, start=whole.state(15), mask=mask, from_step=15))
    assert same_tensors(whole.weights, fork.weights)


def test_pruned_weights_and_their_momentum_are_zero():
    recipe = small_recipe(optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-2))
    mask = random_mask(recipe, 0.05, 0.5, 0.09)
    run = train(Job(recipe, mask=mask, keep=(7,)))
    for name, keep in mask.items():
        assert not run.weights[name][~keep].any()
        momentum = run.state(7).optimizer[f"{name}/momentum_buffer"]
        assert momentum.shape == keep.shape
        assert not momentum[~keep].any()
        assert momentum[keep].any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"precision": "bfloat16"}, False),
        ({"loss": "mse", "error": "mse"}, True),
        ({"loss": lambda o, y: o.square().mean()}, False),
        ({"model": lambda: torch.nn.Linear(12, 6)}, False),
    ],
)
def test_others_are_left_to_autograd(changes, expected):
    recipe = small_recipe(**changes)
    chosen = learner_of([Job(recipe)])
    assert type(chosen) is (Perceptron if expected else Autograd)
    assert chosen.parameters
