"""Losses and errors of a split are those of all its outputs at once, however they are batched."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

import lotto
from lotto.core.errors import UsageError
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.path import PathTask
from lotto.recipe.totals import Ratio, totals_of
from lotto.training.evaluation import evaluate
from lotto.training.job import Job
from lotto.training.loop import train, train_stack

TEST = 2_345
"""Three batches, the last of them smaller."""


def linear() -> nn.Module:
    return nn.Linear(6, 3)


def single() -> nn.Module:
    return nn.Linear(6, 1)


def uneven(recipe_targets: Any = None, **changes: Any) -> lotto.Recipe:
    """Three classes, of which the first batches hold the first one only."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 3, 300 + TEST))
    x = (rng.normal(size=(len(y), 6)) + np.eye(3, 6)[y]).astype("float32")
    order = rng.permutation(len(y))[:300]
    train = np.isin(np.arange(len(y)), order)
    y = y if recipe_targets is None else recipe_targets(x, y)
    data = lotto.data.Arrays(x[train], y[train], x[~train], y[~train])
    made = {"model": linear, "data": data, "optimizer": lotto.SGD(0.1), "batch_size": 25, "steps": "8it", **changes}
    return lotto.Recipe(**made)


def whole(recipe: lotto.Recipe, weights: Any, objective: Any, split: str = "test") -> float:
    """The slow reference: one call on all outputs, in float64 where the objective allows."""
    module = recipe.build()
    module.load_state_dict(dict(weights))
    with torch.no_grad():
        outputs = module.eval()(recipe.arrays.x[split])
    return float(objective(outputs.double(), recipe.arrays.y[split]))


def some_left_out(label: int) -> Any:
    def targets(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x[:, 0]) + (y == 2) > 1, label, y)

    return targets


def probabilities(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (0.8 * np.eye(3)[y] + 0.2 / 3).astype("float32")


CLASSES = torch.tensor([0.2, 1.0, 5.0])
LOSSES = {
    "cross-entropy": (F.cross_entropy, None),
    "weighted": (nn.CrossEntropyLoss(weight=CLASSES), None),
    "smoothed": (nn.CrossEntropyLoss(weight=CLASSES, label_smoothing=0.2), None),
    "left out": (F.cross_entropy, some_left_out(-100)),
    "left out and weighted": (nn.CrossEntropyLoss(weight=CLASSES, ignore_index=1), None),
    "partial": (partial(F.cross_entropy, weight=CLASSES, ignore_index=2, label_smoothing=0.1), None),
    "probabilities": (nn.CrossEntropyLoss(weight=CLASSES), probabilities),
    "multi-margin": (nn.MultiMarginLoss(weight=CLASSES), None),
    "binary": (nn.BCEWithLogitsLoss(pos_weight=CLASSES), probabilities),
    "huber": (nn.HuberLoss(delta=0.3), probabilities),
    "batchmean": (nn.KLDivLoss(reduction="batchmean"), probabilities),
}


def in_double(loss: Any) -> Any:
    """The same loss with its own tensors in float64."""
    if isinstance(loss, nn.Module):
        import copy

        return copy.deepcopy(loss).double()
    if isinstance(loss, partial):
        return partial(loss.func, **{**loss.keywords, "weight": loss.keywords["weight"].double()})
    return loss


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_torch_over_a_split_is_torchs_own_on_all_of_it(name: str) -> None:
    loss, targets = LOSSES[name]
    recipe = uneven(targets, loss=loss, error=None if targets is not probabilities else "mse")
    assert totals_of(recipe.loss_function) is not None
    weights = recipe.initial(1)
    expected = whole(recipe, weights, lambda o, y: in_double(loss)(o, y.double() if y.is_floating_point() else y))
    assert evaluate(recipe, weights).loss == pytest.approx(expected, rel=1e-6)


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="sum")


class Halved(nn.CrossEntropyLoss):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) / targets.float().mean()


