"""Which weights count: averages and the best by held-out examples, against loops by hand, through forks and kills."""

import logging
import math

import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import evaluate
from lotto.training.loop import train, train_stack
from lotto.training.reported import tensors_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 6)

    def forward(self, x):
        return self.head(self.norm(self.first(x)).relu())


def recipe_of(**changes):
    base = small_recipe(model=Net, init="module", precision="float64", steps="30it", evaluations=6, validation=60)
    return base.replace(**changes)


def half(recipe):
    return masks.random_like(lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.5), 0)


@pytest.mark.parametrize("pruned", [False, True])
def test_an_average_by_hand(pruned):
    recipe = recipe_of(ema=0.8)
    mask = half(recipe) if pruned else None
    plain = train(Job(recipe.replace(ema=None), mask=mask, keep=tuple(range(31))))
    run = train(Job(recipe, mask=mask, keep=(11,)))
    average = {n: w.double() for n, w in plain.at(0).items()}
    for step in range(1, 31):
        for name, weight in plain.at(step).items():
            average[name] = 0.8 * average[name] + 0.2 * weight.double()
        if step == 11:
            assert same_tensors(run.at(11), plain.at(11)), "a rewind point is what was trained"
            for name, tensor in tensors_of(run.state(11).optimizer, "ema").items():
                torch.testing.assert_close(tensor, average[name], rtol=1e-12, atol=1e-14)
    for name, weight in run.weights.items():
        if name.endswith("num_batches_tracked"):
            assert weight == 30
        else:
            torch.testing.assert_close(weight, average[name], rtol=1e-12, atol=1e-14)
    assert all(not run.weights[n][~keep].any() for n, keep in (mask or {}).items())
    found = evaluate(recipe, run.weights)
    assert (run.test_loss, run.test_error) == (found.loss, found.error)
    assert run.arithmetic == "autograd (no kernels: ema)"
    assert not same_tensors(run.weights, plain.weights)


@pytest.mark.parametrize(
    "changes", [{"ema": 0.9}, {"weights": "best"}, {"weights": "best", "patience": 2}, {"weights": "best", "ema": 0.7}]
)
def test_forks_and_continuations_have_the_same_bits(changes):
    recipe = recipe_of(optimizer__lr=0.8, **changes)
    mask = half(recipe)
    run = train(Job(recipe, mask=mask, keep=(7, 22)))
    for step in (7, 22):
        fork = train(Job(recipe, mask=mask, start=run.state(step), from_step=step))
        assert same_tensors(fork.weights, run.weights)
        assert fork.test_loss == run.test_loss
    first = train(Job(recipe, mask=mask, to_step=13))
    assert not first.diverged
    second = train(Job(recipe, mask=mask, start=first.state(13), from_step=13))
    assert same_tensors(second.weights, run.weights), "from an end it goes on with the weights that were moved last"


