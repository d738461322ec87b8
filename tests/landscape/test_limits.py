"""The largest prunable fraction: converged or refused. And the curvature of what is pruned, against dense matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.landscape.curvature import Hessian, blocks, convergence, lanczos
from lotto.landscape.curvature.convergence import COMBINATIONS, LimitsTask, limits, limits_from, settle
from lotto.pruning import masks
from lotto.training.job import Job
from lotto.training.loop import train


@pytest.fixture(scope="module")
def point():
    """A trained network of few weights with BatchNorm, in float64; its mask; the dense Hessian."""

    def model():
        return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6))

    recipe = small_recipe(model=model, init="module", precision="float64", steps="80it")
    weights = train(Job(recipe)).weights
    mask = lotto.pruning.prune(weights, masks.ones(recipe), rate=0.3)
    return recipe, weights, mask, dense(recipe, weights, mask)


def dense(recipe, weights, mask, examples=None):
    """Slow and obvious: every second derivative of the mean loss in evaluation mode over the unpruned coordinates."""
    module = recipe.build().double().eval()
    start = {n: t.double() if t.is_floating_point() else t for n, t in masks.apply(weights, mask).items()}
    flat = torch.cat([start[n][k] for n, k in mask.items()])
    x, y = recipe.arrays.normalise(recipe.arrays.x["train"]).double()[:examples], recipe.arrays.y["train"][:examples]

    def loss(vector):
        full, at = dict(start), 0
        for name, keep in mask.items():
            n = int(keep.sum())
            full[name] = torch.zeros_like(start[name]).index_put((keep,), vector[at : at + n])
            at += n
        return nn.functional.cross_entropy(torch.func.functional_call(module, full, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat).numpy()


def flat(weights, mask):
    return torch.cat([weights[n][k].double() for n, k in mask.items()]).numpy()


class Diagonal:
    """A matrix with known eigenvalues that counts its products."""

    def __init__(self, values):
        self.values, self.size, self.products = np.asarray(values, dtype=float), len(values), 0

    def __matmul__(self, vector):
        self.products += 1
        return self.values * vector


def share(values, masses, squared, reading, epsilon):
    """The largest p of a grid of 1 / D at which the formula holds, by trying all of them."""
    best = 0.0
    for count in range(len(squared)):
        curvature = np.abs(values) if reading == "published" else np.where(values > 0, values, 0.0)
        if count / (len(squared) - 1) <= np.sum(masses * 2 * epsilon / (2 * epsilon + curvature * squared[count])):
            best = count / (len(squared) - 1)
        else:
            break
    return best


@pytest.fixture
def by_lanczos(monkeypatch):
    """Small matrices, too, go by probes."""
    monkeypatch.setattr(convergence, "EXACT", 0)


# --- the fractions --------------------------------------------------------------------------------------


def test_fractions_are_those_of_the_dense_hessian(by_lanczos, point):
    recipe, weights, mask, matrix = point
    found = limits(recipe, weights, mask, 0.05, probes=6, seed=2)
    values, vectors = np.linalg.eigh(matrix)
    squares, size = np.sort(flat(weights, mask) ** 2), len(matrix)
    counts = np.arange(size + 1)
    probes = [lanczos.signs(2, i, size) for i in range(6)]
    along = np.mean([(vectors.T @ probe) ** 2 / size for probe in probes], axis=0)  # the masses that the probes see
    for kind, reading in COMBINATIONS:
        lengths = np.concatenate([[0], np.cumsum(squares)]) if kind == "magnitude" else squares.sum() * counts / size
        squared = lengths if reading == "published" else lengths * size / np.maximum(counts, 1)
        assert found.fraction(kind, reading) == pytest.approx(
            share(values, along, squared, reading, 0.05), abs=1.5 / size
        )
        exact = share(values, np.full(size, 1 / size), squared, reading, 0.05)
        assert abs(found.fraction(kind, reading) - exact) < 4 * found.errors[kind, reading] + 1.5 / size
    assert found.converged
    assert max(found.moved.values()) < convergence.ACCURACY
    assert 0 < found.fraction("random") < found.fraction("magnitude") < 1
    assert found.examples == 240, "all there are"


def test_fractions_of_few_weights_are_exact(point):
    recipe, weights, mask, matrix = point
    found = limits(recipe, weights, mask, 0.05)
    values, squares, size = np.linalg.eigvalsh(matrix), np.sort(flat(weights, mask) ** 2), len(matrix)
    counts = np.arange(size + 1)
    for kind, reading in COMBINATIONS:
        lengths = np.concatenate([[0], np.cumsum(squares)]) if kind == "magnitude" else squares.sum() * counts / size
        squared = lengths if reading == "published" else lengths * size / np.maximum(counts, 1)
        assert found.fraction(kind, reading) == share(values, np.full(size, 1 / size), squared, reading, 0.05)
        assert found.errors[kind, reading] == found.moved[kind, reading] == 0.0
    assert found.spectrum.nodes == pytest.approx(values, abs=1e-9)
    assert found.spectrum.trace == pytest.approx(np.trace(matrix))
    assert found.spectrum.trace_error == 0.0


def test_probe_errors_are_the_spread_of_single_probes(by_lanczos, point):
    recipe, weights, mask, _ = point
    found = limits(recipe, weights, mask, 0.05, probes=3)
    squared = convergence.squared_distances(convergence.squared_lengths(weights, mask, "random"), "corrected")
    operator, each = Hessian(recipe, weights, mask), []
    for probe in range(3):
        krylov = lanczos.Krylov(operator, lanczos.signs(0, probe, operator.size))
        krylov.grow(operator.size)
        each.append(share(*krylov.quadrature(krylov.steps), squared, "corrected", 0.05))
    expected = np.std(each, ddof=1) / math.sqrt(3)
    assert found.errors["random", "corrected"] == pytest.approx(expected, abs=1.5 / operator.size)
    assert math.isnan(limits(recipe, weights, mask, 0.05, probes=1).errors["random", "corrected"])


def heavy(size=3000):
    """A spectrum like LeNet's: a bulk around 0 of both signs and of all scales, and few large eigenvalues."""
    rng = np.random.default_rng(0)
    bulk = 10 ** rng.uniform(-7, -3, size - 30) * np.where(rng.random(size - 30) < 0.7, 1.0, -1.0)
    return np.concatenate([bulk, np.geomspace(0.05, 20, 30)])


