"""Curvature against a dense float64 Hessian, and the theory of the largest prunable share against algebra."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lotto
from conftest import small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.core.rng import stream
from lotto.execution.serial import Serial
from lotto.landscape import subspace
from lotto.landscape.curvature import lanczos, pruning_limit, quadratic
from lotto.landscape.curvature.eigenvalues import Hessian, Spectrum, SpectrumTask, spectrum_from
from lotto.pruning import masks
from lotto.training.loop import train


@pytest.fixture(scope="module")
def point():
    """A trained tanh-free MLP in float64, a mask of it, and the dense Hessian over its unpruned coordinates."""
    recipe = small_recipe(precision="float64", steps="60it")
    weights = train(Job(recipe)).weights
    mask = lotto.pruning.prune(weights, masks.ones(recipe), rate=0.4)
    return recipe, weights, mask, dense(recipe, weights, mask)


def dense(recipe, weights, mask):
    """Slow and obvious: every second derivative of the mean loss over the flat unpruned coordinates."""
    module = recipe.build().double().eval()
    start = {n: t.double() for n, t in masks.apply(weights, mask).items()}
    flat = torch.cat([start[n][k] for n, k in mask.items()])
    x, y = recipe.arrays.normalise(recipe.arrays.x["train"]).double(), recipe.arrays.y["train"]

    def loss(vector):
        full, at = dict(start), 0
        for name, keep in mask.items():
            n = int(keep.sum())
            full[name] = torch.zeros_like(start[name]).index_put((keep,), vector[at : at + n])
            at += n
        return recipe.loss_function(torch.func.functional_call(module, full, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat).numpy()


def test_products_are_those_of_the_dense_hessian(point):
    recipe, weights, mask, matrix = point
    operator = Hessian(recipe, weights, mask)
    assert operator.size == masks.count(mask) == len(matrix) <= 2000
    assert np.abs(operator.dense() - matrix).max() < 1e-10 * np.abs(matrix).max()
    vector = np.random.default_rng(0).standard_normal(operator.size)
    assert operator @ vector == pytest.approx(matrix @ vector, rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_products_are_those_of_curvlinops(point):
    curvlinops = pytest.importorskip("curvlinops")
    recipe, weights, _, _ = point
    module = recipe.build().double().eval()
    module.load_state_dict(weights)
    parameters = [p for n, p in module.named_parameters() if n.endswith("weight")]
    x, y = recipe.arrays.normalise(recipe.arrays.x["train"]).double(), recipe.arrays.y["train"]
    other = curvlinops.HessianLinearOperator(module, nn.CrossEntropyLoss(), parameters, [(x, y)])
    operator = Hessian(recipe, weights)
    vector = np.random.default_rng(1).standard_normal(operator.size)
    assert operator @ vector == pytest.approx((other @ torch.from_numpy(vector)).numpy(), rel=1e-9, abs=1e-12)


def test_gradient_is_that_of_the_loss(point):
    recipe, weights, mask, _ = point
    operator = Hessian(recipe, weights, mask)
    gradient, step = operator.gradient(), 1e-5
    for i in (0, operator.size // 2, operator.size - 1):
        direction = np.eye(operator.size)[i]
        moved = []
        for sign in (1, -1):
            shift = dict(zip(mask, operator._scatter(sign * step * direction), strict=True))
            at = {n: t + shift[n].detach() if n in shift else t for n, t in masks.apply(weights, mask).items()}
            moved.append(lotto.evaluate(recipe, at, "train").loss)
        assert gradient[i] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-5, abs=1e-9)


def test_top_eigenvalues(point):
    recipe, weights, mask, matrix = point
    expected = np.linalg.eigvalsh(matrix)[::-1]
    found = lotto.landscape.curvature.top(recipe, weights, mask, k=5)
    assert found.converged
    assert found.values == pytest.approx(expected[:5], rel=1e-6)
    assert max(found.residuals) < 1e-5 * expected[0]
    everything = lotto.landscape.curvature.top(recipe, weights, mask, k=len(matrix))
    assert everything.values == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_what_does_not_converge_is_said_and_what_did_is_returned(point):
    recipe, weights, mask, _ = point
    found = lotto.landscape.curvature.top(recipe, weights, mask, k=6, tolerance=1e-14, iterations=1)
    assert not found.converged
    assert len(found.values) == len(found.residuals) < 6


def test_spectrum_integrates_to_one_and_its_mean_is_the_trace(point):
    recipe, weights, mask, matrix = point
    found = lotto.landscape.curvature.spectrum(recipe, weights, mask, steps=40, probes=10)
    assert sum(found.masses) == pytest.approx(1.0)
    grid = np.linspace(min(found.nodes) - 1, max(found.nodes) + 1, 20_001)
    assert np.trapezoid(found.density(grid, 0.02), grid) == pytest.approx(1.0, abs=1e-6)
    assert found.size * found.mean(lambda v: v) == pytest.approx(found.trace, rel=1e-9)
    assert abs(found.trace - np.trace(matrix)) < 4 * found.trace_error


def test_quadrature_is_exact_for_polynomials(point):
    # Lanczos quadrature of m nodes is exact up to degree 2m - 1, along its own start vector.
    recipe, weights, mask, matrix = point
    found = lotto.landscape.curvature.spectrum(recipe, weights, mask, steps=12, probes=1, seed=5)
    start = np.where(stream(5, "probe", 0).random(len(matrix)) < 0.5, -1.0, 1.0)
    for power in (1, 2, 3, 7):
        expected = start @ np.linalg.matrix_power(matrix, power) @ start / len(matrix)
        assert found.mean(lambda v, power=power: v**power) == pytest.approx(expected, rel=1e-6)


def test_spectrum_of_few_coordinates_is_exact(point):
    recipe, weights, mask, _ = point
    tiny = {"fc3.weight": torch.zeros_like(mask["fc3.weight"])}  # the other layers stay whole, and where they are
    tiny["fc3.weight"].view(-1)[:3] = True
    matrix = dense(recipe, weights, tiny)
    found = lotto.landscape.curvature.spectrum(recipe, weights, tiny, steps=50, probes=3)
    assert sorted(set(np.round(found.nodes, 8))) == pytest.approx(np.linalg.eigvalsh(matrix), abs=1e-7)


def test_task_is_remembered(point, store):
    recipe, weights, mask, _ = point
    task = SpectrumTask(recipe, weights, mask, k=2, steps=8, probes=2)
    engine = Serial(store)
    events: list = []
    first, second = (engine.run([task], events.append)[0] for _ in range(2))
    assert first == second
    assert [e.trained for e in events if hasattr(e, "trained")] == [True, False]
    found = spectrum_from(first)
    assert found == lanczos.spectrum_of(Hessian(recipe, weights, mask), 8, 2)
    assert first["top"] == list(lotto.landscape.curvature.top(recipe, weights, mask, k=2).values)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        return self.fc(nn.functional.dropout(x, 0.5, training=True))


def test_a_loss_that_is_no_function_of_the_weights_is_refused(point):
    recipe, weights, mask, _ = point
    noisy = recipe.replace(model=Noisy, init="module")
    with pytest.raises(UsageError, match="draws random numbers in evaluation mode"):
        Hessian(noisy, noisy.initial(0))
    norm = recipe.replace(
        model=lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 6)),
        init="module",
    )
    with pytest.raises(UsageError, match=r"'1' normalises by the statistics of each batch"):
        Hessian(norm, norm.initial(0))
    with pytest.raises(UsageError, match="axial subspace is empty"):
        Hessian(recipe, weights, {n: torch.zeros_like(k) for n, k in mask.items()})
    with pytest.raises(UsageError, match="eigenvalues; asked for 0"):
        lotto.landscape.curvature.top(recipe, weights, mask, k=0)


def test_batchnorm_dropout_and_bfloat16_are_evaluated_as_in_tests():
    def model():
        return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6))

    recipe = small_recipe(model=model, init="module", precision="float64", steps="20it")
    weights = train(Job(recipe)).weights
    mask = masks.ones(recipe)
    assert Hessian(recipe, weights, mask).dense() == pytest.approx(dense(recipe, weights, mask), rel=1e-7, abs=1e-10)
    low = Hessian(recipe.replace(precision="bfloat16"), weights, mask)
    assert low.dense() == pytest.approx(dense(recipe, weights, mask), rel=1e-2, abs=1e-4)


# --- the largest prunable share -----------------------------------------------------------------------


def well(values, masses=None):
    n = len(values)
    return Spectrum(tuple(values), tuple(masses or [1 / n] * n), n, (sum(values),))


def weights_of(values):
    weights = {"fc.weight": torch.tensor([values])}
    return weights, {"fc.weight": torch.ones(1, len(values), dtype=torch.bool)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(pruning_limit.KINDS), st.sampled_from(pruning_limit.READINGS))
def test_prediction_is_the_crossing_found_by_trying_every_share(seed, kind, reading):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=40)).tolist()
    weights, mask = weights_of(rng.normal(size=40).tolist())
    found = lotto.landscape.largest_prunable(well(values), weights, mask, 0.1, kind, reading)
    squares = np.sort(weights["fc.weight"].double().numpy().ravel() ** 2)
    fits = [True]
    for count in range(1, 41):
        squared = squares[:count].sum() if kind == "magnitude" else squares.sum() * count / 40
        if reading == "corrected":
            squared *= 40 / count
        radii = 2 * 0.1 / np.array(values)
        fits.append(count / 40 <= np.mean(radii / (radii + squared)))
    assert found == (fits.index(False) - 1 if False in fits else 40) / 40


@pytest.mark.parametrize("reading", pruning_limit.READINGS)
@pytest.mark.parametrize("kind", pruning_limit.KINDS)
def test_limits_of_the_theory(kind, reading):
    weights, mask = weights_of([0.5, -1.0, 2.0, 0.1] * 25)
    some = well([1.0, 5.0, 30.0])

    def largest(spectrum, epsilon=0.1, weights=weights):
        return lotto.landscape.largest_prunable(spectrum, weights, mask, epsilon, kind, reading)

    assert largest(well([0.0, 0.0, 0.0])) == 1.0, "no walls"
    assert largest(well([1e-9, 0.0, -1e-9])) >= 0.99
    assert largest(some, 1e12) >= 0.99, "any loss will do"
    assert largest(some, weights={"fc.weight": torch.zeros(1, 100)}) == 1.0, "nothing to move"
    assert largest(some, 1e-9) < 0.02
    assert largest(well([3.0, 15.0, 90.0]), 0.3) == largest(some)
    with pytest.raises(UsageError, match="greater than 0"):
        largest(some, 0.0)
    with pytest.raises(UsageError, match="Unknown kind of pruning"):
        lotto.landscape.largest_prunable(some, weights, mask, 0.1, "magnitud", reading)
    with pytest.raises(UsageError, match="Unknown reading of the distance"):
        lotto.landscape.largest_prunable(some, weights, mask, 0.1, kind, "publishd")


def test_readings_differ_in_negative_eigenvalues_and_agree_about_noise():
    weights, mask = weights_of([0.5, -1.0, 2.0, 0.1] * 25)
    up, down = (well([sign * 3.0, 5.0]) for sign in (1, -1))
    published, corrected = (
        [lotto.landscape.largest_prunable(s, weights, mask, 0.1, "random", r) for s in (up, down)]
        for r in pruning_limit.READINGS
    )
    assert published[0] == published[1], "by the absolute value"
    assert corrected[0] < 0.5 <= corrected[1], "along it the well has no wall"
    noisy = [replace(s, noise=3.5) for s in (up, down)]
    for reading in pruning_limit.READINGS:
        zero, *others = (
            lotto.landscape.largest_prunable(s, weights, mask, 0.1, "random", reading)
            for s in (well([0.0, 5.0]), *noisy)
        )
        assert others == [zero, zero], "whatever the sign"


@pytest.mark.parametrize(
    ("ratio", "exact", "published", "corrected"), [(0.0195, 0.025, 0.13, 0.018), (0.304, 0.29, 0.42, 0.23)]
)
def test_readings_of_an_isotropic_well(ratio, exact, published, corrected):
    # Pruning costs curvature / 2 |w_P|^2, so exactly the share p with p |w|^2 = r^2 = 2 epsilon / curvature can go.
    # The figures to compare with are of one draw of 400 weights.
    rng = np.random.default_rng(3)
    values = rng.normal(size=4000)
    weights, mask = weights_of(values.tolist())
    epsilon = 0.1
    curvature = 2 * epsilon / (ratio * float(weights["fc.weight"].double().square().sum()))
    order = rng.permutation(4000)
    costs = curvature / 2 * np.cumsum(values[order] ** 2)
    assert np.mean(costs <= epsilon) == pytest.approx(ratio, abs=0.02) == pytest.approx(exact, abs=0.02)
    found = [
        lotto.landscape.largest_prunable(well([curvature]), weights, mask, epsilon, "random", reading)
        for reading in pruning_limit.READINGS
    ]
    # p = a / (a + p) and p = a / (a + 1), solved by hand for a = r^2 / |w|^2.
    assert found == pytest.approx([(math.sqrt(ratio**2 + 4 * ratio) - ratio) / 2, ratio / (1 + ratio)], abs=3e-4)
    assert found == pytest.approx([published, corrected], abs=5e-3)


def test_magnitude_pruning_allows_at_least_what_random_does():
    rng = np.random.default_rng(1)
    weights, mask = weights_of(rng.normal(size=200).tolist())
    shares = [
        lotto.landscape.largest_prunable(well([0.5, 4.0, 20.0]), weights, mask, 0.2, k) for k in pruning_limit.KINDS
    ]
    assert shares[0] < shares[1]


def test_quadratic_cost_is_the_minimum_in_the_subspace():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(12, 12))
    matrix, point = root @ root.T + 0.1 * np.eye(12), rng.normal(size=12)
    pruned = np.zeros(12, dtype=bool)
    pruned[[1, 4, 9]] = True
    # The obvious way: minimise 1/2 (x - w)' H (x - w) over x with x_P = 0, by solving for the free coordinates.
    free = ~pruned
    x = np.zeros(12)
    x[free] = np.linalg.solve(matrix[np.ix_(free, free)], (matrix @ point)[free])
    expected = 0.5 * (x - point) @ matrix @ (x - point)
    assert quadratic.quadratic_cost(np.linalg.inv(matrix), point, pruned) == pytest.approx(expected, rel=1e-9)
    assert quadratic.quadratic_cost(np.linalg.inv(matrix), point, np.zeros(12, dtype=bool)) == 0.0
    order = np.argsort(np.abs(point))
    costs = []
    for count in range(13):
        chosen = np.zeros(12, dtype=bool)
        chosen[order[:count]] = True
        costs.append(quadratic.quadratic_cost(np.linalg.inv(matrix), point, chosen))
    assert all(a <= b + 1e-12 for a, b in pairwise(costs))


def test_exact_model_against_moving_the_free_weights_by_hand(point):
    recipe, weights, mask, matrix = point
    cuts = [lotto.pruning.prune(weights, mask, share) for share in (0.1, 0.4, 0.8)]
    task = quadratic.QuadraticTask(recipe, weights, mask, cuts)
    costs = task.execute()["costs"]
    values, vectors = np.linalg.eigh(matrix)
    convex = (vectors * np.maximum(values, 1e-6 * values[-1])) @ vectors.T
    solution = np.concatenate([weights[n][m].numpy() for n, m in mask.items()])
    for cut, cost in zip(cuts, costs, strict=True):
        free = np.concatenate([cut[n][m].numpy() for n, m in mask.items()])
        x = np.zeros(len(solution))
        x[free] = np.linalg.solve(convex[np.ix_(free, free)], (convex @ solution)[free])
        assert cost == pytest.approx(0.5 * (x - solution) @ convex @ (x - solution), rel=1e-6)
    assert costs == sorted(costs)


def test_exact_model_is_for_small_networks(point, monkeypatch):
    recipe, weights, mask, _ = point
    monkeypatch.setattr(quadratic, "LARGEST", 10)
    with pytest.raises(UsageError, match=r"at most 10 unpruned weights; there are \d+"):
        quadratic.QuadraticTask(recipe, weights, mask, [mask])


# --- axial subspace -----------------------------------------------------------------------------------


def test_perturbations_have_their_length_and_stay_in_the_subspace(point):
    _, weights, mask, _ = point
    moved = subspace.perturb(weights, mask, 2.5, seed=3)
    base = subspace.project(weights, mask)
    assert lotto.weights.distance(moved, base, mask) == pytest.approx(2.5, rel=1e-6)
    assert subspace.distance_to(moved, mask) == 0.0
    assert all(torch.equal(moved[n], base[n]) for n in moved if n not in mask), "biases stay"
    again, other = (subspace.perturb(weights, mask, 2.5, seed=s) for s in (3, 4))
    assert all(torch.equal(moved[n], again[n]) for n in moved)
    assert lotto.weights.distance(moved, other, mask) > 1.0
    assert lotto.weights.distance(subspace.perturb(weights, mask, 0.0, 3), base, mask) == 0.0


def test_distance_to_a_subspace_is_the_length_of_what_is_pruned():
    weights = {"fc.weight": torch.tensor([[3.0, 4.0, 1.0]]), "fc.bias": torch.tensor([9.0])}
    mask = {"fc.weight": torch.tensor([[False, False, True]])}
    assert subspace.distance_to(weights, mask) == 5.0
    assert math.isclose(lotto.weights.norm(subspace.random_direction(mask, 0)), 1.0)


def test_perturbing_nothing_or_by_nothing_sensible(point):
    _, weights, mask, _ = point
    with pytest.raises(UsageError, match="axial subspace is empty"):
        subspace.perturb(weights, {n: torch.zeros_like(k) for n, k in mask.items()}, 1.0, 0)
    for length in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="length"):
            subspace.perturb(weights, mask, length, 0)
