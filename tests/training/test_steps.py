"""What a step is made of, against slow loops in float64: parameter groups, clipping, accumulation, optimizers of torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.data import Batch, DataSource
from lotto.pruning import masks
from lotto.recipe import TorchOptimizer
from lotto.recipe.totals import Ratio
from lotto.training.loop import train, train_stack


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(12, 16), nn.LayerNorm(16), nn.Linear(16, 6)

    def forward(self, x):
        return self.head(self.norm(self.first(x)).relu())


def half(recipe, seed=0):
    return masks.random_like(lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.5), seed)


def by_hand(recipe, steps, optimizer, mask=None, clip=None, loss=F.cross_entropy):
    """Plain torch in float64; ``optimizer`` of the module, rates from the recipe's schedule."""
    module = recipe.build().double()
    module.load_state_dict({n: w.double() for n, w in recipe.initial(0).items()})
    named = dict(module.named_parameters())
    for name, keep in (mask or {}).items():
        named[name].data.mul_(keep)
    made = optimizer(module)
    peaks = [group["lr"] for group in made.param_groups]
    for step, (x, y) in enumerate(recipe.arrays.batches(0, 0, steps, recipe.step_examples)):
        made.zero_grad()
        loss(module(x.double()), y).backward()
        for name, keep in (mask or {}).items():
            named[name].grad.mul_(keep)
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        for group, peak in zip(made.param_groups, peaks, strict=True):
            group["lr"] = peak * recipe.schedule.factor(step, recipe.total, recipe.per_epoch)
        made.step()
        for name, keep in (mask or {}).items():
            named[name].data.mul_(keep)
    return module.state_dict()


def close(run, expected, mask=None):
    for name, weight in expected.items():
        torch.testing.assert_close(run.weights[name], weight, rtol=1e-8, atol=1e-10)
    assert all(not run.weights[n][~keep].any() for n, keep in (mask or {}).items())


GROUPS = {"*.bias|norm*": {"weight_decay": 0.0}, "head.*": {"lr": 0.02, "weight_decay": 0.3}}


def in_groups(make):
    def of(module):
        named = dict(module.named_parameters())
        plain = [n for n in named if n.endswith("bias") or n.startswith("norm")]
        head = [n for n in named if n.startswith("head") and n not in plain]
        rest = [n for n in named if n not in (*plain, *head)]
        return make([
            {"params": [named[n] for n in rest]}, {"params": [named[n] for n in plain], "weight_decay": 0.0},
            {"params": [named[n] for n in head], "lr": 0.02, "weight_decay": 0.3},
        ])  # fmt: skip

    return of


@pytest.mark.parametrize(("ours", "theirs"), [
    (lotto.AdamW(0.01, weight_decay=0.1, groups=GROUPS), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    (lotto.SGD(0.1, momentum=0.9, weight_decay=0.1, groups=GROUPS),
     lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1)),
    (TorchOptimizer(torch.optim.NAdam, 0.01, weight_decay=0.1, groups=GROUPS),
     lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1)),
])  # fmt: skip
def test_groups_are_those_of_torch(ours, theirs):
    recipe = small_recipe(model=Net, init="module", precision="float64", optimizer=ours, steps="14it")
    mask = half(recipe)
    run = train(Job(recipe, mask=mask, keep=(5,)))
    close(run, by_hand(recipe, 14, in_groups(theirs), mask), mask)
    assert run.arithmetic == "autograd (no kernels: parameter groups)"
    again = train(Job(recipe, mask=mask, start=run.state(5), from_step=5))
    assert same_tensors(again.weights, run.weights), "a fork is the continuation"


def test_groups_in_a_stack():
    recipe = small_recipe(
        model=Net, init="module", precision="float64", steps="8it", clip_norm=0.5,
        optimizer=lotto.SGD(0.1, weight_decay=0.1, groups=GROUPS),
    )  # fmt: skip
    jobs = [Job(recipe, order_seed=s, mask=half(recipe, s)) for s in (0, 1)]
    for job, run in zip(jobs, train_stack(jobs), strict=True):
        expected = train(job)
        for name, weight in expected.weights.items():
            torch.testing.assert_close(run.weights[name], weight, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("groups", "text"), [
    ({"*.gain": {"lr": 0.1}}, r"'\*\.gain' matches no parameter that is trained; they are first\.weight"),
    ({"*": {"lr": 0.1}, "*.bias": {"lr": 0.2}}, r"'\*\.bias' matches no parameter .*patterns before it take all"),
    ({"*.bias": {"decay": 0.1}}, "Unknown field of SGD in the group '\\*\\.bias' 'decay'"),
    ({"*.bias": {"lr": -1}}, "A learning rate is greater than 0; got -1"),
    ({"*.bias": 0.1}, "groups is a dict of dicts by name"),
    (0.1, "groups is a dict of dicts by name"),
])  # fmt: skip
def test_groups_that_mean_nothing_are_refused_before_training(groups, text, store):
    with pytest.raises(UsageError, match=text):
        lotto.train(small_recipe(model=Net, init="module", optimizer=lotto.SGD(0.1, groups=groups)), store=store)


