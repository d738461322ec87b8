"""Metrics of a split against scikit-learn and slow sums, which of them decides, and in which direction."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, r2_score, roc_auc_score, top_k_accuracy_score
from torch.nn import functional as F

import lotto
from conftest import small_arrays, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.recipe import Metric
from lotto.recipe.metrics import METRICS, Error
from lotto.training.evaluation import evaluate
from lotto.training.loop import train

SEEDS = st.integers(0, 10_000)


def value(name, outputs, targets, parts=1):
    metric = METRICS[name]
    counter = metric.counter()
    if counter is None:
        return float(metric.compute(outputs, targets))
    for some in torch.arange(len(targets)).chunk(parts):
        counter.update(outputs[some], targets[some])
    return float(counter.compute())


@given(SEEDS, st.integers(1, 4))
def test_those_of_classes_are_scikit_learn_s(seed, parts):
    generator = np.random.default_rng(seed)
    classes = int(generator.integers(6, 9))
    outputs, y = generator.normal(size=(40, classes)), generator.integers(0, classes, 40)
    x, t = torch.from_numpy(outputs), torch.from_numpy(y)
    assert value("f1", x, t, parts) == pytest.approx(f1_score(y, outputs.argmax(1), average="macro", zero_division=0))
    found = top_k_accuracy_score(y, outputs, k=5, labels=range(classes))
    assert value("top-5", x, t) == pytest.approx(100 * (1 - found))
    nats = -np.log(np.exp(outputs)[range(40), y] / np.exp(outputs).sum(1)).mean()
    assert value("perplexity", x, t, parts) == pytest.approx(math.exp(nats))
    left_out = t.clone()
    left_out[::3] = -100
    kept = left_out != -100
    for name in ("f1", "top-5", "perplexity", "error"):
        assert value(name, x, left_out, parts) == pytest.approx(value(name, x[kept], t[kept])), name
    tokens = x.reshape(10, 4, classes).movedim(-1, 1)
    for name in ("f1", "top-5", "perplexity", "error"):
        assert value(name, tokens, left_out.reshape(10, 4)) == pytest.approx(value(name, x[kept], t[kept])), name


@given(SEEDS)
def test_those_of_two_classes_and_of_numbers_are_scikit_learn_s(seed):
    generator = np.random.default_rng(seed)
    scores, y = generator.normal(size=30).round(1), np.arange(30) % 2
    x, t = torch.from_numpy(scores), torch.from_numpy(y)
    pairs = torch.stack([-x / 2, x / 2], 1)
    for given_ in (x, x[:, None], pairs):
        assert value("auc", given_, t) == pytest.approx(roc_auc_score(y, scores))
        assert value("f1-binary", given_, t) == pytest.approx(f1_score(y, scores > 0))
    targets = generator.normal(size=(30, 2)) + 1000
    outputs = targets + generator.normal(size=(30, 2))
    found = value("r2", torch.from_numpy(outputs), torch.from_numpy(targets))
    assert found == pytest.approx(r2_score(targets, outputs))


@pytest.mark.parametrize("name", METRICS)
def test_each_knows_its_direction(name):
    metric = METRICS[name]
    y = torch.arange(12) % 2 if name in ("auc", "f1-binary") else torch.arange(12) % 7
    if name in ("r2", "mse"):
        y = torch.linspace(0, 1, 12)[:, None]
        right, wrong = y, y.flip(0)
    else:
        right, wrong = (10.0 * F.one_hot((y + i) % (int(y.max()) + 1)) for i in (0, 1))
        wrong[:, :] = 10 - right if name == "top-5" else wrong
    values = [float(Error(name, metric)(x, y)) for x in (right, wrong)]
    assert values[0] == pytest.approx({"perplexity": 1}.get(name, 0), abs=1e-3)
    assert values[0] < values[1]


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean()


class Accuracy:
    def __init__(self):
        self.right = self.count = 0

    def update(self, outputs, targets):
        self.right += int((outputs.argmax(1) == targets).sum())
        self.count += len(targets)

    def compute(self):
        return self.right / self.count


OWN = {
    "error": "error",
    "f1": "f1",
    "top-5": "top-5",
    "counted": Metric(Accuracy, "up", best=1),
    "own": Metric(accuracy, "up", best=1),
}


@pytest.mark.parametrize("how", [{}, {"loss": "cross-entropy", "eval_batch_size": 7}, {"precision": "bfloat16"}])
def test_records_have_all_of_the_whole_split(how):
    recipe = small_recipe(metrics=OWN, validation=40, **how)
    plain = small_recipe(validation=40, **how)
    assert recipe.decide_by == "error"
    run, without = train(Job(recipe)), train(Job(plain))
    last = run.history[-1]
    for name, number in without.history[-1].items():
        assert last[name] == number, "others are as they were"
    assert {"test_f1", "test_top-5", "test_counted", "test_own", "validation_f1"} <= {*last}
    assert last["test_own"] == last["test_counted"] == pytest.approx(1 - last["test_error"] / 100)
    found = evaluate(recipe, run.weights)
    assert found.more == {name: last[f"test_{name}"] for name in ("f1", "top-5", "counted", "own")}
    x, y = recipe.arrays.x["test"], recipe.arrays.y["test"]
    module = recipe.build().eval()
    module.load_state_dict(run.weights)
    if "precision" not in how:
        with torch.no_grad():
            assert last["test_f1"] == pytest.approx(f1_score(y, module(x).argmax(1), average="macro"))
    loss, error = found
    assert (loss, error) == (last["test_loss"], last["test_error"])


def test_what_decides_is_an_error_in_its_own_unit(store):
    recipe = small_recipe(metrics=["error", "f1"], decide_by="f1", tolerance="5%")
    assert (recipe.error_title, recipe.error_unit, recipe.in_points) == ("1 − f1", "", False)
    result = lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1, store=store)
    for levels in result.replicates:
        last = levels[0].run.history[-1]
        assert last["test_error"] == pytest.approx(
            1 - evaluate(small_recipe(metrics="f1"), levels[0].run.weights).more["f1"]
        )
        assert last["test_misclassification"] == evaluate(small_recipe(), levels[0].run.weights).error
    assert result.table()["gap"].notna().all()
    top = small_recipe(metrics="top-5,error", decide_by="top-5")
    assert (top.error_title, top.in_points) == ("top-5 %", True)
    keys = [
        Job(small_recipe(**c)).key
        for c in ({}, {"metrics": "f1"}, {"metrics": "f1", "decide_by": "f1"}, {"metrics": OWN})
    ]
    assert len(set(keys)) == 4
    assert None not in keys


def test_regressions_and_two_classes(store):
    data = small_arrays()
    y = data.x["train"][:, :1].numpy(), data.x["test"][:, :1].numpy()
    numbers = lotto.data.Arrays(data.x["train"].numpy(), y[0], data.x["test"].numpy(), y[1])
    run = lotto.train(
        lotto.Recipe("mlp-8", numbers, batch_size=40, steps="20it", loss="mse", metrics="mse,r2", decide_by="mse"),
        store=store,
    )
    assert run.history[-1]["test_r2"] == pytest.approx(1 - run.test_error / y[1].var(), rel=1e-4)
    two = lotto.data.Arrays(
        data.x["train"].numpy(), data.y["train"].numpy() % 2, data.x["test"].numpy(), data.y["test"].numpy() % 2
    )
    run = lotto.train(
        lotto.Recipe(
            "mlp-8",
            two,
            batch_size=40,
            steps="20it",
            metrics="auc,f1-binary",
            decide_by="auc",
            validation=50,
            weights="best",
        ),
        store=store,
    )
    assert 0 <= run.test_error <= 1
    assert {"test_f1-binary", "validation_f1-binary"} <= {*run.history[-1]}


@pytest.mark.parametrize(("changes", "text"), [
    ({"metrics": {"accuracy": accuracy}}, r"'accuracy' is 1 for right predictions and 0 for wrong ones, so that it does not go down"),
    ({"error": accuracy}, r"'error' is 1 for right predictions"),
    ({"metrics": {"wrong": Metric(lambda o, t: 1 - accuracy(o, t), "up", best=1)}}, r"does not go up: say direction='down'"),
    ({"metrics": {"counted": Accuracy}}, "'counted' is 1 for right predictions"),
    ({"metrics": "f2"}, "Unknown metric 'f2'"),
    ({"metrics": "f1", "decide_by": "error"}, "Unknown metric to decide by 'error'"),
    ({"decide_by": "f1"}, "Unknown metric to decide by 'f1'"),
    ({"metrics": "f1", "decide_by": "f1", "error": "mse"}, "error= and decide_by= both say what decides"),
    ({"metrics": "auc"}, "auc is of two classes"),
    ({"metrics": "r2"}, "r2 is of floating targets"),
    ({"metrics": "f1-binary"}, "the network has 6 outputs"),
    ({"metrics": 3}, "metrics are named"),
])  # fmt: skip
def test_what_is_no_metric_here_is_refused_before_training(changes, text, store):
    with pytest.raises(UsageError, match=text):
        lotto.train(small_recipe(**changes), store=store)


@pytest.mark.parametrize(("make", "text"), [
    (lambda: Metric(accuracy, "up"), "has a best value"), (lambda: Metric(accuracy, best=1), "has a best value"),
    (lambda: Metric(accuracy, "sideways"), "Unknown direction"), (lambda: Metric(3), "compute is a function; got 3|computed by a function"),
])  # fmt: skip
def test_what_is_no_metric_is_refused(make, text):
    with pytest.raises(UsageError, match=text):
        make()