@pytest.mark.parametrize(
    "changes", [{"ema": 0.9}, {"weights": "best"}, {"weights": "best", "patience": 1}, {"accumulate": 2}]
)
def test_resuming_anywhere_has_the_same_bits(changes):
    recipe = recipe_of(optimizer__lr=0.8, **changes)
    points: list[Checkpoint] = []

    def keep(point):
        points.append(
            Checkpoint(**{**vars(point), "kept": dict(point.kept), "history": [dict(r) for r in point.history]})
        )

    whole = train(Job(recipe, keep=(9,)), on_checkpoint=keep, checkpoint_seconds=0)
    assert len(points) > 3
    for point in points[:: max(1, len(points) // 5)]:
        again = train(Job(recipe, keep=(9,)), resume=point)
        assert same_tensors(again.weights, whole.weights)
        assert same_tensors(again.at(9), whole.at(9))
        assert again.history[-1] == whole.history[-1]


def test_the_best_by_hand_and_what_it_reports():
    recipe = recipe_of(optimizer__lr=1.5, weights="best")
    plain = train(Job(recipe.replace(weights=None), keep=(5, 10, 15, 20, 25, 30)))
    run = train(Job(recipe))
    errors = {s: evaluate(recipe, plain.at(s), "validation").error for s in (5, 10, 15, 20, 25, 30)}
    best = min(errors, key=errors.get)
    assert same_tensors(run.weights, plain.at(best))
    assert run.history[-1]["validation_error"] == errors[best]
    assert run.test_error == evaluate(recipe, plain.at(best)).error
    assert [r["validation_error"] for r in run.history[:-1]] == [errors[s] for s in (5, 10, 15, 20, 25)]


def test_a_training_stops_where_nothing_better_was_waited_for():
    recipe = recipe_of(
        schedule=lotto.Constant(), optimizer=lotto.SGD(3.0, momentum=0.9), weights="best", patience=1, evaluations=15
    )
    run = train(Job(recipe, keep=(2, 29)))
    errors = [
        evaluate(recipe, train(Job(recipe.replace(weights=None, patience=None), to_step=s)).weights, "validation").error
        for s in range(2, 31, 2)
    ]
    stop = next(i for i in range(1, 15) if errors[i] >= min(errors[:i]))
    assert run.history[-1]["stopped_at"] == 2 * (stop + 1) < 30
    assert run.history[-1]["step"] == 30
    assert math.isfinite(run.history[-1]["train_loss"])
    kept = train(Job(recipe.replace(weights=None, patience=None), to_step=2 * (stop + 1)))
    assert same_tensors(run.at(29), kept.weights), "it stays where it stopped"
    best = errors.index(min(errors[: stop + 1]))
    assert run.history[-1]["validation_error"] == errors[best]


def test_kernels_find_the_best_too():
    recipe = small_recipe(weights="best", validation=60, evaluations=4)
    run = train(Job(recipe))
    assert run.arithmetic.startswith("perceptron")
    plain = train(Job(recipe.replace(weights=None), keep=(10, 20, 30, 40)))
    errors = {s: evaluate(recipe, plain.at(s), "validation").error for s in (10, 20, 30, 40)}
    assert same_tensors(run.weights, plain.at(min(errors, key=errors.get)))
    pair = train_stack([Job(recipe), Job(recipe, order_seed=1)])
    torch.testing.assert_close(pair[0].weights["fc1.weight"], run.weights["fc1.weight"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"weights": "best"}])
def test_imp_prunes_and_reports_them_and_rewinds_to_what_was_trained(changes, store):
    recipe = recipe_of(optimizer__lr=0.8, **changes)
    result = lotto.imp(recipe, levels=1, rate=0.5, rewind_to="7it", replicates=2, controls=(), jobs=1, store=store)
    dense, level = result.replicates[0]
    by_hand = train(Job(recipe, keep=(7,)))
    assert same_tensors(dense.run.weights, by_hand.weights)
    mask = lotto.pruning.prune(by_hand.weights, masks.ones(recipe), rate=0.5)
    assert same_tensors(level.mask, mask)
    expected = train(Job(recipe, mask=mask, start=by_hand.state(7).without_optimizer, from_step=7))
    assert same_tensors(level.run.weights, expected.weights)
    with_optimizer = lotto.imp(
        recipe,
        levels=1,
        rate=0.5,
        rewind_to="7it",
        replicates=1,
        controls=(),
        rewind_optimizer=True,
        jobs=1,
        store=store,
    )
    weights = with_optimizer.replicates[0][1].run.weights
    assert all(not weights[n][~keep].any() for n, keep in mask.items())


def test_a_stored_run_has_the_weights_that_count(store):
    recipe = recipe_of(ema=0.8)
    one, two = (lotto.train(recipe, store=store) for _ in range(2))
    assert one.key == two.key is not None
    assert same_tensors(one.weights, two.weights)
    assert evaluate(recipe, two.weights).loss == two.test_loss
    assert (
        len(
            {
                Job(recipe_of(**c)).key
                for c in ({}, {"ema": 0.8}, {"ema": 0.9}, {"weights": "best"}, {"weights": "best", "patience": 2})
            }
        )
        == 5
    )
    assert Job(recipe_of(ema=0.8)).key == Job(recipe_of(ema=0.8, weights="ema")).key
    assert Job(recipe_of()).key == Job(recipe_of(weights="last")).key


@pytest.mark.parametrize(("changes", "text"), [
    ({"weights": "ema"}, "say how slow it is, such as ema=0.999"),
    ({"weights": "last", "ema": 0.9}, "leave one of them out"),
    ({"patience": 3}, "it goes with weights='best'"),
    ({"weights": "first"}, "Unknown choice of weights 'first'"),
    ({"ema": 1.0}, "ema is a number greater than 0 and less than 1"),
    ({"weights": "best", "validation": 0}, "chooses by held-out examples, of which there are none"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused_before_training(changes, text, store):
    with pytest.raises(UsageError, match=text):
        lotto.imp(recipe_of(**changes), levels=1, replicates=1, store=store)


@pytest.mark.parametrize(
    ("changes", "text"), [({"ema": 0.9}, "averaged"), ({"weights": "best", "patience": 1}, "stop at a step of its own")]
)
def test_stacks_are_refused(changes, text, caplog):
    caplog.set_level(logging.ERROR)
    recipe = recipe_of(**changes)
    with pytest.raises(UsageError, match=text):
        train_stack([Job(recipe), Job(recipe, order_seed=1)])


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"weights": "best", "patience": 2}, {"weights": "best", "ema": 0.9}])
def test_a_killed_training_goes_on_from_the_store_in_the_same_bits(changes, store):
    recipe = recipe_of(optimizer__lr=0.8, **changes)
    job = Job(recipe, keep=(9,))

    class Killed(Exception):
        pass

    def die(point):
        if point.step > 12:
            store.write_checkpoint(job, point)
            raise Killed

    with pytest.raises(Killed):
        train(job, on_checkpoint=die, checkpoint_seconds=0)
    point = store.read_checkpoint(job)
    assert point is not None
    assert 12 < point.step < 30
    resumed, whole = train(job, resume=point), train(job)
    assert same_tensors(resumed.weights, whole.weights)
    assert same_tensors(resumed.state(9).optimizer, whole.state(9).optimizer)
    assert resumed.history == whole.history
