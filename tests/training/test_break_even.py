"""What computes a convolutional network: what is quicker here, measured once."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

import lotto
from conftest import same_tensors, small_recipe
from lotto import SGD, Job, Store
from lotto.core.errors import UsageError
from lotto.execution.arithmetic import crossovers_from
from lotto.execution.compute import get_or_compute
from lotto.models import resnet
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training.checkpoint import Checkpoint
from lotto.training.learners import arithmetic, break_even, vector_blocks
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.break_even import Costs, costs_of, measured
from lotto.training.learners.channel_skipping import ChannelSkipping
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.descriptions import layers_of
from lotto.training.learners.own_networks import own_description
from lotto.training.learners.perceptron import Perceptron
from lotto.training.loop import learner_of, train

QUICK = Costs(torch=10.0, dense=4.0, none=1.0, all=11.0)


def images(**changes):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 3, 8, 6)).astype(np.float32), np.arange(60) % 4
    data = lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:])
    base = lotto.Recipe("resnet-8-w4", data, SGD(0.05, momentum=0.9), batch_size=10, steps="6it", device="cpu")
    return base.replace(**changes)


def job_of(density, recipe=None, **how):
    recipe = recipe or images()
    mask = None if density == 1 else prune(recipe.initial(0), masks.ones(recipe), rate=1 - density)
    return Job(recipe, mask=mask, **how)


@pytest.fixture
def costs(monkeypatch):
    """Of every layer; to be changed."""
    given = {"all": QUICK}
    monkeypatch.setattr(arithmetic, "costs_of", lambda layers, batch, half: dict.fromkeys(layers, given["all"]))
    return given


def test_costs_are_a_line_up_to_the_crossover():
    assert QUICK.crossover == pytest.approx(0.3)
    assert [QUICK.by_kernels(d) for d in (0.0, 0.1, 0.3, 1.0)] == pytest.approx([1.0, 2.0, 4.0, 4.0])
    assert QUICK._replace(dense=0.5).crossover == 0
    assert QUICK._replace(dense=100.0).crossover == 1
    assert QUICK._replace(all=1.0).crossover == 1


def test_layers_are_lists_below_their_crossover(costs):
    job = job_of(0.3)
    sparse = sum(float(m.float().mean()) < 0.3 for m in job.mask.values() if m.dim() == 4)
    assert 0 < sparse < 9
    assert learner_of([job]).describe() == f"convolutions, {sparse} of 10 layers sparse"
    costs["all"] = QUICK._replace(all=1.0)
    assert learner_of([job]).describe() == "convolutions, 9 of 10 layers sparse"


def test_dense_layers_compute_where_they_are_quicker(costs):
    costs["all"] = QUICK._replace(torch=3.0)
    assert type(learner_of([job_of(1.0)])) is Autograd
    assert type(learner_of([job_of(0.02)])) is Convolutions
    costs["all"] = QUICK._replace(torch=0.5)
    assert type(learner_of([job_of(0.02)])) is Autograd


def test_layers_without_cut_channels_compute_where_they_are_quicker(costs):
    recipe = images(model="conv-2", steps="300it")
    mask = masks.ones(recipe)
    mask["conv2.weight"][:, :48] = False
    costs["all"] = QUICK._replace(torch=40.0)
    assert type(learner_of([Job(recipe, mask=mask)])) is Convolutions
    costs["all"] = QUICK._replace(torch=5.0)
    assert type(learner_of([Job(recipe, mask=mask)])) is ChannelSkipping
    mask["conv2.weight"][0] = True
    assert type(learner_of([Job(recipe, mask=mask)])) is Convolutions


def test_the_recipe_chooses(costs):
    costs["all"] = QUICK._replace(torch=0.5)
    assert type(learner_of([job_of(1.0, images(arithmetic="sparse"))])) is Convolutions
    costs["all"] = QUICK
    assert type(learner_of([job_of(0.02, images(arithmetic="dense"))])) is Autograd
    few = job_of(0.02, small_recipe(arithmetic="dense"))
    assert learner_of([few]).describe() == "perceptron, 0 of 3 layers sparse"
    assert isinstance(learner_of([job_of(0.02, small_recipe())]), Perceptron)
    with pytest.raises(UsageError, match="arithmetic"):
        images(arithmetic="fast")


def test_the_choice_has_no_part_in_the_key():
    assert all(images(arithmetic=how).fingerprint() == images().fingerprint() for how in ("dense", "sparse"))
    assert Job(images(arithmetic="dense")).key == Job(images()).key


def test_both_arithmetics_train_alike(costs):
    dense, sparse = (train(job_of(0.3, images(arithmetic=how))) for how in ("dense", "auto"))
    assert (dense.arithmetic, sparse.arithmetic.split(",")[0]) == ("autograd", "convolutions")
    assert sparse.test_loss == pytest.approx(dense.test_loss, rel=1e-3)


def test_a_training_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic, "costs_of", lambda layers, batch, half: costs_of(layers, batch, tmp_path, half))
    job, points = job_of(0.3, keep=(3,)), []
    whole = train(job)
    assert train(job, on_checkpoint=lambda p: points.append(copy.copy(p)), checkpoint_seconds=0.0).arithmetic
    assert same_tensors(train(job, resume=points[2]).weights, whole.weights)
    fork = train(Job(job.recipe, mask=job.mask, start=whole.state(3), from_step=3))
    assert same_tensors(fork.weights, whole.weights)


SLOW = QUICK._replace(dense=12.0, none=12.0, all=20.0)
"""Costs of kernels that are slower than torch."""
LISTS = QUICK._replace(dense=100.0)
"""Of lists of weights that are always quicker than dense kernels."""


@pytest.mark.parametrize(("before", "later"), [(QUICK, SLOW), (SLOW, QUICK), (QUICK, LISTS)])
def test_a_training_goes_on_as_it_began_where_other_layers_are_quicker(costs, tmp_path, before, later):
    costs["all"], store = before, Store(tmp_path)
    job, points = job_of(0.4), []
    whole = train(job, on_checkpoint=lambda p: points.append(copy.copy(p)), checkpoint_seconds=0.0)
    store.prepare(job.key)
    store.write_checkpoint(job, points[2])

    costs["all"] = later
    assert store.read_checkpoint(job).crossovers == whole.crossovers
    run, computed = get_or_compute(store, job)
    assert computed
    assert run.crossovers == whole.crossovers
    assert same_tensors(run.weights, whole.weights)
    anew = train(job)
    assert anew.crossovers != whole.crossovers
    assert same_tensors(anew.weights, whole.weights) == (later is LISTS)  # small layers' sums are in one order


@pytest.mark.parametrize(("before", "later"), [(QUICK, SLOW), (SLOW, QUICK), (QUICK, LISTS)])
def test_states_that_a_run_lacks_are_those_it_would_have_kept(costs, tmp_path, before, later):
    costs["all"], store = before, Store(tmp_path)
    job = job_of(0.4)
    whole = train(job_of(0.4, keep=(3, 5)))
    get_or_compute(store, job_of(0.4, keep=(3,)))

    costs["all"] = later
    run, _ = get_or_compute(store, job_of(0.4, keep=(3, 5)))
    assert same_tensors(run.at(5), whole.at(5))
    assert same_tensors(get_or_compute(Store(tmp_path), job)[0].weights, whole.weights)
    assert Store(tmp_path).run(job).crossovers == whole.crossovers


def test_what_was_chosen_by_hand_is_that(costs):
    point = Checkpoint(0, job_of(0.4).initial_state(), crossovers=False)
    assert train(job_of(0.4, images(arithmetic="sparse")), resume=point).arithmetic.startswith("convolutions")
    point = Checkpoint(0, job_of(0.4).initial_state(), crossovers={})
    assert train(job_of(0.4, images(arithmetic="dense")), resume=point).arithmetic == "autograd"


@pytest.mark.parametrize("said", [True, ["conv"], {"conv": "0.3"}])
def test_a_choice_that_is_none_is_damage(said):
    with pytest.raises(ValueError, match="densities by layer"):
        crossovers_from(said)


def small_layers():
    module = resnet.ResNet(8, 3, 4, width=4)
    return layers_of(module, own_description(module), (3, 8, 6))


def test_costs_are_measured_once(tmp_path, monkeypatch):
    layers = small_layers()
    found = costs_of(layers, 10, tmp_path)
    assert list(found) == list(layers)
    assert all(cost.torch > 0 < cost.dense and 0 <= cost.none <= cost.all for cost in found.values())
    assert found["blocks.0.conv1"] == found["blocks.0.conv2"], "the same layer is measured once"
    monkeypatch.setattr(break_even, "measured", None)
    assert costs_of(layers, 10, tmp_path) == found
    with pytest.raises(TypeError):
        costs_of(layers, 11, tmp_path)
    torch.set_num_threads(2)
    with pytest.raises(TypeError):
        costs_of(layers, 10, tmp_path)


def test_what_is_kept_and_cannot_be_read_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(break_even, "measured", lambda layer, batch, half: QUICK)
    layers = small_layers()
    costs_of(layers, 10, tmp_path)
    (path,) = tmp_path.glob("*.json")
    for text in ("{", "[1]"):
        path.write_text(text)
        assert costs_of(layers, 10, tmp_path)["conv"] == QUICK
        assert len(json.loads(path.read_text())) == len(set(layers.values()))


def test_where_nothing_can_be_kept_a_rule_decides(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert costs_of(small_layers(), 10, tmp_path / "file") is None
    monkeypatch.setattr(arithmetic, "costs_of", lambda layers, batch, half: None)
    monkeypatch.setattr(vector_blocks, "WIDE", True)
    assert type(learner_of([job_of(1.0)])) is Convolutions
    monkeypatch.setattr(vector_blocks, "WIDE", False)
    assert type(learner_of([job_of(1.0)])) is Autograd


def test_measuring_draws_no_random_numbers():
    layers, before = small_layers(), torch.get_rng_state()
    assert measured(layers["blocks.1.conv1"], 8).torch > 0
    assert measured(layers["conv"]._replace(norm=False), 8).dense > 0
    assert torch.equal(before, torch.get_rng_state())
