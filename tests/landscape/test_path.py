"""Paths and barriers against direct computations in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.core.weights import lerp
from lotto.execution.compute import get_or_compute
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.landscape.batchnorm import has_batchnorm, recompute_statistics
from lotto.landscape.path import Path, PathTask, path_of
from lotto.landscape.plane import PlaneTask
from lotto.pruning import masks, prune
from lotto.training.loop import train
from lotto.training.network import Network, constant_buffers


def test_barriers_of_hand_made_paths():
    alphas = tuple(np.linspace(0, 1, 11))
    hill = tuple(10 + 4 * a * (1 - a) for a in alphas)  # 10 at both ends, 11 in the middle
    slope = tuple(10 + 6 * a for a in alphas)
    path = Path(alphas, {"test": slope}, {"test": hill, "train": slope})
    assert path.barrier() == path.barrier("line") == pytest.approx(1.0)
    assert path.barrier(split="train", baseline="line") == 0.0
    assert path.barrier(split="train") == pytest.approx(3.0), "half the difference of the ends"
    assert path.barrier(what="loss") == pytest.approx(3.0)
    for bad, text in (
        ({"baseline": "max"}, "Unknown baseline 'max'"),
        ({"what": "accuracy"}, "Unknown quantity"),
        ({"split": "validation"}, "Unknown split of this path 'validation'. Choices: test, train"),
    ):
        with pytest.raises(UsageError, match=text):
            path.barrier(**bad)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(2, 1, bias=False)

    def forward(self, x):
        return self.w(x)


def test_the_barrier_of_a_quadratic_is_analytic():
    # One example x = (1, 1), target 0: loss (w1 + w2)^2, exact along any line.
    data = lotto.data.Arrays(*[np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32)] * 2)
    recipe = small_recipe(model=Quadratic, data=data, loss="mse", error="mse", batch_size=1, precision="float64")
    a, b = ({"w.weight": torch.tensor([v], dtype=torch.float64)} for v in ([1.0, 0.0], [-3.0, 0.0]))
    path = lotto.landscape.evaluate_path(recipe, a, b, points=9)
    assert np.allclose(path.error["test"], [(1 - 4 * t) ** 2 for t in path.alphas])
    assert path.barrier("mean") == pytest.approx(9 - 5)
    assert path.barrier("line") == 0.0, "a convex loss has no barrier above the line"
    assert lotto.landscape.barrier(recipe, a, b, points=9) == pytest.approx(4.0)


def test_against_a_direct_computation_and_ends_agree_with_the_runs():
    recipe = small_recipe(precision="float64")
    runs = [train(Job(recipe, order_seed=s)) for s in (0, 1)]
    a, b = (run.weights for run in runs)
    path = lotto.landscape.evaluate_path(recipe, a, b, points=5, splits=("test", "train"))
    for end, run in ((0, runs[0]), (-1, runs[1])):
        assert path.error["test"][end] == run.test_error
        assert path.loss["test"][end] == run.test_loss
    for i, t in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        w = {n: ((1 - t) * a[n].double() + t * b[n].double()).numpy() for n in a}
        for split in ("test", "train"):
            h = recipe.arrays.x[split].double().numpy()
            for layer in ("fc1", "fc2", "fc3"):
                h = h @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]
                h = np.maximum(h, 0) if layer != "fc3" else h
            y = recipe.arrays.y[split].numpy()
            log_p = h - np.log(np.exp(h).sum(1, keepdims=True))
            assert path.loss[split][i] == pytest.approx(-log_p[np.arange(len(y)), y].mean(), rel=1e-9)
            assert path.error[split][i] == pytest.approx(100 * (h.argmax(1) != y).mean())


def test_a_network_with_itself_has_no_barrier():
    recipe = small_recipe()
    weights = recipe.initial(0)
    assert lotto.landscape.barrier(recipe, weights, weights, points=4) == pytest.approx(0.0, abs=1e-12)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn, self.fc2 = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)

    def forward(self, x):
        return self.fc2(self.bn(self.fc1(x)).relu())


def test_recomputed_statistics_are_those_of_the_training_set():
    recipe = small_recipe(model=Normed, init="module", precision="float64")
    weights = lerp(train(Job(recipe)).weights, train(Job(recipe, order_seed=1)).weights, 0.5)
    network = Network(recipe, weights)
    recompute_statistics(recipe, network)
    hidden = recipe.arrays.x["train"].double() @ weights["fc1.weight"].T.double() + weights["fc1.bias"].double()
    state = network.module.state_dict()
    assert torch.allclose(state["bn.running_mean"], hidden.mean(0))
    assert torch.allclose(state["bn.running_var"], hidden.var(0))
    assert not network.module.training
    assert network.module.bn.momentum == 0.1
    assert torch.equal(state["fc1.weight"], weights["fc1.weight"].double())


def test_batchnorm_policies_differ_only_where_there_is_batchnorm():
    plain, normed = small_recipe(), small_recipe(model=Normed, init="module")
    assert (has_batchnorm(plain), has_batchnorm(normed)) == (False, True)
    keys = {}
    for name, recipe in (("plain", plain), ("normed", normed)):
        a, b = recipe.initial(0), recipe.initial(1)
        keys[name] = [PathTask(recipe, a, b, batchnorm=p).key for p in ("interpolate", "recompute")]
        assert None not in keys[name]
    assert keys["plain"][0] == keys["plain"][1]
    assert keys["normed"][0] != keys["normed"][1]


def test_engines_compute_and_remember_paths(tmp_path):
    recipe = small_recipe()
    task = PathTask(recipe, recipe.initial(0), recipe.initial(1), points=4, label="path")
    direct = task.execute()
    for engine in (Serial(lotto.Store(tmp_path / "a")), Processes(lotto.Store(tmp_path / "b"), 1)):
        events: list = []
        (outcome,) = engine.run([task], events.append)
        assert outcome == direct
        (again,) = engine.run([task], events.append)
        assert again == direct
        assert [e.trained for e in events if hasattr(e, "trained")] == [True, False]
    assert path_of(direct).alphas == (0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)


def test_a_damaged_outcome_is_computed_again(store, caplog):
    recipe = small_recipe()
    task = PathTask(recipe, recipe.initial(0), recipe.initial(1), points=3)
    first, _ = get_or_compute(store, task)
    path = store.folder(task.key) / "outcome.json"
    path.write_text(path.read_text().replace("1.0", "0.9"))
    again, computed = get_or_compute(store, task)
    assert computed
    assert again == first
    assert "the checksum of outcome.json is wrong" in caplog.text


def test_paths_are_told_apart():
    recipe = small_recipe()
    a, b = recipe.initial(0), recipe.initial(1)
    tasks = [
        PathTask(recipe, a, b),
        PathTask(recipe, b, a),
        PathTask(recipe, a, b, points=5),
        PathTask(recipe, a, b, splits=("train",)),
        PathTask(recipe, a, b, examples=10),
        PathTask(recipe.replace(loss="mse"), a, b),
    ]
    assert len({task.key for task in tasks}) == len(tasks)
    assert PathTask(recipe.replace(steps="3it"), a, b).key == tasks[0].key, "how it was trained is no matter"


def test_bad_input():
    recipe = small_recipe()
    a = recipe.initial(0)
    for arguments, text in (
        ((a, {**a, "x": a["fc1.bias"]}), "'x' is in only one"),
        (({"x": a["fc1.bias"]}, {"x": a["fc1.bias"]}), "is in only one"),
        ((a, {**a, "fc1.bias": torch.full((24,), torch.inf)}), r"second network holds NaN or infinity in 'fc1\.bias'"),
        ((a, a, 1), "at least 2 points"),
    ):
        with pytest.raises(UsageError, match=text):
            PathTask(recipe, *arguments)
    with pytest.raises(UsageError, match="Unknown BatchNorm policy 'reset'"):
        PathTask(recipe, a, a, batchnorm="reset")
    with pytest.raises(UsageError, match="Unknown baseline"):
        lotto.landscape.barrier(recipe, a, a, baseline="max")
    assert same_tensors(a, recipe.initial(0))


class Causal(torch.nn.Module):
    """Adds a buffer that holds infinity, as attention masks do, and reads another."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(12, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 6)
        self.register_buffer("mask", torch.full((8,), float("-inf")).index_fill(0, torch.arange(6), 0.0))
        self.register_buffer("order", torch.arange(12).flip(0))

    def forward(self, x):
        return self.last((self.norm(self.first(x[:, self.order])) + self.mask).softmax(1))