def fractions_of(values, squared=1000.0, epsilon=0.1):
    """The readings at one squared distance, as random pruning has it."""

    def function(spectrum):
        return np.array([convergence.allowed(spectrum, epsilon, squared, r) for r in ("published", "corrected")])

    size = len(values)
    exact = [np.mean(0.2 / (0.2 + np.abs(values) * squared)), np.mean(0.2 / (0.2 + values.clip(0) * squared))]
    assert size
    return function, np.array(exact)


def test_too_few_steps_are_noticed():
    values = heavy()
    function, exact = fractions_of(values)
    _, moved = settle(Diagonal(values), function, 2, 32)
    assert moved.max() > convergence.ACCURACY, "nothing to compare with but the same 32 steps, and they move"
    early = [settle(Diagonal(values), function, 2, steps) for steps in (16, 24)]
    assert all(m.max() > convergence.ACCURACY for _, m in early)
    grown, moved = settle(Diagonal(values), function, 2, 2000)
    assert moved.max() < convergence.ACCURACY
    assert grown[0].steps > 32
    found = function(convergence.spectrum_with_noise(grown, grown[0].steps, 0.0))
    assert found == pytest.approx(exact, abs=0.03)
    first = function(convergence.spectrum_with_noise(grown, 32, 0.0))
    assert np.abs(first - exact).max() > 0.03, "32 steps would have been wrong"


def test_steps_are_doubled_without_computing_any_twice():
    matrix = Diagonal(heavy())
    function, _ = fractions_of(matrix.values)
    grown, _ = settle(matrix, function, 2, 2000)
    assert matrix.products == sum(k.steps for k in grown)
    assert grown[0].steps in (64, 128, 256, 512, 1024)
    at_once = lanczos.Krylov(matrix, lanczos.signs(0, 0, matrix.size))
    at_once.grow(grown[0].steps)
    for steps in (16, 32, grown[0].steps):
        for a, b in zip(at_once.quadrature(steps), grown[0].quadrature(steps), strict=True):
            assert a == pytest.approx(b, abs=1e-9)
    first = lanczos.Krylov(matrix, lanczos.signs(0, 0, matrix.size))
    first.grow(16)
    assert first.quadrature(16)[0] == pytest.approx(at_once.quadrature(16)[0], abs=1e-12)


def test_bases_take_a_bounded_memory(monkeypatch):
    matrix = Diagonal(heavy(1000))
    monkeypatch.setattr(convergence, "BASIS_BYTES", 40 * 8 * 1000 * 2)
    grown, _ = settle(matrix, fractions_of(matrix.values)[0], 2, 500)
    assert [k.steps for k in grown] == [40, 40]


def test_what_is_not_converged_is_refused_with_a_sentence(by_lanczos, point):
    recipe, weights, mask, _ = point
    found = limits(recipe, weights, mask, 0.05, probes=2, steps=6)
    assert not found.converged
    assert found.steps == 6
    kind, reading = max(found.moved, key=found.moved.get)
    with pytest.raises(
        UsageError, match=r"not converged: in the second half of 6 Lanczos steps .* moved by 0\.\d+, .*=12"
    ):
        found.fraction(kind, reading)
    with pytest.raises(UsageError, match="Unknown kind of pruning"):
        found.fraction("magnitud")
    with pytest.raises(UsageError, match="Unknown reading"):
        found.fraction("random", "publishd")


# --- examples, noise ------------------------------------------------------------------------------------


