"""An optimizer and a learning-rate schedule of a user's own are what runs, and pruned weights stay 0 under them."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.recipe.lr_schedules import Schedule
from lotto.recipe.optimizers import Optimizer
from lotto.training.loop import train, train_stack


@dataclass(frozen=True)
class Sign(lotto.SGD):
    """Takes steps of one length; to whom it is SGD, it is not."""

    def update(self, parameters, gradients, states, lr):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient.sign(), alpha=-lr)


@dataclass(frozen=True)
class Restless(Optimizer):
    """Moves every weight, by a memory that is never 0, along the whole tensor's gradient norm."""

    def init_state(self, parameter):
        return {"age": torch.zeros_like(parameter), "steps": torch.zeros(())}

    def update(self, parameters, gradients, states, lr):
        for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
            state["steps"] += 1
            state["age"] += 1e-3
            parameter.sub_(lr * (gradient / gradient.norm().clamp(min=1e-6) + state["age"]))


@dataclass(frozen=True)
class Halving(Schedule):
    every: int = 10

    def after_warmup(self, step, total, per_epoch, warm):
        return 0.5 ** (step // self.every)


def own_net():
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 6))


def by_hand(recipe, mask, optimizer, steps):
    """The slow, obvious loop."""
    weights = recipe.initial(0)
    module = recipe.build()
    module.load_state_dict(masks.apply(weights, mask))
    parameters = dict(module.named_parameters())
    states = {n: optimizer.init_state(p) for n, p in parameters.items()}
    for step, (x, y) in enumerate(recipe.arrays.batches(0, 0, steps, recipe.batch_size)):
        module.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        with torch.no_grad():
            for name, p in parameters.items():
                gradient = p.grad * mask[name] if name in mask else p.grad
                optimizer.update([p], [gradient], [states[name]], recipe.learning_rate(step))
                if name in mask:
                    p.mul_(mask[name])
                    for value in states[name].values():
                        if value.shape == p.shape:
                            value.mul_(mask[name])
    return module.state_dict(), states


@pytest.mark.parametrize("optimizer", [Sign(0.01), Restless(0.05)], ids=["sign", "restless"])
@pytest.mark.parametrize("model", ["mlp-24-16", own_net], ids=["ours", "own"])
def test_it_is_what_runs_and_pruned_weights_stay_zero(optimizer, model, store):
    init = "kaiming-normal" if isinstance(model, str) else "module"
    recipe = small_recipe(optimizer=optimizer, model=model, init=init, schedule=Halving(), steps="30it")
    mask = lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.7)
    run = train(lotto.Job(recipe, mask=mask, keep=(12,)))
    expected, states = by_hand(recipe, mask, optimizer, 30)
    for name, tensor in expected.items():
        torch.testing.assert_close(run.weights[name], tensor, rtol=1e-5, atol=1e-6)
    assert all(not run.weights[name][~keep.bool()].any() for name, keep in mask.items())
    kept = run.state(30).optimizer
    assert {*kept} == {f"{name}/{what}" for name, found in states.items() for what in found}
    for name, keep in mask.items():
        assert all(not t[~keep.bool()].any() for n, t in kept.items() if n.startswith(f"{name}/") and t.dim())
    forked = train(lotto.Job(recipe, start=run.state(12), mask=mask, from_step=12))
    assert same_tensors(forked.weights, run.weights)


def test_it_is_not_stacked_nor_taken_for_ours():
    recipe = small_recipe(optimizer=Sign(0.01))
    with pytest.raises(UsageError, match="its optimizer would get the weights of all networks as one tensor"):
        train_stack([lotto.Job(recipe, order_seed=i) for i in (0, 1)])
    assert lotto.Job(recipe).key not in (lotto.Job(small_recipe(optimizer=lotto.SGD(0.01))).key, None)
    assert train(lotto.Job(recipe)).arithmetic == "autograd"


def test_imp_runs_with_both(store):
    recipe = small_recipe(optimizer=Restless(0.05), schedule=Halving(20))
    result = lotto.imp(recipe, levels=2, replicates=2, rewind_to="5it", jobs=2, store=store, progress=False)
    assert len(result.table()) == 3