def test_buffers_are_no_weights(tmp_path):
    recipe = small_recipe(model=Causal, init="module")
    result = lotto.imp(recipe, 1, 0.5, "10it", 1, (), engine=lotto.engine.make(1, lotto.Store(tmp_path)))
    start, run = result.replicates[0][0].run.at(10), result.replicates[0][1].run
    assert constant_buffers(Causal()) == {"mask", "order"}
    middle = lotto.weights.lerp(start, run.weights, 0.5)
    for name in ("mask", "order"):
        assert torch.equal(middle[name], Causal().state_dict()[name])
    assert torch.equal(
        middle["norm.running_var"], torch.lerp(start["norm.running_var"], run.weights["norm.running_var"], 0.5)
    )
    path = lotto.landscape.evaluate_path(recipe, start, run.weights, 3)
    by_hand = Causal().eval()
    by_hand.load_state_dict(middle)
    with torch.no_grad():
        wrong = (by_hand(recipe.arrays.x["test"]).argmax(1) != recipe.arrays.y["test"]).double().mean()
    assert path.error["test"][1] == pytest.approx(100 * float(wrong))
    plane = lotto.landscape.evaluate_plane(recipe, start, run.weights, recipe.initial(3), 3)
    assert np.isfinite(plane.loss).all()
    assert lotto.weights.distance(start, run.weights) > 0
    assert np.isfinite(lotto.weights.angle(start, run.weights))