def test_few_examples_cap_the_rank_and_are_refused():
    # Without a hidden layer the Hessian is its Gauss-Newton part: n examples of 6 classes give rank 5 n at most.
    arrays = small_arrays(train=3000)
    recipe = small_recipe(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), init="module", data=arrays,
                          precision="float64")  # fmt: skip
    weights, mask = recipe.initial(0), masks.ones(recipe)
    values = np.linalg.eigvalsh(dense(recipe, weights, mask, examples=3))
    assert (np.abs(values) > 1e-12).sum() == 3 * 5 < len(values) == 72
    enough = math.ceil(1.5 * 72 / 5)
    assert convergence.enough_examples(recipe, 72) == convergence.LEAST_EXAMPLES
    with pytest.raises(
        UsageError, match=r"10 examples are too few for 72 weights: they alone leave 31% .*examples=2000"
    ):
        LimitsTask(recipe, weights, mask, examples=10)
    assert enough < convergence.LEAST_EXAMPLES


@pytest.mark.parametrize(
    ("weights", "expected"), [(23_272, 3_879), (265_200, 44_200), (1_000, 2_000), (600_000, 60_000)]
)
def test_enough_examples_of_ten_classes(weights, expected):
    x, y = np.zeros((60_000, 1), dtype=np.float32), np.arange(60_000) % 10
    recipe = small_recipe(data=lotto.data.Arrays(x, y, x[:10], y[:10]))
    assert convergence.enough_examples(recipe, weights) == expected


def test_noise_is_the_rounding_of_a_product(point):
    recipe, weights, mask, matrix = point
    assert convergence.noise_of(recipe, weights, mask, 240) == 0.0
    single = recipe.replace(precision="float32")
    rounded = {n: t.float() if t.is_floating_point() else t for n, t in weights.items()}
    probe = lanczos.signs(0, 0, len(matrix)) / math.sqrt(len(matrix))
    expected = np.linalg.norm(Hessian(single, rounded, mask) @ probe - dense(recipe, rounded, mask) @ probe)
    noise = convergence.noise_of(single, rounded, mask, 240)
    assert noise == pytest.approx(expected, rel=1e-3)
    assert 0 < noise < 1e-5 * np.abs(matrix).max()
    assert limits(single, rounded, mask, 0.05, probes=2).spectrum.noise >= noise


def test_fractions_are_remembered_by_what_decides_them(by_lanczos, point, store):
    recipe, weights, mask, _ = point
    task = LimitsTask(recipe, weights, mask, 0.05, probes=2)
    events: list = []
    first, second = (Serial(store).run([task], events.append)[0] for _ in range(2))
    assert limits_from(first) == limits_from(second) == limits(recipe, weights, mask, 0.05, probes=2)
    assert [e.trained for e in events if hasattr(e, "trained")] == [True, False]
    assert task.key == LimitsTask(recipe, weights, mask, 0.05, probes=2, examples=240, label="other").key
    assert task.key != LimitsTask(recipe, weights, mask, 0.06, probes=2).key
    with pytest.raises(UsageError, match="greater than 0"):
        LimitsTask(recipe, weights, mask, 0.0)


# --- what is pruned -------------------------------------------------------------------------------------


def test_curvature_of_what_is_pruned_is_that_of_the_dense_hessian(point):
    recipe, weights, mask, matrix = point
    cuts = [lotto.pruning.prune(weights, mask, 0.4, kind, "global", seed=1) for kind in ("magnitude", "random")]
    nothing = {n: torch.zeros_like(k) for n, k in mask.items()}
    found = blocks.blocks_from(blocks.BlocksTask(recipe, weights, mask, [*cuts, nothing], probes=400).execute())
    w = flat(weights, mask)
    for block, cut in zip(found, [*cuts, nothing], strict=True):
        pruned = np.concatenate([~cut[n][k].numpy() for n, k in mask.items()])
        moved = np.where(pruned, w, 0.0)
        assert block.size == pruned.sum()
        assert block.length == pytest.approx(np.linalg.norm(w[pruned]))
        assert block.rayleigh == pytest.approx(moved @ matrix @ moved / (moved @ moved), rel=1e-8)
        expected = np.trace(matrix[np.ix_(pruned, pruned)]) / pruned.sum()
        assert abs(block.mean - expected) < 4 * block.error
        assert block.error < 0.2 * expected, "the bound above says something"
        assert block.error == pytest.approx(np.std(block.means, ddof=1) / 20)
        assert block.trace == block.size * block.mean
    assert found[2].size == len(matrix)
    assert found[0].length < found[1].length


def test_blocks_without_weights_or_displacement(point):
    recipe, weights, mask, _ = point
    with pytest.raises(UsageError, match="prunes nothing of the mask"):
        blocks.pruned_block(recipe, weights, mask, mask)
    with pytest.raises(UsageError, match="at least one probe; got 0"):
        blocks.pruned_block(recipe, weights, mask, mask, probes=0)
    zero = {n: torch.zeros_like(t) if n in mask else t for n, t in weights.items()}
    cut = lotto.pruning.prune(weights, mask, 0.4)
    assert math.isnan(blocks.pruned_block(recipe, zero, mask, cut, probes=1).rayleigh)
