"""Stability and instability against trainings and arithmetic by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto import Job, State
from lotto.core.errors import UsageError
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.pruning import masks
from lotto.training.loop import train


@pytest.fixture
def engine(store):
    return Serial(store)


def flat(weights, mask):
    return np.concatenate([weights[n].numpy().astype(np.float64)[m.numpy()] for n, m in mask.items()])


def degrees(x, y):
    return np.degrees(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))


def test_distances_by_hand(engine):
    recipe = small_recipe()
    mask = lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.6)
    dense = train(Job(recipe, init_seed=0, order_seed=3, keep=(7,)))
    start = dense.state(7).without_optimizer
    orders = (3, 4, 5)
    sparse = [flat(train(Job(recipe, order_seed=u, start=start, mask=mask, from_step=7)).weights, mask) for u in orders]
    whole = [flat(train(Job(recipe, order_seed=u, start=start, from_step=7)).weights, mask) for u in orders]

    found = lotto.landscape.stability_to_data_order(recipe, mask, "7it", orders, engine=engine)
    pairs = list(combinations(sparse, 2))
    assert np.allclose(found.l2.values, [np.linalg.norm(a - b) for a, b in pairs])
    assert np.allclose(found.angle.values, [degrees(a, b) for a, b in pairs])
    assert found.l2.min <= found.l2.mean <= found.l2.max

    found = lotto.landscape.stability_to_pruning(recipe, mask, "7it", orders, engine=engine)
    assert np.allclose(found.l2.values, [np.linalg.norm(a - b) for a, b in zip(sparse, whole, strict=True)])
    assert np.allclose(found.angle.values, [degrees(a, b) for a, b in zip(sparse, whole, strict=True)])
    assert len(found.errors) == 3


def test_nothing_pruned_is_no_distance(engine):
    recipe = small_recipe()
    found = lotto.landscape.stability_to_pruning(recipe, masks.ones(recipe), "0it", (0,), engine=engine)
    assert found.l2.values == (0.0,)


def test_measures_share_their_trainings(engine):
    recipe = small_recipe()
    mask = lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.6)
    events: list = []
    options = {"engine": engine, "progress": events.append}
    lotto.landscape.stability_to_data_order(recipe, mask, "0it", (0, 1), **options)
    lotto.landscape.stability_to_pruning(recipe, mask, "0it", (0, 1), **options)
    lotto.landscape.instability(recipe, "0it", mask, (0, 1), points=3, **options)
    trained = [e.job.label for e in events if isinstance(e, JobFinished) and e.trained and "path" not in e.job.label]
    # The dense run of order 0, the subnetwork on two orders, the dense network on order 1.
    assert len(trained) == 4, trained


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn, self.fc2 = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)

    def forward(self, x):
        return self.fc2(self.bn(self.fc1(x)).relu())


def test_instability_by_hand_with_both_policies(engine):
    recipe = small_recipe(model=Normed, init="module")
    found = lotto.landscape.instability(recipe, "5it", order_seeds=(1, 2, 3), points=4, engine=engine)
    start = train(Job(recipe, keep=(5,))).state(5).without_optimizer
    copies = [train(Job(recipe, order_seed=u, start=start, from_step=5)) for u in (1, 2, 3)]
    assert found.errors == tuple(run.test_error for run in copies)
    for policy in ("interpolate", "recompute"):
        expected = [
            lotto.landscape.barrier(recipe, a.weights, b.weights, 4, batchnorm=policy)
            for a, b in combinations(copies, 2)
        ]
        assert found.barrier(batchnorm=policy).values == pytest.approx(tuple(expected))
        assert len(found.barrier("train", "loss", policy).values) == 3
    assert found.stable == (found.barrier().mean < 2.0)


def test_copies_parted_at_the_end_are_stable_and_at_the_start_they_are_not(engine):
    recipe = small_recipe(steps="60it", optimizer=lotto.SGD(0.3, momentum=0.9), schedule=lotto.Constant())
    early, late = (
        lotto.landscape.instability(recipe, k, points=5, engine=engine).barrier(what="loss").mean
        for k in ("0it", "59it")
    )
    assert late < early


def test_given_rewind_points_are_used(engine):
    recipe = small_recipe()
    weights = recipe.initial(9)
    mask = lotto.pruning.prune(weights, masks.ones(recipe), rate=0.5)
    a = lotto.landscape.stability_to_data_order(recipe, mask, "0it", (0, 1), start=weights, engine=engine)
    b = lotto.landscape.stability_to_data_order(recipe, mask, "0it", (0, 1), start=State(weights), engine=engine)
    c = lotto.landscape.stability_to_data_order(recipe, mask, "0it", (0, 1), init_seed=9, engine=engine)
    assert a == b == c


def test_bad_input(engine):
    recipe = small_recipe()
    mask = masks.ones(recipe)
    with pytest.raises(UsageError, match=r"different data orders: give at least 2, all different; got \[0\]"):
        lotto.landscape.stability_to_data_order(recipe, mask, order_seeds=(0,), engine=engine)
    with pytest.raises(UsageError, match=r"at least 2, all different; got \[1, 1\]"):
        lotto.landscape.instability(recipe, order_seeds=(1, 1), engine=engine)
    with pytest.raises(UsageError, match="needs a data order"):
        lotto.landscape.stability_to_pruning(recipe, mask, order_seeds=(), engine=engine)
    with pytest.raises(UsageError, match="step 40 is not before the end of training at 40"):
        lotto.landscape.instability(recipe, "40it", engine=engine)
    with pytest.raises(UsageError, match="which the model has not"):
        lotto.landscape.stability_to_pruning(recipe, {"z.weight": torch.zeros(2)}, engine=engine)
