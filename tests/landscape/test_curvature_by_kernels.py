"""Products with the Hessian by kernels against second derivatives of autograd in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import lotto
from drawn_networks import POOLS, Composed, Drawn, composed_parts, drawn_parts
from lotto import SGD
from lotto.landscape.curvature import Hessian, by_kernels, mean_loss
from lotto.pruning import masks
from lotto.training.learners.operations import Unknown
from lotto.training.learners.traced import traced

SIZE = (9, 8)


def images(examples=40, shape=(2, *SIZE), classes=5, targets=None):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(examples + 10, *shape)).astype(np.float32)
    y = np.arange(examples + 10) % classes if targets is None else targets(generator, examples + 10)
    return lotto.data.Arrays(x[:-10], y[:-10], x[-10:], y[-10:], name="noise")


def recipe_of(model, data=None, **changes):
    data = images() if data is None else data
    return lotto.Recipe(
        model, data, SGD(0.1), batch_size=20, steps="5it", device="cpu", arithmetic="sparse", name="noise"
    ).replace(**changes)


def point(recipe, seed=0, density=0.5):
    """Weights all at random, so that BatchNorm does something and no bias is 0, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in recipe.initial(seed).items():
        noise = torch.randn(tensor.shape, generator=generator)
        positive = "running_var" in name or ("weight" in name and tensor.dim() == 1)
        drawn = tensor + 0.3 * (noise.abs() if positive else noise) if tensor.is_floating_point() else tensor
        weights[name] = drawn * (0.3 if tensor.dim() > 1 else 1)
    mask = masks.ones(recipe)
    if density < 1:
        mask = masks.random_like(lotto.pruning.prune(weights, mask, rate=1 - density), seed)
    return weights, mask


def exact(recipe, weights, mask=None, **given):
    found = Hessian(recipe.replace(precision="float64", arithmetic="auto"), weights, mask, **given)
    assert found.kernels is None
    return found


def check(recipe, weights, mask, seed=0, tolerance=2e-3, **how):
    """That products are by kernels, and autograd's; those of ReLUs that rounding turns are a few."""
    found, expected = Hessian(recipe, weights, mask, **how), exact(recipe, weights, mask, **how)
    assert found.kernels is not None
    vector = np.random.default_rng(seed).standard_normal(found.size)
    right = expected @ vector
    for _ in range(2):  # what is kept from the first one serves in the second
        assert np.linalg.norm(found @ vector - right) <= tolerance * np.linalg.norm(right)
    return found


@settings(max_examples=12, deadline=None)
@given(
    parts=drawn_parts,
    flat=st.booleans(),
    hidden=st.booleans(),
    density=st.sampled_from([1.0, 0.4, 0.1]),
    seed=st.integers(0, 99),
)
def test_products_of_a_drawn_network(parts, flat, hidden, density, seed):
    assume(any(kind not in POOLS for kind, _, _ in parts))
    try:
        module = Drawn(parts, flat, hidden, SIZE)
        traced(module, (2, *SIZE))
    except (RuntimeError, Unknown):  # nothing is left to pool; of one place, a stride takes nothing away
        assume(False)
    recipe = recipe_of(lambda: Drawn(parts, flat, hidden, SIZE))
    weights, mask = point(recipe, seed, density)
    expected = exact(recipe, weights, mask, examples=20)
    vector = np.random.default_rng(seed).standard_normal(expected.size)
    right = expected @ vector
    found = Hessian(recipe, weights, mask, examples=20)
    assert found.kernels is not None or not right.any()
    assert np.linalg.norm(found @ vector - right) <= 5e-3 * np.linalg.norm(right)


@settings(max_examples=12, deadline=None)
@given(parts=composed_parts, flat=st.booleans(), density=st.sampled_from([1.0, 0.4]), seed=st.integers(0, 99))
def test_products_of_any_sums_are_right_by_kernels_or_not(parts, flat, density, seed):
    assume(any(kind not in POOLS for kind, *_ in parts))
    try:
        Composed(parts, flat, True, SIZE)
    except RuntimeError:  # nothing is left to pool
        assume(False)
    recipe = recipe_of(lambda: Composed(parts, flat, True, SIZE))
    weights, mask = point(recipe, seed, density)
    expected = exact(recipe, weights, mask, examples=20)
    vector = np.random.default_rng(seed).standard_normal(expected.size)
    right = expected @ vector
    assert np.linalg.norm(Hessian(recipe, weights, mask, examples=20) @ vector - right) <= 5e-3 * np.linalg.norm(right)


MODELS = {
    "images": ("resnet-8-w4", (3, 8, 8)), "signals": ("resnet-8-w4", (40,)), "pooling": ("conv-2", (3, 8, 8)),
    "strides": ("conv1d", (40,)),
}  # fmt: skip


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("name", MODELS)
def test_products_of_networks_of_ours(name, density):
    model, shape = MODELS[name]
    recipe = recipe_of(model, images(shape=shape))
    check(recipe, *point(recipe, density=density))


