"""A whole training loop of one's own in a recipe's place: the same tickets, remembered, in workers, refused where it must."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import DivergedError, UsageError
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.lottery.forecast import forecast
from lotto.lottery.plan import make_plan
from lotto.pruning import masks
from lotto.report.forecast import forecast_lines


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))

    def forward(self, x):
        return self.body(x)


STEPS = 20


def fit(model, *, start_step, seed):
    data = small_arrays()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for x, y in data.batches(seed, start_step, STEPS, 20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        outputs = model.eval()(data.x["test"])
    wrong = outputs.argmax(1) != data.y["test"]
    return {"error": 100 * wrong.double().mean(), "loss": float(nn.functional.cross_entropy(outputs, data.y["test"]))}


def usual():
    """The same training as a recipe."""
    return small_recipe(model=Net, init="module", schedule=lotto.Constant(), steps=f"{STEPS}it")


OPTIONS = {"densities": [0.5, 0.25], "rewind_to": "5it", "replicates": 2}


def test_it_is_the_imp_of_the_same_training_as_a_recipe(store, tmp_path):
    own = lotto.imp(lotto.Trainable(Net, fit, tolerance=5.0), engine=Serial(store), **OPTIONS)
    recipe = lotto.imp(usual(), engine=Serial(lotto.Store(tmp_path / "other")), **OPTIONS)
    for one, other in zip(own.replicates, recipe.replicates, strict=True):
        for a, b in zip(one, other, strict=True):
            assert same_tensors(a.mask, b.mask)
            assert a.run.test_error == b.run.test_error
            for name, tensor in b.run.weights.items():
                torch.testing.assert_close(a.run.weights[name], tensor, rtol=1e-3, atol=1e-5)
            assert {c: run.test_error for c, run in a.controls.items()} == {
                c: run.test_error for c, run in b.controls.items()
            }
    assert list(own.table()["verdict"]) == list(recipe.table()["verdict"])
    ticket = own.ticket(level=2)
    assert ticket.rewind_step == 5
    assert lotto.train(lotto.Trainable(Net, fit, tolerance=5.0), start=ticket, store=store).test_error == (
        own.replicates[0][2].run.test_error
    )


def test_it_is_remembered_by_its_code_and_its_key(store):
    events: list = []

    def computed(trainable):
        events.clear()
        lotto.imp(trainable, engine=Serial(store), progress=events.append, **OPTIONS)
        return sum(getattr(event, "trained", False) for event in events)

    assert computed(lotto.Trainable(Net, fit)) == 14
    assert computed(lotto.Trainable(Net, fit, tolerance=1.0, name="another name")) == 0
    assert computed(lotto.Trainable(Net, fit, key="v2")) == 14

    def other(model, *, start_step, seed):
        return {**fit(model, start_step=start_step, seed=seed), "error": 1.0}

    assert lotto.Job(lotto.Trainable(Net, other)).key not in (None, lotto.Job(lotto.Trainable(Net, fit)).key)


def test_what_no_key_covers_is_trained_and_not_remembered(store, caplog):
    def reads(model, *, start_step, seed):
        open("/dev/null").close()
        return fit(model, start_step=start_step, seed=seed)

    job = lotto.Job(lotto.Trainable(Net, reads))
    assert job.key is None
    assert "open" in job.not_cacheable
    assert Serial(store).run([job])[0].test_error >= 0
    assert "not be remembered" in caplog.text or "not remembered" in caplog.text


def test_workers_compute_the_same_bits(store, tmp_path):
    job = lotto.Job(lotto.Trainable(Net, fit), keep=(3,))
    (here,), (there,) = Serial(store).run([job]), Processes(lotto.Store(tmp_path / "b"), 1).run([job])
    assert same_tensors(here.weights, there.weights)
    assert same_tensors(here.at(3), there.at(3))
    assert here.history == there.history or np.isnan(here.history[0]["train_loss"])


def test_another_kept_step_is_trained_from_the_start(store):
    trainable = lotto.Trainable(Net, fit)
    Serial(store).run([lotto.Job(trainable, keep=(3,))])
    (run,) = Serial(store).run([lotto.Job(trainable, keep=(7,))])
    (fresh,) = Serial(lotto.Store(store.root.with_name("fresh"))).run([lotto.Job(trainable, keep=(7,))])
    assert same_tensors(run.at(7), fresh.at(7))


def test_global_generators_are_seeded_by_the_data_order_and_left_as_they_were():
    drawn = []

    def draws(model, *, start_step, seed):
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
        return fit(model, start_step=start_step, seed=seed)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    for order in (0, 0, 1):
        lotto.train(lotto.Trainable(Net, draws), 0, order, store=None)
        assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1] != drawn[2]


def test_pretrained_weights_are_where_all_begin_and_the_control_draws_new_ones(store, tmp_path):
    weights = lotto.train(usual(), store=None).weights
    save_file(dict(weights), tmp_path / "weights.safetensors")

    def still(model, *, start_step, seed):
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        for _ in range(2):
            optimizer.step()
        return {"error": 1.0}

    by_file = lotto.Trainable(Net, still, init=tmp_path / "weights.safetensors")
    assert lotto.Job(by_file).key == lotto.Job(lotto.Trainable(Net, still, init=weights)).key
    assert lotto.Job(by_file).key != lotto.Job(lotto.Trainable(Net, still)).key
    options = {"densities": [0.5], "rewind_to": "1it", "replicates": 2, "controls": ("reinit",)}
    result = lotto.imp(by_file, engine=Serial(store), **options)
    drawn = []
    for dense, level in result.replicates:
        assert same_tensors(dense.run.weights, weights)
        assert same_tensors(level.run.weights, masks.apply(weights, level.mask))
        drawn.append(level.controls["reinit"].weights["body.0.bias"])
    assert not torch.equal(drawn[0], drawn[1]), "each replicate's control has new weights of its own"
    assert not torch.equal(drawn[0], weights["body.0.bias"])
    recipe = usual().replace(pretrained=weights)
    assert same_tensors(recipe.initial(0), weights)
    assert lotto.Job(recipe, 3).initial_state().weights["body.0.bias"].equal(weights["body.0.bias"])
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        lotto.Trainable(Net, fit, init=__file__)


def test_a_control_that_would_begin_as_imp_itself_is_none(store, caplog):
    def seeding_itself():
        torch.manual_seed(3)
        return Net()

    trainable = lotto.Trainable(seeding_itself, fit)
    options = {"densities": [0.5], "rewind_to": "1it", "replicates": 1, "controls": ("reinit", "random")}
    (replicate,) = lotto.imp(trainable, engine=Serial(store), **options).replicates
    assert set(replicate[1].controls) == {"random"}
    assert "'reinit' would be no control and is left out" in caplog.text
    assert "Let the model draw them from torch's generator" in caplog.text
    with pytest.raises(UsageError, match=r"after='reinit' needs new initial weights.*from torch's generator"):
        make_plan(trainable, after="reinit", densities=[0.5])


REFUSED = {
    "does not end": (lambda model, *, start_step, seed: {"error": 1.0}, "took no step"),
    "no error": (
        lambda model, *, start_step, seed: fit(model, start_step=start_step, seed=seed) and None,
        "'error' among",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loop_that_did_not_do_what_it_should_is_one_sentence(name):
    loop, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        lotto.train(lotto.Trainable(Net, loop), store=None)


def test_what_cannot_be_done_is_refused_before_training(store):
    trainable = lotto.Trainable(Net, fit)
    with pytest.raises(UsageError, match="fit is called as fit"):
        lotto.Trainable(Net, lambda model: {"error": 1.0})
    for options, words in (
        ({"adaptive": True, "density": 0.5}, "adaptive pruning is not for a loop of your own"),
        ({"particles": 2}, "particles is not for a loop"),
        ({"rewind_optimizer": True}, "rewind_optimizer is not for a loop"),
        ({"after": "finetune"}, "after='finetune' is not for a loop"),
        ({"rewind_to": "2ep"}, "loops of your own have no epochs"),
    ):
        with pytest.raises(UsageError, match=words):
            lotto.imp(trainable, engine=Serial(store), **{"levels": 1, "replicates": 1, "controls": (), **options})
    weights = trainable.initial(0)
    with pytest.raises(UsageError, match="has its own data and loss"):
        lotto.landscape.barrier(trainable, weights, weights)
    with pytest.raises(UsageError, match="step 100, which is to be kept, never came"):
        lotto.imp(trainable, densities=[0.5], rewind_to="100it", replicates=1, controls=(), engine=Serial(store))


def test_a_change_that_the_loop_would_not_see_is_refused():
    trainable = lotto.Trainable(Net, fit)
    for change, name in (
        ({"optimizer__lr": 1.0}, "optimizer"), ({"steps": "5it"}, "steps"), ({"schedule": lotto.Constant()}, "schedule"),
        ({"loss": "mse"}, "loss"), ({"data": small_arrays()}, "data"), ({"batch_size": 7}, "batch_size"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"{name} of a loop of your own .* would change nothing"):
            trainable.replace(**change)
    changed = trainable.replace(
        name="x", tolerance=1.0, device="cpu", pretrained=trainable.initial(0), exclude="body.2"
    )
    assert lotto.Job(changed).key != lotto.Job(trainable).key


def test_what_it_would_take_is_known_once_one_training_is_stored(store):
    plan = make_plan(lotto.Trainable(Net, fit), densities=[0.5], rewind_to="5it", replicates=2, controls=())
    engine = Serial(store)
    text = "\n".join(forecast_lines(forecast(plan, engine)))
    assert "back to step 5\n" in text
    assert "4 (2 replicates of 2" in text
    assert "not known before one training of this loop is stored" in text
    (run,) = engine.run([lotto.Job(plan.recipe, keep=(5,))])
    found = forecast(plan, engine)
    assert found.seconds == pytest.approx(3 * run.seconds)
    assert "per training, as in 1 stored run" in "\n".join(forecast_lines(found))


def test_weights_or_an_error_that_are_no_numbers_are_a_training_that_diverged(store):
    def diverges(model, *, start_step, seed):
        return {**fit(model, start_step=start_step, seed=seed), "error": float("nan")}

    with pytest.raises(DivergedError, match="error is not finite after the loop"):
        lotto.train(lotto.Trainable(Net, diverges), store=store)


def test_a_second_optimizer_and_a_frozen_layer():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.critic = nn.Linear(4, 8), nn.Linear(8, 1)
            self.fixed = nn.Linear(3, 3)
            self.fixed.weight.requires_grad_(False)

    def loop(model, *, start_step, seed):
        first, second = torch.optim.Adam(model.generator.parameters()), torch.optim.SGD(model.critic.parameters(), 0.1)
        for _ in range(start_step, 10):
            made = model.generator(torch.ones(2, 4))
            second.zero_grad()
            model.critic(made.detach()).sum().backward()
            second.step()
            first.zero_grad()
            (-model.critic(made)).sum().backward()
            first.step()
        return {"error": float(made.detach().abs().mean())}

    result = lotto.imp(lotto.Trainable(Pair, loop), densities=[0.5], rewind_to="2it", replicates=1, controls=(), jobs=1)
    level = result.replicates[0][1]
    assert masks.density(level.mask) == 0.5
    assert "fixed.weight" not in level.mask
    for name, keep in level.mask.items():
        assert not level.run.weights[name][~keep].any()