@pytest.mark.parametrize("model", ["mlp-24-16", Net])
@pytest.mark.parametrize("optimizer", [lotto.SGD(0.5), lotto.SGD(0.1, momentum=0.9), lotto.Adam(0.01)])
@pytest.mark.parametrize("pruned", [False, True])
def test_clipping_is_torch_s_of_the_subnetwork_alone(model, optimizer, pruned):
    recipe = small_recipe(
        model=model, init="module", precision="float64", optimizer=optimizer, steps="12it", clip_norm=0.3
    )
    mask = half(recipe) if pruned else None
    kinds = {lotto.SGD: torch.optim.SGD, lotto.Adam: torch.optim.Adam}
    more = {"momentum": optimizer.momentum} if isinstance(optimizer, lotto.SGD) else {}
    make = lambda m: kinds[type(optimizer)](m.parameters(), optimizer.lr, **more)  # noqa: E731
    run = train(Job(recipe, mask=mask))
    close(run, by_hand(recipe, 12, make, mask, clip=0.3), mask)
    free = train(Job(recipe.replace(clip_norm=None), mask=mask))
    assert not same_tensors(run.weights, free.weights), "the norms are larger"
    assert run.arithmetic == free.arithmetic
    sparse = train(Job(recipe, mask=lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), density=0.1)))
    dense_kernels = recipe.replace(arithmetic="dense")
    same = train(Job(dense_kernels, mask=lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), density=0.1)))
    for name, weight in same.weights.items():
        torch.testing.assert_close(sparse.weights[name], weight, rtol=1e-8, atol=1e-10)


def test_kernels_of_convolutions_clip_the_same_norm():
    x = np.random.default_rng(0).normal(size=(80, 1, 16)).astype("float32")
    data = lotto.data.Arrays(x[:60], np.arange(60) % 3, x[60:], np.arange(20) % 3)
    recipe = lotto.Recipe("resnet-8-w4", data, lotto.SGD(0.1, momentum=0.9), batch_size=10, steps="6it", clip_norm=0.2)
    for mask in (None, half(recipe)):
        ours = train(Job(recipe.replace(arithmetic="sparse"), mask=mask))
        theirs = train(Job(recipe.replace(arithmetic="dense"), mask=mask))
        assert (ours.arithmetic.startswith("convolutions"), theirs.arithmetic[:8]) == (True, "autograd")
        for name, weight in theirs.weights.items():
            torch.testing.assert_close(ours.weights[name], weight, rtol=1e-3, atol=1e-5)


# --- accumulation --------------------------------------------------------------------------------------------------


def test_accumulation_is_the_large_batch():
    large = small_recipe(model=Net, init="module", precision="float64", batch_size=60, steps="8it", clip_norm=1.0)
    small = large.replace(batch_size=20, accumulate=3)
    assert (small.per_epoch, small.total) == (large.per_epoch, large.total) == (4, 8)
    mask = half(large)
    one, other = (train(Job(r, mask=mask, keep=(3,))) for r in (large, small))
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, rtol=1e-9, atol=1e-12)
    assert other.history[-1]["train_loss"] == pytest.approx(one.history[-1]["train_loss"], rel=1e-9)
    assert other.arithmetic == "autograd (no kernels: accumulate)"
    again = train(Job(small, mask=mask, start=other.state(3), from_step=3))
    assert same_tensors(again.weights, other.weights)
    with pytest.raises(UsageError, match="a step sees several batches"):
        train_stack([Job(small), Job(small, order_seed=1)])


class Uneven(DataSource):
    """Sequences with few targets that count, in some of which none does."""

    fingerprint = "uneven"

    def size(self, split="train"):
        return {"train": 48, "test": 12}.get(split, 0)

    def batch(self, seed, count):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 12, generator=generator)
        y = torch.randint(0, 6, (count,), generator=generator)
        return Batch(x, y.masked_fill(torch.rand(count, generator=generator) < 0.6, -100))

    def train_batches(self, seed, start, stop, batch_size):
        return (self.batch(1000 * seed + step, batch_size) for step in range(start, stop))

    def eval_batches(self, split, batch_size):
        yield self.batch(-1, self.size(split))