def test_ends_whose_buffers_differ_are_refused():
    recipe = small_recipe(model=Causal, init="module")
    a, b = recipe.initial(0), recipe.initial(1)
    b["mask"] = b["mask"].flip(0)
    with pytest.raises(UsageError, match="differ in the buffer 'mask'"):
        PathTask(recipe, a, b)
    with pytest.raises(UsageError, match="differ in the buffer 'mask'"):
        PlaneTask(recipe, a, recipe.initial(2), b)


@pytest.mark.parametrize("policy", ["interpolate", "recompute"])
def test_points_by_kernels_are_those_of_float64(policy):
    """The ends have other weights at 0 than what is between them: lists of weights are made anew where they differ."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(360, 40)).astype(np.float32), np.arange(360) % 5
    data = lotto.data.Arrays(x[:300], y[:300], x[300:], y[300:], name="noise")
    recipe = small_recipe(model="resnet-8-w4", data=data, device="cpu", bn_examples=200)
    ends = []
    for seed, density in ((0, 0.3), (1, 0.1)):
        weights = recipe.initial(seed)
        ends.append(masks.apply(weights, prune(weights, masks.ones(recipe), rate=1 - density)))
    task = PathTask(recipe, *ends, 5, ("test", "train"), policy)
    found = path_of(task.execute())
    exact = PathTask(recipe.replace(precision="float64", arithmetic="dense"), *ends, 5, ("test", "train"), policy)
    expected = path_of(exact.execute())
    for split in ("test", "train"):
        assert found.loss[split] == pytest.approx(expected.loss[split], rel=1e-4)
        assert found.error[split] == pytest.approx(expected.error[split], abs=100 / 60 + 1e-9)
    if policy == "interpolate":
        assert found.loss["test"][0] == lotto.evaluate(recipe, ends[0]).loss
