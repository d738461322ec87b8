"""The curve costs a few percent, the end is exact, and what is wrong at the end is known example by example."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import lotto
from conftest import small_arrays, small_recipe
from lotto import Job, Store
from lotto.core.errors import UsageError
from lotto.execution.compute import get_or_compute
from lotto.experiments.case import lost_in_last_quarter
from lotto.training.evaluation import evaluate
from lotto.training.loop import train, train_stack
from lotto.training.mistakes import Mistakes
from lotto.training.network import Network
from lotto.training.records import CURVE_EXAMPLES, CURVE_PART, PASSES, curve_stride, late_step, late_stride


def large_test_set(**changes):
    return small_recipe(data=small_arrays(test=5000), evaluations=4, **changes)


def wrong_by_hand(recipe, weights):
    network = Network(recipe, weights).module.eval()
    x, y = recipe.arrays.x["test"], recipe.arrays.y["test"]
    return [bool(network(x[i : i + 1]).argmax() != y[i]) for i in range(len(y))]


def test_points_of_the_curve_are_of_every_nth_example_and_the_end_is_of_all():
    recipe = large_test_set()
    stride = curve_stride(recipe, 5000)
    assert stride == 5
    assert (late_stride(recipe, 5000), late_step(recipe)) == (5, 30)
    run = train(Job(recipe, keep=(10, 20)))
    *before, end = run.history
    assert [record["test_examples"] for record in before] == [1000] * 3
    assert "test_examples" not in end
    for record in before[:2]:
        wrong = np.array(wrong_by_hand(recipe, run.at(int(record["step"]))))
        assert record["test_error"] == pytest.approx(100 * wrong[::5].mean())
    assert end["test_error"] == pytest.approx(evaluate(recipe, run.weights).error)


def test_the_record_at_three_quarters_of_a_dense_training_is_of_more_examples():
    recipe = large_test_set(steps="540it", batch_size=80)
    dense = train(Job(recipe, keep=(405,)))
    pruned = train(Job(recipe, mask=lotto.pruning.masks.ones(recipe)))
    assert [record.get("test_examples") for record in dense.history] == [1000, 1000, 2500, None]
    assert [record.get("test_examples") for record in pruned.history] == [1000, 1000, 1000, None]
    wrong = np.array(wrong_by_hand(recipe, dense.at(405)))[::2]
    assert dense.history[2]["test_error"] == pytest.approx(100 * wrong.mean())
    end = np.array(wrong_by_hand(recipe, dense.weights))[::2]
    assert lost_in_last_quarter(recipe, dense) == (0.75, pytest.approx(100 * (wrong.mean() - end.mean())), 2500)
    of_curve = {**dense.history[2], "test_examples": 1000}  # as an earlier version stored it
    assert lost_in_last_quarter(recipe, replace(dense, history=[of_curve, dense.history[-1]])) is not None


@pytest.mark.parametrize(("name", "train"), [("resnet20-mnist1d", 40_000), ("lenet-mnist-sgd", 60_000)])
def test_evaluation_is_a_small_part_of_the_work(name, train):
    size = 10_000
    made_up = lotto.data.Arrays(np.zeros((train, 1)), np.zeros(train, int), np.zeros((size, 1)), np.zeros(size, int))
    recipe = lotto.recipes.get(name, data=made_up)
    points = size + (recipe.evaluations - 1) * -(-size // curve_stride(recipe, size))
    dense = points - -(-size // curve_stride(recipe, size)) + -(-size // late_stride(recipe, size))
    steps = PASSES * recipe.total * recipe.batch_size
    assert dense <= 0.05 * steps
    assert points <= max(CURVE_PART * steps, size + (recipe.evaluations - 1) * CURVE_EXAMPLES)
    assert points <= 0.05 * steps


def test_small_test_sets_are_evaluated_whole_and_so_is_data_that_evaluates_in_its_own_way():
    assert curve_stride(small_recipe(), 80) == 1

    class Backwards(lotto.data.Arrays):
        def evaluation(self, split, batch_size):
            yield from ((x.flip(0), y.flip(0)) for x, y in super().evaluation(split, batch_size))

    arrays = small_arrays(test=5000)
    own = Backwards(arrays.x["train"], arrays.y["train"], arrays.x["test"], arrays.y["test"])
    recipe = small_recipe(data=own, evaluations=4)
    assert curve_stride(recipe, 5000) == 1
    assert all("test_examples" not in record for record in train(Job(recipe)).history)


def test_a_run_knows_which_test_examples_it_gets_wrong(store):
    recipe = large_test_set()
    job = Job(recipe)
    run, computed = get_or_compute(store, job)
    assert computed
    assert run.mistakes.wrong.tolist() == wrong_by_hand(recipe, run.weights)
    assert run.mistakes.error == pytest.approx(run.test_error)
    again = Store(store.root).lookup(job)
    assert again.mistakes == run.mistakes
    assert all(isinstance(value, (int, float)) for record in again.history for value in record.values())
    extended, _ = get_or_compute(store, Job(recipe, keep=(7,)))
    assert extended.mistakes == run.mistakes
    assert 7 in extended.states
    together = train_stack([job, Job(recipe, order_seed=1)])
    assert [m.mistakes.examples for m in together] == [5000, 5000]


def test_runs_that_were_stored_without_them_are_read(store):
    job = Job(small_recipe())
    run, _ = get_or_compute(store, job)
    path = store.folder(job.key) / "history.json"
    records = json.loads(path.read_text())
    del records[-1]["test_mistakes"]
    from lotto.core import files

    checksum = files.write_json(path, records)
    manifest_path = store.folder(job.key) / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["checksums"]["history.json"] = checksum
    files.write_json(manifest_path, manifest)
    found = store.lookup(job)
    assert found.mistakes is None
    assert found.history == run.history


def test_where_an_example_is_not_right_or_wrong_nothing_is_kept():
    assert train(Job(small_recipe(loss="mse", error="mse", tolerance="5%"))).mistakes is None
    arrays = small_arrays()
    arrays.y["test"][3] = -100
    ignoring = lotto.data.Arrays(arrays.x["train"], arrays.y["train"], arrays.x["test"], arrays.y["test"])
    assert train(Job(small_recipe(data=ignoring))).mistakes is None


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_bits_survive_packing(count):
    wrong = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.3
    mistakes = Mistakes.of(wrong)
    assert mistakes.wrong.tolist() == wrong.tolist()
    assert Mistakes.from_plain(json.loads(json.dumps(mistakes.plain()))) == mistakes
    with pytest.raises(ValueError, match="bytes of mistakes"):
        Mistakes.from_plain({**mistakes.plain(), "examples": count + 8})
    with pytest.raises(UsageError):
        Mistakes(count, "text")