@pytest.mark.parametrize("loss", [summed, nn.CrossEntropyLoss(reduction="sum"), Halved(weight=CLASSES)])
def test_any_other_loss_is_called_once_on_all_outputs(loss: Any) -> None:
    recipe = uneven(loss=loss)
    weights = recipe.initial(1)
    reference = in_double(loss) if isinstance(loss, nn.Module) else loss
    assert totals_of(recipe.loss_function) is None
    assert evaluate(recipe, weights).loss == pytest.approx(whole(recipe, weights, reference), rel=1e-5)


def test_a_changed_loss_of_torch_is_not_taken_for_torchs() -> None:
    loss = nn.CrossEntropyLoss()
    loss.register_forward_hook(lambda module, inputs, output: output * 2)
    assert totals_of(loss) is None
    other = nn.CrossEntropyLoss()
    other.forward = lambda outputs, targets: outputs.sum()  # type: ignore[method-assign]
    assert totals_of(other) is None


def f1(outputs: Tensor, targets: Tensor) -> float:
    return 100 * (1 - f1_score(targets, outputs.argmax(1), average="macro"))


def auc(outputs: Tensor, targets: Tensor) -> float:
    return 100 * (1 - roc_auc_score(targets == 2, outputs[:, 2]))


def r2(outputs: Tensor, targets: Tensor) -> Tensor:
    return 100 * ((outputs - targets) ** 2).mean() / targets.var()


@pytest.mark.parametrize("error", [f1, auc])
def test_metrics_that_are_no_means_are_those_of_the_whole_split(error: Any) -> None:
    recipe = uneven(error=error)
    run = lotto.train(recipe)
    assert run.test_error == pytest.approx(whole(recipe, run.weights, error), rel=1e-6)


def test_r2_of_a_sorted_test_set_is_that_of_the_whole_set() -> None:
    recipe = uneven(lambda x, y: x[:, :1] + y[:, None], model=single, loss="mse", error=r2)
    run = lotto.train(recipe)
    assert run.test_error == pytest.approx(whole(recipe, run.weights, r2), rel=1e-6)


@pytest.mark.parametrize(("label", "loss"), [(-100, "cross-entropy"), (1, nn.CrossEntropyLoss(ignore_index=1))])
def test_targets_that_the_loss_leaves_out_are_no_errors(label: int, loss: Any) -> None:
    recipe = uneven(some_left_out(label), loss=loss)
    run = lotto.train(recipe)
    module = recipe.build()
    module.load_state_dict(dict(run.weights))
    y = recipe.arrays.y["test"]
    wrong = module(recipe.arrays.x["test"]).argmax(1) != y
    assert run.test_error == pytest.approx(100 * float(wrong[y != label].double().mean()), rel=1e-12)


def test_a_batch_without_a_target_has_no_part_in_any_mean() -> None:
    def targets(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(y)) < 1_700, -100, y)  # all of the first test batch

    recipe = uneven(targets)
    weights = recipe.initial(0)
    found = evaluate(recipe, weights)
    assert found.loss == pytest.approx(whole(recipe, weights, F.cross_entropy), rel=1e-6)
    assert 0 < found.error < 100


