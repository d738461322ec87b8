"""Networks that return more than a tensor, or compute their own loss: what is read is what a network returning it gives."""

import dataclasses
import logging
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.data import Batch, DataSource
from lotto.landscape import curvature
from lotto.lottery import score_weights
from lotto.recipe.outputs import prediction
from lotto.training.evaluation import evaluate
from lotto.training.loop import train, train_stack


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 6)

    def both(self, x):
        hidden = self.first(x).relu()
        return hidden, self.second(hidden)

    def forward(self, x):
        return self.both(x)[1]


class Place(NamedTuple):
    hidden: Tensor
    logits: Tensor


@dataclasses.dataclass
class Value:
    hidden: Tensor
    logits: Tensor


class Output(OrderedDict):
    """As transformers': entries are attributes too."""

    def __init__(self, **entries):
        super().__init__()
        for name, value in entries.items():
            self[name] = value

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        self.__dict__[name] = value


def returning(how):
    class Returning(Net):
        def forward(self, x):
            return how(*self.both(x))

    return Returning


SHAPES = {
    "tuple": (lambda h, o: (o, h), None),
    "list by place": (lambda h, o: [h, o], 1),
    "tuple from the end": (lambda h, o: (h, o), -1),
    "nested": (lambda h, o: ((h,), o), None),
    "dict": (lambda h, o: {"hidden": h, "logits": o}, None),
    "dict by name": (lambda h, o: {"hidden": h, "out": o}, "out"),
    "first of a dict": (lambda h, o: {"aux": h.sum(), "out": o, "hidden": h}, None),
    "named tuple": (Place, None),
    "dataclass": (Value, None),
    "model output": (lambda h, o: Output(loss=h.sum(), hidden=h, logits=o), None),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_prediction_is_read_wherever_it_stands(shape, precision):
    how, output = SHAPES[shape]
    plain = small_recipe(model=Net, init="module", steps="8it", precision=precision, arithmetic="dense")
    recipe = plain.replace(model=returning(how), output=output)
    one, other = train(lotto.Job(plain)), train(lotto.Job(recipe))
    assert same_tensors(one.weights, other.weights)
    assert one.history == other.history
    assert one.mistakes == other.mistakes


def test_curvature_and_scores_read_it_too():
    plain = small_recipe(model=Net, init="module", precision="float64")
    recipe = plain.replace(model=returning(lambda h, o: {"hidden": h, "logits": o}))
    weights = plain.initial(3)
    tops = [curvature.top(r, weights, k=2, examples=60).values for r in (plain, recipe)]
    assert tops[0] == pytest.approx(tops[1], rel=1e-6)

    def snip(context):
        loss = sum(context.loss(context.model(x), y) for x, y in context.batches)
        names = [n for n, _ in context.model.named_parameters() if n in context.mask]
        grads = torch.autograd.grad(loss, [dict(context.model.named_parameters())[n] for n in names])
        return {n: g.abs() for n, g in zip(names, grads, strict=True)}

    scores = [score_weights(r, weights, score=snip) for r in (plain, recipe)]
    assert same_tensors(*scores)


def test_an_own_loss_gets_all_that_the_network_returns_and_a_named_error_the_prediction():
    seen = []

    def loss(outputs, targets):
        seen.append(type(outputs))
        return F.cross_entropy(outputs.logits, targets) + 0.0 * outputs.hidden.sum()

    for precision in ("float32", "bfloat16"):
        recipe = small_recipe(
            model=returning(lambda h, o: Output(hidden=h, logits=o)), init="module", steps="4it", loss=loss,
            precision=precision,
        )  # fmt: skip
        plain = small_recipe(model=Net, init="module", steps="4it", precision=precision)
        assert same_tensors(train(lotto.Job(recipe)).weights, train(lotto.Job(plain)).weights)
        assert train(lotto.Job(recipe)).test_error == train(lotto.Job(plain)).test_error
    assert set(seen) == {Output}


def test_which_entry_is_read_is_said_once_and_a_wrong_name_lists_the_right_ones(caplog, store):
    recipe = small_recipe(model=returning(lambda h, o: {"hidden": h, "logits": o}), init="module")
    with caplog.at_level(logging.WARNING):
        lotto.imp(recipe, levels=1, replicates=2, controls=(), jobs=1, store=store)
    assert [m for m in caplog.messages if "prediction" in m] == [
        "The network returns dict; the prediction is its entry 'logits'. Another one: output=..."
    ]
    with pytest.raises(UsageError, match=r"output='logit' is no tensor .* a dict: there are 'hidden', 'logits'"):
        lotto.train(recipe.replace(output="logit"), store=store)
    assert lotto.Job(recipe).key != lotto.Job(recipe.replace(output="hidden")).key


# --- losses of the model's own -------------------------------------------------------------------------------------


class WithLoss(Net):
    """The mean over the labels that are not -100."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return Output(loss=loss, logits=logits)


def test_a_loss_of_the_model_is_the_same_training():
    plain = small_recipe(model=Net, init="module", arithmetic="dense")
    recipe = plain.replace(model=WithLoss, loss="model")
    one, other = train(lotto.Job(plain)), train(lotto.Job(recipe))
    assert same_tensors(one.weights, other.weights)
    assert other.test_loss == pytest.approx(one.test_loss, rel=1e-6)
    assert (other.test_error, other.mistakes) == (one.test_error, one.mistakes)
    assert evaluate(recipe.replace(eval_batch_size=7), one.weights).loss == pytest.approx(one.test_loss, rel=1e-6)
    found = curvature.top(recipe, one.weights, k=1, examples=50).values
    assert found == pytest.approx(curvature.top(plain, one.weights, k=1, examples=50).values, rel=1e-3)


class Tokens(DataSource):
    """Sequences whose targets are their own tokens; a third of these do not count."""

    fingerprint = "tokens"

    def size(self, split="train"):
        return {"train": 60, "test": 30}.get(split, 0)

    def batch(self, seed, count):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 9, (count, 7), generator=generator)
        left_out = torch.rand(ids.shape, generator=generator) < 0.3
        return Batch({"ids": ids}, ids.masked_fill(left_out, -100))

    def train_batches(self, seed, start, stop, batch_size):
        return (self.batch(1000 * seed + step, batch_size) for step in range(start, stop))

    def eval_batches(self, split, batch_size):
        whole = self.batch(-1, self.size(split))
        for first in range(0, self.size(split), batch_size):
            yield Batch(
                {"ids": whole.inputs["ids"][first : first + batch_size]}, whole.targets[first : first + batch_size]
            )


class Language(nn.Module):
    """Predicts the token after each (``shift`` 1), or each token itself (0)."""

    shift = 1

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(9, 8), nn.Linear(8, 9)

    def forward(self, ids, labels=None):
        logits = self.out(self.words(ids).cumsum(1))
        if labels is None:
            return logits
        kept = logits[:, : logits.shape[1] - self.shift].reshape(-1, 9)
        return {"loss": F.cross_entropy(kept, labels[:, self.shift :].reshape(-1)), "logits": logits}


class Same(Language):
    shift = 0


@pytest.mark.parametrize("model", [Language, Same])
def test_losses_of_sequences_are_means_over_the_targets_that_count(model):
    recipe = lotto.Recipe(model, Tokens(), lotto.SGD(0.5), batch_size=10, steps="12it", loss="model", bn_examples=10)
    assert recipe.loss_function.shift == model.shift
    run = train(lotto.Job(recipe))
    module = model().double()
    module.load_state_dict(run.weights)
    (whole,) = Tokens().eval_batches("test", 30)
    with torch.no_grad():
        logits = module(**whole.inputs)[:, : 7 - model.shift]
    targets = whole.targets[:, model.shift :]
    counted = targets != -100
    loss = F.cross_entropy(logits[counted], targets[counted])
    error = 100 * (logits[counted].argmax(1) != targets[counted]).double().mean()
    for size in (30, 7, 1):
        got = evaluate(recipe.replace(eval_batch_size=size), run.weights)
        assert got.loss == pytest.approx(float(loss), rel=1e-5)
        assert got.error == pytest.approx(float(error))


class Summed(Language):
    def forward(self, ids, labels=None):
        found = super().forward(ids, labels)
        return found if labels is None else {**found, "loss": found["loss"] ** 2 + len(ids)}


class Silent(Language):
    def forward(self, ids, labels=None):
        return {"logits": super().forward(ids)}


class Deaf(Net):
    def forward(self, ids):
        return ids


@pytest.mark.parametrize(("model", "text"), [
    (Summed, "is no mean over the batch's targets"),
    (Silent, r"takes the loss that the model computes when it is given labels=.*it returns a dict"),
    (Deaf, r"gives the targets to the model as labels=, which its forward does not take"),
])  # fmt: skip
def test_what_is_no_such_loss_is_refused(model, text, store):
    recipe = lotto.Recipe(model, Tokens(), lotto.SGD(0.5), batch_size=10, steps="12it", loss="model")
    with pytest.raises(UsageError, match=text):
        lotto.train(recipe, store=store)


def test_a_stack_and_kernels_are_not_taken():
    recipe = small_recipe(model=WithLoss, init="module", loss="model", steps="3it")
    assert train(lotto.Job(recipe)).arithmetic.startswith("autograd")
    with pytest.raises(UsageError, match="Use a stack of 1"):
        train_stack([lotto.Job(recipe), lotto.Job(recipe, order_seed=1)])


def test_prediction_of_a_tensor_is_the_tensor():
    x = torch.ones(2)
    assert prediction(x) is x
    assert small_arrays().size() == 240
