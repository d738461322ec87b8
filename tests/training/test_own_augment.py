"""Functions of the user's change training batches: mixup and soft targets, against a slow float64 loop."""

import functools

import pytest
import torch
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.core.rng import torch_seed
from lotto.data import Batch, Indexed
from lotto.training.evaluation import evaluate
from lotto.training.loop import train

ARRAYS = small_arrays()


def mixup(batch, generator, alpha=0.4):
    part = torch._sample_dirichlet(torch.tensor([alpha, alpha]), generator=generator)[0]
    order = torch.randperm(len(batch.targets), generator=generator)
    targets = F.one_hot(batch.targets, 6).float()
    return Batch(batch.inputs.lerp(batch.inputs[order], part), targets.lerp(targets[order], part))


def shifted(batch, generator):
    return batch.inputs + torch.randn(batch.inputs.shape, generator=generator), batch.targets


def indexed():
    x, y = ARRAYS.x, ARRAYS.y
    return Indexed(*(torch.utils.data.TensorDataset(x[s], y[s]) for s in ("train", "test")), classes=6)


def by_hand(recipe, steps, change):
    """Plain SGD in float64 on the same batches."""
    module = recipe.build().double()
    module.load_state_dict({name: w.double() for name, w in recipe.initial(0).items()})
    for step, batch in enumerate(ARRAYS.batches(0, 0, steps, recipe.batch_size)):
        x, y = change(batch, torch.Generator().manual_seed(torch_seed(0, "augment", step)))
        module.zero_grad()
        logs = F.log_softmax(module(x.double()), 1)
        y = y.double() if y.is_floating_point() else F.one_hot(y, 6).double()
        (-(y * logs).sum() / len(y)).backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= recipe.learning_rate(step) * p.grad
    return {name: w.detach() for name, w in module.state_dict().items()}


@pytest.mark.parametrize("change", [mixup, shifted])
@pytest.mark.parametrize("data", [ARRAYS, indexed()], ids=["arrays", "indexed"])
def test_training_is_that_of_a_slow_loop(change, data):
    recipe = small_recipe(data=data, augment=change, optimizer=lotto.SGD(0.1), precision="float64", steps="12it")
    run = train(lotto.Job(recipe))
    expected = by_hand(recipe, 12, change)
    # Batches are given in float32, where the mixture is rounded.
    assert all(torch.allclose(w.double(), expected[n], atol=1e-6) for n, w in run.weights.items())


def test_loss_and_error_of_a_split_are_those_of_its_labels():
    recipe = small_recipe(augment=mixup)
    run = train(lotto.Job(recipe))
    module = recipe.build().double().eval()
    module.load_state_dict({name: w.double() for name, w in run.weights.items()})
    for split in ("train", "test"):
        logs = F.log_softmax(module(ARRAYS.x[split].double()), 1).detach()
        found = evaluate(recipe, run.weights, split)
        assert found.loss == pytest.approx(float(-logs[range(len(logs)), ARRAYS.y[split]].mean()), rel=1e-5)
        assert found.error == pytest.approx(100 * float((logs.argmax(1) != ARRAYS.y[split]).double().mean()))


def test_label_smoothing_is_smoothed_in_training_and_in_the_loss_of_a_split():
    recipe = small_recipe(loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    weights = recipe.initial(0)
    module = recipe.build().double()
    module.load_state_dict({name: w.double() for name, w in weights.items()})
    logs = F.log_softmax(module(ARRAYS.x["test"].double()), 1).detach()
    soft = 0.9 * F.one_hot(ARRAYS.y["test"], 6) + 0.1 / 6
    assert evaluate(recipe, weights).loss == pytest.approx(float(-(soft * logs).sum(1).mean()), rel=1e-5)
    plain = train(lotto.Job(small_recipe(steps="5it"))).weights
    assert not same_tensors(train(lotto.Job(recipe.replace(steps="5it"))).weights, plain)


def test_soft_targets_of_a_data_set_leave_the_test_labels_an_error():
    x, y = ARRAYS.x, ARRAYS.y
    soft = torch.utils.data.TensorDataset(x["train"], F.one_hot(y["train"], 6).float())
    recipe = small_recipe(data=Indexed(soft, torch.utils.data.TensorDataset(x["test"], y["test"])))
    assert recipe.error_name == "misclassification"
    labels = train(lotto.Job(small_recipe()))
    run = train(lotto.Job(recipe))
    assert run.test_error == pytest.approx(labels.test_error, abs=1.3)
    with pytest.raises(UsageError, match="Misclassification needs integer targets"):
        evaluate(recipe, run.weights, "train")


def test_it_begins_anywhere_with_the_same_bits_and_is_part_of_the_key(store):
    recipe = small_recipe(augment=mixup)
    run = train(lotto.Job(recipe, keep=(10,)))
    assert same_tensors(train(lotto.Job(recipe, start=run.state(10), from_step=10)).weights, run.weights)
    keys = [lotto.Job(small_recipe(augment=a)).key for a in (None, mixup, functools.partial(mixup, alpha=1.0), shifted)]
    assert len({*keys}) == 4
    assert None not in keys
    assert lotto.Job(small_recipe(augment=mixup)).key == keys[1]
    plan = lotto.Plan(levels=1, replicates=2, rewind_to="10it", controls=())
    here = lotto.imp(recipe, plan, jobs=1, store=store, progress=False)
    assert here.table()["error"].notna().all()


def global_chance(batch, generator):
    return batch.inputs + torch.rand(1), batch.targets


def alone(batch, generator):
    return batch.inputs


def fewer(batch, generator):
    return batch.inputs[:3], batch.targets


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (global_chance, "augment gives another batch for the same batch and generator: draw from the generator"),
        (alone, "A batch is lotto.data.Batch.* augment gave a Tensor"),
        (fewer, "augment gave tensors of 3, 20 examples"),
        (lambda batch: batch, "augment is an Augment"),
    ],
)
def test_what_cannot_work_is_refused(change, sentence, store):
    with pytest.raises(UsageError, match=sentence):
        lotto.imp(small_recipe(augment=change), levels=1, replicates=1, rewind_to="0it", jobs=1, store=store)