def test_the_training_loss_weighs_batches_by_their_targets() -> None:
    recipe = uneven(loss=nn.CrossEntropyLoss(weight=CLASSES), evaluations=1, optimizer=lotto.SGD(1e-9))
    weights = recipe.initial(0)
    batches = list(recipe.arrays.batches(0, 0, recipe.total, recipe.batch_size))
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    module = recipe.build()
    module.load_state_dict(weights)
    expected = recipe.loss_function(module(x), y).item()
    jobs = [Job(recipe, 0, 0), Job(recipe, 0, 1)]
    assert train(jobs[0]).history[-1]["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert train_stack(jobs)[0].history[-1]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_steps_without_a_target_are_passed_over() -> None:
    recipe = uneven(lambda x, y: np.where(np.arange(len(y)) % 40, -100, y), batch_size=5, evaluations=1)
    assert 0 < train(Job(recipe)).history[-1]["train_loss"] < 3


def error_sum(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    return (outputs.argmax(1) != targets).sum(), len(targets)


def test_a_ratio_of_ones_own_is_added_up() -> None:
    recipe = uneven(error=Ratio(error_sum))
    assert totals_of(recipe.error_function) is not None
    weights = recipe.initial(0)
    expected = evaluate(recipe.replace(error="misclassification"), weights).error / 100
    assert evaluate(recipe, weights).error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("model", ["mlp-5", linear])
def test_a_path_weighs_as_an_evaluation_does(model: Any) -> None:
    recipe = uneven(model=model, loss=nn.CrossEntropyLoss(weight=CLASSES), error=f1)
    a, b = recipe.initial(0), recipe.initial(1)
    found = PathTask(recipe, a, b, 2, ("test", "train")).execute()
    for split in ("test", "train"):
        expected = evaluate(recipe, a, split)
        assert found["loss"][split][0] == pytest.approx(expected.loss, rel=1e-6)
        assert found["error"][split][0] == pytest.approx(expected.error, rel=1e-6)


def test_a_path_evaluates_as_many_examples_as_it_is_told() -> None:
    recipe = uneven()
    a, b = recipe.initial(0), recipe.initial(1)
    found = PathTask(recipe, a, b, 2, examples=1_234).execute()
    cut = lotto.data.Arrays(
        recipe.arrays.x["train"], recipe.arrays.y["train"],
        recipe.arrays.x["test"][:1_234], recipe.arrays.y["test"][:1_234],
    )  # fmt: skip
    assert found["loss"]["test"][0] == pytest.approx(evaluate(recipe.replace(data=cut), a).loss, rel=1e-9)


def test_curvature_of_a_weighted_loss_is_that_of_all_outputs_at_once() -> None:
    recipe = uneven(loss=nn.CrossEntropyLoss(weight=CLASSES, ignore_index=0))
    weights = recipe.initial(0)
    hessian = Hessian(recipe, weights, split="test")
    x, y = recipe.arrays.x["test"].double(), recipe.arrays.y["test"]
    loss, bias = in_double(recipe.loss), weights["bias"].double()

    def value(flat: Tensor) -> Tensor:
        return loss(x @ flat.view(3, 6).t() + bias, y)

    point = weights["weight"].double().flatten()
    expected = torch.autograd.functional.hessian(value, point).numpy()
    assert np.allclose(hessian.dense(), expected, rtol=1e-4, atol=1e-6)
    gradient = torch.autograd.functional.jacobian(value, point).numpy()
    assert np.allclose(hessian.gradient(), gradient, rtol=1e-4, atol=1e-6)


def test_curvature_of_a_loss_that_is_no_mean_over_examples_is_refused() -> None:
    recipe = uneven(loss=summed)
    weights = recipe.initial(0)
    with pytest.raises(UsageError, match="not the mean over its examples"):
        Hessian(recipe, weights, split="test")
    Hessian(recipe, weights, split="test", examples=1_000)  # all at once


def per_example(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


@pytest.mark.parametrize("changes", [{"loss": per_example}, {"loss": nn.CrossEntropyLoss(reduction="none")}])
def test_a_loss_of_each_example_is_refused_in_a_sentence(changes: Any) -> None:
    with pytest.raises(UsageError, match="one number"):
        lotto.train(uneven(**changes))


def test_an_error_of_each_example_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="one number"):
        lotto.train(uneven(error=per_example))


def test_too_many_outputs_to_gather_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lotto.training.evaluation.GATHERED_BYTES", 10_000)
    with pytest.raises(UsageError, match="Ratio"):
        evaluate(uneven(error=f1), uneven().initial(0))
