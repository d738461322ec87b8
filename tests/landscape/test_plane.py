"""The plane through three networks: its corners are the networks, its coordinates are distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lotto
from conftest import small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.landscape.plane import PlaneTask, evaluate_plane, plane_of
from lotto.training.loop import train


@pytest.fixture(scope="module")
def three():
    recipe = small_recipe(steps="20it")
    return recipe, [train(Job(recipe, init_seed=s)).weights for s in range(3)]


def test_corners_are_the_networks(three):
    recipe, networks = three
    task = PlaneTask(recipe, *networks, points=3, margin=0.0)
    length, along, across = task.frame()
    distance = lotto.weights.distance
    assert length == pytest.approx(distance(networks[0], networks[1]))
    assert along**2 + across**2 == pytest.approx(distance(networks[0], networks[2]) ** 2)
    assert (along - length) ** 2 + across**2 == pytest.approx(distance(networks[1], networks[2]) ** 2)
    for corner, network in zip([(0.0, 0.0), (length, 0.0), (along, across)], networks, strict=True):
        t = corner[1] / across
        s = (corner[0] - t * along) / length
        for name, value in task._point(s, t, task.a).items():
            assert torch.allclose(value.double(), network[name].double(), atol=1e-6), name


def test_grid_points_are_evaluations_of_their_combinations(three):
    recipe, networks = three
    plane = evaluate_plane(recipe, *networks, points=4, margin=0.1)
    assert (len(plane.x), len(plane.y), plane.error.shape) == (4, 4, (4, 4))
    a, b, c = ({n: t.double() for n, t in w.items()} for w in networks)
    u, v = plane.x[2], plane.y[1]
    (_, (length, _), (along, across)) = plane.corners
    t = v / across
    s = (u - t * along) / length
    mixed = {n: (a[n] + s * (b[n] - a[n]) + t * (c[n] - a[n])).float() for n in a}
    metrics = lotto.evaluate(recipe, mixed)
    assert plane.error[1, 2] == pytest.approx(metrics.error)
    assert plane.loss[1, 2] == pytest.approx(metrics.loss, rel=1e-6)
    assert min(plane.x) < 0 < length < max(plane.x)


def test_plane_is_remembered(three, store):
    recipe, networks = three
    task = PlaneTask(recipe, *networks, points=2)
    first, second = (Serial(store).run([task])[0] for _ in range(2))
    assert first == second
    assert np.array_equal(plane_of(first).error, plane_of(second).error)


def test_no_plane_through_a_line(three):
    recipe, (a, b, _) = three
    with pytest.raises(UsageError, match="lie on a line"):
        PlaneTask(recipe, a, b, lotto.weights.lerp(a, b, 0.3))
    with pytest.raises(UsageError, match="are the same"):
        PlaneTask(recipe, a, a, b)
    with pytest.raises(UsageError, match="weight dicts differ"):
        PlaneTask(recipe, a, b, {n: t for n, t in b.items() if n != "fc1.bias"})
    with pytest.raises(UsageError, match="at least 2 points"):
        PlaneTask(recipe, a, b, b | {"fc1.bias": b["fc1.bias"] + 1}, points=1)
