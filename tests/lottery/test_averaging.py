"""Particles: every level against the same trainings, mean and cut by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lotto
from conftest import same_tensors, small_recipe
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.landscape.batchnorm import recompute_statistics
from lotto.pruning import masks
from lotto.training.evaluation import evaluate_network
from lotto.training.network import Network


@pytest.fixture
def engine(store):
    return Serial(store)


def by_hand(recipe, engine, start, mask, from_step, order, count):
    """The mean of trainings, in float64, and their runs."""
    orders = [order, *(derived_seed(order, "particle", i) for i in range(1, count))]
    runs = [
        lotto.train(recipe, order_seed=o, start=start, mask=mask, from_step=from_step, engine=engine) for o in orders
    ]
    return {n: sum(r.weights[n].double() for r in runs) / count for n in runs[0].weights}, runs


def test_levels_are_averages_of_particles_and_the_average_is_pruned(engine):
    recipe = small_recipe()
    result = lotto.imp(recipe, 2, 0.3, "10it", 1, ("random",), particles=3, engine=engine)
    (chain,) = result.replicates
    dense = lotto.train(recipe, 0, 0, keep=["10it"], engine=engine)
    assert same_tensors(chain[0].run.weights, dense.weights), "the baseline is the dense network itself"
    start = dense.state(10).without_optimizer
    others = [derived_seed(0, "particle", i) for i in (1, 2)]
    runs = [dense] + [lotto.train(recipe, order_seed=o, start=start, from_step=10, engine=engine) for o in others]
    mean = {n: sum(r.weights[n].double() for r in runs) / 3 for n in dense.weights}
    mask = masks.ones(recipe)
    for level in (1, 2):
        mask = lotto.pruning.prune({n: w.float() for n, w in mean.items()}, mask, 0.3)
        assert same_tensors(chain[level].mask, mask)
        mean, runs = by_hand(recipe, engine, start, mask, 10, 0, 3)
        for name, tensor in chain[level].run.weights.items():
            torch.testing.assert_close(tensor, mean[name].float())
        assert len(chain[level].particles) == 3
        network = Network(recipe, chain[level].run.weights)
        assert chain[level].run.test_error == pytest.approx(evaluate_network(recipe, network, "test").error)
    assert list(chain[2].controls) == ["random"]
    assert result.trainings == 9


def test_statistics_of_the_average_are_estimated_again(engine):
    data = lotto.data.Arrays(
        *(a for n in (64, 32) for a in (np.random.default_rng(n).normal(size=(n, 3, 8, 8)).astype("float32"),
                                        np.arange(n) % 4))
    )  # fmt: skip
    recipe = small_recipe(model="resnet-8-w4", data=data, steps="6it", batch_size=16, evaluations=1)
    result = lotto.imp(recipe, 1, 0.3, "2it", 1, (), particles=2, engine=engine)
    found = result.replicates[0][1].run.weights
    mean, _ = by_hand(
        recipe, engine, result.replicates[0][0].run.state(2).without_optimizer, result.replicates[0][1].mask, 2, 0, 2
    )
    assert not torch.allclose(found["bn.running_var"], mean["bn.running_var"].float(), rtol=1e-3)
    network = Network(recipe, {n: found[n] if "running" not in n else torch.ones_like(found[n]) for n in found})
    recompute_statistics(recipe, network)
    assert same_tensors(dict(network.module.state_dict()), dict(found))
    assert result.replicates[0][1].run.test_error == pytest.approx(
        evaluate_network(recipe, Network(recipe, found), "test").error
    )


def test_the_display_knows_how_many_there_are_and_the_second_run_trains_nothing(engine):
    recipe, events = small_recipe(), []

    def run():
        return lotto.imp(recipe, 2, 0.3, "10it", 2, ("reinit",), particles=2, engine=engine, progress=events.append)

    first = run()
    finished = [e for e in events if isinstance(e, JobFinished)]
    assert len(finished) == first.plan.jobs
    events.clear()
    again = run()
    assert not any(e.trained for e in events if isinstance(e, JobFinished))
    assert again.table().equals(first.table())
    kinds = first.runs_table().groupby(["level", "kind"]).size()
    assert [kinds[at] for at in ((0, "particle"), (1, "particle"), (1, "imp"))] == [2, 4, 2]


def test_adaptive_pruning_takes_particles(engine):
    result = lotto.imp(
        small_recipe(tolerance=100.0), 2, rewind_to="10it", replicates=1, controls=(), adaptive=True, particles=2,
        engine=engine,
    )  # fmt: skip
    assert len(result.replicates[0][2].particles) == 2
    cut = lotto.pruning.prune(result.replicates[0][1].run.weights, result.replicates[0][1].mask, result.trials[1].share)
    assert same_tensors(result.replicates[0][2].mask, cut)


def test_particles_is_a_positive_number(engine):
    with pytest.raises(UsageError, match="particles is 1 or more; got 0"):
        lotto.imp(small_recipe(), 1, particles=0, engine=engine)


def test_mean_of_networks():
    a = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    b = {"w": torch.tensor([3.0, -2.0]), "n": torch.tensor(5)}
    assert same_tensors(lotto.weights.mean([a, b]), {"w": torch.tensor([2.0, 0.0]), "n": torch.tensor(3)})
    with pytest.raises(UsageError, match="no networks"):
        lotto.weights.mean([])
    with pytest.raises(UsageError, match="only one"):
        lotto.weights.mean([a, {"w": b["w"]}])