def ratio(outputs, targets):
    counted = targets != -100
    return F.cross_entropy(outputs[counted], targets[counted], reduction="sum"), counted.sum()


@pytest.mark.parametrize("loss", ["cross-entropy", Ratio(ratio)])
def test_parts_count_as_much_as_what_they_are_means_of(loss):
    large = lotto.Recipe(
        Net, Uneven(), lotto.SGD(0.3), batch_size=12, steps="10it", precision="float64", loss=loss, evaluations=2
    )
    small = large.replace(batch_size=2, accumulate=6)
    one, other = train(Job(large)), train(Job(small))
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, rtol=1e-9, atol=1e-12)
    assert other.history[-1]["train_loss"] == pytest.approx(one.history[-1]["train_loss"])


def test_a_loss_that_is_no_mean_is_refused(store):
    def root(outputs, targets):
        return F.cross_entropy(outputs, targets).sqrt()

    recipe = small_recipe(model=Net, init="module", loss=root, error="misclassification", accumulate=2, batch_size=10)
    with pytest.raises(UsageError, match="accumulate= does not know what its parts weigh"):
        lotto.train(recipe, store=store)
    lotto.train(recipe.replace(accumulate=1, steps="2it"), store=store)


# --- optimizers of torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [
    (torch.optim.NAdam, {"momentum_decay": 0.01}), (torch.optim.RAdam, {}), (torch.optim.Adamax, {}),
    (torch.optim.Adagrad, {}), (torch.optim.Adadelta, {}), (torch.optim.ASGD, {}), (torch.optim.Rprop, {}),
    (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.1}), (torch.optim.AdamW, {"amsgrad": True}),
])  # fmt: skip
def test_any_optimizer_of_torch_takes_its_own_steps(kind, options):
    recipe = small_recipe(
        model=Net, init="module", precision="float64", optimizer=TorchOptimizer(kind, 0.01, **options), steps="10it"
    )
    mask = half(recipe)
    run = train(Job(recipe, mask=mask, keep=(4,)))
    close(run, by_hand(recipe, 10, lambda m: kind(m.parameters(), lr=0.01, **options), mask), mask)
    assert all(
        not t[~mask[n.rpartition("/")[0]]].any()
        for n, t in run.state(4).optimizer.items()
        if n.rpartition("/")[0] in mask
        and t.shape == mask[n.rpartition("/")[0]].shape
        and kind is not torch.optim.Rprop
    )
    assert same_tensors(train(Job(recipe, mask=mask, start=run.state(4), from_step=4)).weights, run.weights)


def test_which_optimizer_and_its_options_are_part_of_the_key():
    keys = {
        Job(small_recipe(optimizer=o)).key
        for o in (
            TorchOptimizer(torch.optim.NAdam, 0.01), TorchOptimizer(torch.optim.RAdam, 0.01),
            TorchOptimizer(torch.optim.NAdam, 0.01, momentum_decay=0.1),
            TorchOptimizer(torch.optim.NAdam, 0.01, weight_decay=0.1), lotto.SGD(0.01),
            lotto.SGD(0.01, groups={"*.bias": {"lr": 0.1}}),
        )
    }  # fmt: skip
    assert len(keys) == 6
    assert None not in keys


@pytest.mark.parametrize(("make", "text"), [
    (lambda: TorchOptimizer(torch.optim.NAdam, 0.1, momentun=1), "NAdam cannot be made: .*momentun"),
    (lambda: TorchOptimizer("nadam", 0.1), "takes a class of torch.optim"),
    (lambda: lotto.train(small_recipe(model=Net, init="module", optimizer=TorchOptimizer(torch.optim.LBFGS, 0.1))),
     "cannot be trained"),
])  # fmt: skip
def test_what_is_no_such_optimizer_is_refused(make, text):
    with pytest.raises(UsageError, match=text):
        make()
    assert small_arrays().size() == 240


def test_new_fields_at_their_defaults_leave_keys_and_descriptions_as_they_were():
    recipe = small_recipe()
    found = recipe.fingerprint()
    assert not {"clip_norm", "accumulate", "output", "ema", "weights", "patience", "metrics", "decide_by"} & {*found}
    assert "groups" not in found["optimizer"]
    assert (
        str(recipe.optimizer) == repr(recipe.optimizer) == "SGD(lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=False)"
    )
    changes = [{"clip_norm": 1}, {"accumulate": 2}, {"optimizer__groups": {"*.bias": {"lr": 1}}}]
    assert len({Job(recipe.replace(**c)).key for c in ({}, *changes)}) == 4
    assert "groups={'*.bias': {'lr': 1}}" in recipe.replace(**changes[2]).describe()["optimizer"]