@pytest.fixture(scope="module")
def signals():
    return recipe_of("resnet-8-w4", images(300, (40,)))


def test_the_whole_matrix(signals):
    weights, mask = point(signals, density=0.1)
    found, expected = (kind(signals, weights, mask, examples=30) for kind in (Hessian, exact))
    assert found.kernels is not None
    matrix, right = np.stack([found @ row for row in np.eye(found.size)]), expected.dense()
    scale = np.abs(right).max()
    assert np.abs(matrix - right).max() <= 1e-4 * scale
    assert np.abs(matrix - matrix.T).max() <= 1e-4 * scale


@pytest.mark.parametrize("held", [0, 4000])
@pytest.mark.parametrize("examples", [None, 129, 7])
def test_batches_add_up_kept_or_not(signals, monkeypatch, held, examples):
    monkeypatch.setattr(mean_loss, "HELD_EXAMPLES", held)
    found = check(signals, *point(signals), examples=examples)
    count = examples or 300
    assert found.kernels.passes.slots == (-(-count // by_kernels.BATCH) if held else 1)


def test_of_another_split_and_of_more_examples_than_there_are(signals):
    check(signals, *point(signals), split="test", examples=500)


def test_what_is_not_asked_about_stays(signals):
    """Weights behind the mask are there, and do not move: of a mask of some layers, the first ones or only the last."""
    weights, mask = point(signals)
    for names in (
        ["conv.weight"],
        ["fc.weight"],
        ["blocks.1.conv2.weight", "fc.weight"],
        [n for n in mask if "fc" not in n],
    ):
        check(signals, weights, {name: mask[name] for name in names})


class Frozen(lotto.models.ResNet1d):
    def __init__(self):
        super().__init__(8, 1, 5, 4)
        self.blocks[1].conv1.weight.requires_grad_(False)


def test_what_is_frozen_has_no_coordinates():
    recipe = recipe_of(Frozen, images(shape=(40,)))
    weights, mask = point(recipe)
    found = check(recipe, weights, mask)
    assert found.size == sum(int(keep.sum()) for name, keep in mask.items() if name != "blocks.1.conv1.weight")


def regression(generator, count):
    return generator.normal(size=(count, 5)).astype(np.float32)


def partly_ignored(generator, count):
    y = np.arange(count) % 5
    y[::3], y[:20] = -100, -100
    return y


LOSSES = {
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), None),
    "mse": ("mse", regression),
    "ratio": (lotto.recipe.totals.Ratio(lambda o, y: (((o.sin() - y) ** 4).sum(), y.numel())), regression),
    "ignored": (nn.CrossEntropyLoss(), partly_ignored),
}


@pytest.mark.parametrize("name", LOSSES)
def test_other_losses(name):
    loss, targets = LOSSES[name]
    recipe = recipe_of("conv1d", images(shape=(40,), targets=targets), loss=loss, error=loss)
    check(recipe, *point(recipe))


def test_what_is_not_proved_is_not_taken(signals, monkeypatch):
    weights, mask = point(signals)
    product = by_kernels.KernelProducts.product
    monkeypatch.setattr(by_kernels.KernelProducts, "product", lambda *given, **how: 1.02 * product(*given, **how))
    found, vector = Hessian(signals, weights, mask), np.ones(masks.count(mask))
    assert found.kernels is None
    assert found @ vector == pytest.approx(exact(signals, weights, mask) @ vector, rel=0.01, abs=1e-4)


def test_a_vector_of_another_order_in_memory(signals):
    found = Hessian(signals, *point(signals), examples=20)
    vector = np.arange(found.size)
    assert np.array_equal(found @ vector[::-1], found @ vector[::-1].astype(float).copy())


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 3, 3), nn.Linear(3, 5)

    def forward(self, x):
        return self.fc(self.conv(x[:, None]).tanh().mean(-1))


@pytest.mark.parametrize(
    ("model", "changes"),
    [(Smooth, {}), ("mlp-8", {}), ("conv1d", {"precision": "float64"}), ("conv1d", {"arithmetic": "dense"})],
)
def test_autograd_as_ever(model, changes):
    recipe = recipe_of(model, images(shape=(40,)), **changes)
    assert Hessian(recipe, recipe.initial(0)).kernels is None


def test_of_a_loss_that_is_known_from_all_outputs_only():
    def loss(outputs, y):
        return nn.functional.cross_entropy(outputs, y) ** 2

    recipe = recipe_of("conv1d", images(shape=(40,)), loss=loss)
    assert Hessian(recipe, recipe.initial(0), examples=30).kernels is None
