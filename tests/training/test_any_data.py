"""Data of a user's own kind goes through every loop, and gives what the same examples in `Arrays` give, bit for bit."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.data import Batch, DataSource
from lotto.execution.serial import Serial
from lotto.inference.programs import save_program
from lotto.inference.variants import forms, variants
from lotto.landscape.batchnorm import recompute_statistics
from lotto.landscape.curvature.operator import Hessian
from lotto.lottery.scoring import NetworkMeasurements
from lotto.pruning import masks
from lotto.training.evaluation import evaluate
from lotto.training.loop import train
from lotto.training.network import Network


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Linear(16, 6)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu())


class Scaled(Net):
    """Takes two inputs, by position or by name."""

    def forward(self, x, scale):
        return super().forward(x * scale)


class Wrapped(DataSource):
    """The examples of `small_arrays` as another kind of batch."""

    name = "wrapped"
    fingerprint = "rings-0"
    classes = 6

    def __init__(self, how):
        self.how = how

    def size(self, split="train"):
        return small_arrays().size(split)

    def wrapped(self, x, y):
        one = torch.ones(len(x), 1)
        return {
            "tensor": (x, y), "tuple": Batch((x, one), y), "list": [[x, one], y],
            "mapping": Batch({"scale": one, "x": x}, y), "numpy": (x.numpy(), y.numpy()),
        }[self.how]  # fmt: skip

    def train_batches(self, seed, start, stop, batch_size):
        yield from (self.wrapped(*b) for b in small_arrays().batches(seed, start, stop, batch_size))

    def eval_batches(self, split, batch_size):
        yield from (self.wrapped(*b) for b in small_arrays().evaluation(split, batch_size))


class Stream(Wrapped):
    """Cannot begin in the middle, and has no end."""

    random_access = False

    def size(self, split="train"):
        return None if split == "train" else super().size(split)

    def train_batches(self, seed, start, stop, batch_size):
        assert start == 0
        return super().train_batches(seed, start, stop, batch_size)


KINDS = ("tensor", "tuple", "list", "mapping", "numpy")


def recipe_of(data, **changes):
    model = Scaled if getattr(data, "how", "") in ("tuple", "list", "mapping") else Net
    return small_recipe(model=model, init="module", data=data, **changes)


@pytest.fixture
def reference():
    recipe = recipe_of(small_arrays())
    run = train(lotto.Job(recipe, keep=(10,)))
    return recipe, run, lotto.pruning.prune(run.weights, masks.ones(recipe), rate=0.5)


@pytest.mark.parametrize("how", KINDS)
def test_every_loop_reads_it(how, reference, store, tmp_path):
    arrays, dense, mask = reference
    recipe, engine = recipe_of(Wrapped(how)), Serial(store)
    job = lotto.Job(recipe, keep=(10,))
    run, again = engine.run([job])[0], engine.run([job])[0]
    assert same_tensors(run.weights, dense.weights)
    assert (run.history, again.key) == (dense.history, run.key)
    rewound = run.state(10).without_optimizer
    tickets = [
        train(lotto.Job(r, start=rewound, mask=mask, from_step=10)).weights for r in (recipe, arrays)
    ]  # fmt: skip
    assert same_tensors(*tickets)
    a, b = run.weights, tickets[0]
    for split in ("train", "test"):
        assert evaluate(recipe, a, split) == evaluate(arrays, a, split)

    def computed(r):
        network = Network(r, a)
        recompute_statistics(r, network, 70)
        path = lotto.landscape.evaluate_path(r, a, b, 4, ("train", "test"), "recompute", 50)
        plane = lotto.landscape.evaluate_plane(r, a, b, r.initial(1), 3, examples=50)
        hessian = Hessian(r, a, mask, examples=130)
        measured = NetworkMeasurements(r, a, masks.ones(r))
        return (
            network.module.norm.running_var.tolist(), path.error, path.loss, plane.error.tolist(),
            (hessian @ np.ones(hessian.size)).tolist(), hessian.gradient().tolist(),
            [float(g.sum()) for g in measured.gradients().values()], [y.tolist() for _, y in measured.batches],
        )  # fmt: skip

    assert computed(recipe) == computed(arrays)
    module = Network(recipe, b).module.eval()
    measured = variants(recipe, forms(recipe, module))
    assert measured[0].error == evaluate(recipe, b).error
    assert len(measured) == (1 if how in ("tuple", "list", "mapping") else 3)
    program = torch.export.load(save_program(module, recipe, tmp_path / "program.pt2")).module()
    inputs, _ = next(recipe.arrays.evaluation("test", 7))
    called = {
        dict: lambda: program(**inputs), tuple: lambda: program(*inputs), list: lambda: program(*inputs)
    }.get(type(inputs), lambda: program(inputs))()  # fmt: skip
    evaluated = Network(recipe, b)
    evaluated.module.eval()
    assert torch.allclose(called, evaluated(inputs), atol=1e-5)


def test_imp_in_workers_and_in_this_process_agree(store, tmp_path):
    recipe = recipe_of(Wrapped("mapping"))
    plan = lotto.Plan(levels=2, replicates=2, rewind_to="10it", controls=("random",))
    here = lotto.imp(recipe, plan, jobs=1, store=store, progress=False)
    there = lotto.imp(recipe, plan, jobs=2, store=tmp_path / "other", progress=False)
    arrays = lotto.imp(recipe_of(small_arrays()), plan, jobs=1, store=store, progress=False)
    assert here.table().equals(there.table())
    assert here.table().equals(arrays.table())


def test_a_stream_is_replayed_which_is_said_and_has_no_epochs(store, caplog):
    recipe = recipe_of(Stream("mapping"))
    plan = lotto.Plan(levels=1, replicates=1, rewind_to="10it", controls=())
    with caplog.at_level(logging.WARNING):
        streamed = lotto.imp(recipe, plan, jobs=1, store=store, progress=False)
    assert "wrapped cannot begin at any step: a training that begins at step k" in caplog.text
    whole = lotto.imp(recipe_of(small_arrays()), plan, jobs=1, store=store, progress=False)
    assert streamed.table().equals(whole.table())
    with pytest.raises(UsageError, match="loops of your own have no epochs: give iterations"):
        lotto.imp(recipe, levels=1, rewind_to="1ep", jobs=1, store=store)
    with pytest.raises(UsageError, match="wrapped is a stream without an end: say how many of its examples"):
        Hessian(recipe, recipe.initial(0), masks.ones(recipe)).gradient()
    assert Hessian(recipe, recipe.initial(0), masks.ones(recipe), examples=50).gradient().any()


def test_what_it_computes_is_part_of_the_key():
    class Other(Wrapped):
        def wrapped(self, x, y):
            return Batch(x + 1, y)

    class Renamed(Wrapped):
        fingerprint = "rings-1"

    class Unnamed(Wrapped):
        fingerprint = None

    keys = [lotto.Job(recipe_of(data)).key for data in (Wrapped("tuple"), Other("tuple"), Renamed("tuple"))]
    keys += [lotto.Job(recipe_of(Wrapped("mapping"))).key]
    assert len({*keys}) == 4
    assert None not in keys
    assert lotto.Job(recipe_of(Wrapped("tuple"))).key == keys[0]
    unnamed = lotto.Job(recipe_of(Unnamed("tuple")))
    assert unnamed.key is None
    assert unnamed.not_cacheable == "the data source wrapped states no fingerprint"


class Changing(Wrapped):
    def train_batches(self, seed, start, stop, batch_size):
        yield from (Batch(x + torch.rand(1), y) for x, y in super().train_batches(seed, start, stop, batch_size))


class Shifted(Wrapped):
    def train_batches(self, seed, start, stop, batch_size):
        return super().train_batches(seed, 0, stop - start, batch_size)


class Short(Wrapped):
    def train_batches(self, seed, start, stop, batch_size):
        return super().train_batches(seed, start, min(stop, 12), batch_size)


class FewTested(Wrapped):
    def eval_batches(self, split, batch_size):
        yield next(super().eval_batches(split, 30))


class Triple(Wrapped):
    def wrapped(self, x, y):
        return x, y, y


class Uneven(Wrapped):
    def wrapped(self, x, y):
        return Batch((x, torch.ones(3, 1)), y)


class Untested(Wrapped):
    def size(self, split="train"):
        return 0 if split == "test" else super().size(split)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Changing("tensor"), r"gives another batch for \(seed 0, step 0\) when it is read again: draw what is random"),
        (Shifted("tensor"), r"gives another batch for \(seed 0, step 1\) if training begins there"),
        (Short("tensor"), "ended at step 12 of a training that goes to 40"),
        (FewTested("tensor"), "gives only 30 of the 80 test examples"),
        (Triple("tensor"), "wrapped gave a tuple of 3"),
        (Uneven("tensor"), "wrapped gave tensors of 2, 3 examples"),
        (Untested("tensor"), r"wrapped.size\('test'\) is the number of examples, 1 or more; got 0"),
    ],
)
def test_what_is_no_such_source_is_refused_in_a_sentence(data, sentence, store):
    with pytest.raises(UsageError, match=sentence):
        lotto.imp(recipe_of(data), levels=1, replicates=1, rewind_to="0it", jobs=1, store=store)


def test_what_needs_arrays_says_so(store):
    with pytest.raises(UsageError, match=r"holds examples out of data that gives them by number; wrapped does not"):
        recipe_of(Wrapped("tensor"), validation=5).arrays  # noqa: B018
    with pytest.raises(UsageError, match=r"lotto.data.Augment is for lotto.data.Arrays and ImageFolder"):
        train(lotto.Job(recipe_of(Wrapped("tensor"), augment=lotto.data.Augment(1))))

    class Untold(Wrapped):
        classes = None

    with pytest.raises(UsageError, match="wrapped does not say how many classes there are"):
        small_recipe(data=Untold("tensor")).initial(0)


def test_a_network_by_name_reads_a_source_of_plain_tensors():
    plain, arrays = small_recipe(data=Wrapped("tensor")), small_recipe()
    one, two = (train(lotto.Job(recipe)).weights for recipe in (plain, arrays))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in two)
