"""Training without cut-off units against training with them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import lotto
from conftest import same_tensors
from lotto import SGD, Adam, Job, Mask, Recipe
from lotto.models.bert import Bert
from lotto.pruning import masks
from lotto.recipe.lr_schedules import Linear
from lotto.training import loop
from lotto.training.learners import channel_skipping
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.channel_skipping import ChannelSkipping
from lotto.training.loop import learner_of, train

STEPS = 8


def image_recipe(model, size=8, **changes):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (60, 3, size, size), dtype=np.uint8), generator.integers(0, 4, 60)
    recipe = Recipe(
        model=model, data=lotto.data.Arrays(x[:48], y[:48], x[48:], y[48:]), batch_size=12, steps=f"{STEPS}it",
        optimizer=SGD(0.05, momentum=0.9, weight_decay=0.01), schedule=Linear(), init="kaiming-normal",
        precision="float64", evaluations=1, name="images",
    )  # fmt: skip
    return recipe.replace(**changes)


def cutting(recipe, unread, seed=0):
    """A mask of about half of the weights in which nothing reads these channels: layer -> (their number, places)."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.rand(ones.shape, generator=generator) < 0.5 for name, ones in masks.ones(recipe).items()}
    for name, (count, places) in unread.items():
        made[f"{name}.weight"][:, : count * places] = False
    return Mask(made)


@pytest.fixture
def forgetful(monkeypatch):
    """Running statistics forget within three steps."""
    monkeypatch.setattr(channel_skipping, "FORGOTTEN", 0.8)


def whole(monkeypatch, job):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "LEARNERS", (Autograd,))
        return train(job)


CASES = {
    "resnet": ("resnet-8", {"blocks.0.conv2": (9, 1), "blocks.2.conv2": (60, 1)}),
    "vgg": ("vgg-11", {"features.4": (30, 1), "features.8": (100, 1), "features.15": (256, 1), "features.25": (500, 1)}),
    "conv": ("conv-2", {"conv2": (20, 1), "fc1": (30, 16), "fc2": (100, 1)}),
}  # fmt: skip


OPTIMIZERS = {"sgd": SGD(0.05, momentum=0.9, weight_decay=0.01), "adam": Adam(0.001)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=pytest.mark.extras if name == "vgg" else ())
        for name in CASES
        for kind in OPTIMIZERS
    ],
)
def test_the_outcome_is_that_of_the_whole_network(monkeypatch, forgetful, name, kind):
    model, unread = CASES[name]
    recipe = image_recipe(model, 16 if name == "vgg" else 8, optimizer=OPTIMIZERS[kind])
    job = Job(recipe, mask=cutting(recipe, unread), keep=(4,))
    small, large = train(job), whole(monkeypatch, job)
    assert "of the multiplications" in small.arithmetic
    assert large.arithmetic == "autograd"
    read = {n for n, t in large.weights.items() if "running" not in n}
    assert read
    for step in job.steps:
        for key in read:
            torch.testing.assert_close(small.at(step)[key], large.at(step)[key], rtol=1e-8, atol=1e-10, msg=key)
        for key, tensor in large.state(step).optimizer.items():
            torch.testing.assert_close(small.state(step).optimizer[key], tensor, rtol=1e-8, atol=1e-10, msg=key)
    for key, mask in job.mask.items():
        assert not small.weights[key][~mask].any()
    assert small.test_error == large.test_error
    assert small.history[-1]["train_loss"] == pytest.approx(large.history[-1]["train_loss"], rel=1e-9)


@pytest.mark.extras
def test_running_statistics_are_those_of_the_whole_network_where_a_state_is_kept(monkeypatch):
    recipe = image_recipe(*CASES["resnet"][:1], steps="260it")
    job = Job(recipe, mask=cutting(recipe, CASES["resnet"][1]), keep=(240,))
    learner = learner_of([job])
    assert learner.small.memory == 197  # 0.9 ** 197 < 1e-9
    assert len(learner.small.picks["blocks.0.bn1.running_mean"][0]) == 16 - 9
    small, large = train(job), whole(monkeypatch, job)
    for step in job.steps:
        for name, tensor in large.at(step).items():
            torch.testing.assert_close(small.at(step)[name], tensor, rtol=1e-6, atol=1e-8, msg=name)


def test_in_between_only_what_is_left_is_trained(monkeypatch, forgetful):
    recipe = image_recipe("resnet-8")
    job = Job(recipe, mask=cutting(recipe, CASES["resnet"][1]), keep=(4,))
    learner = learner_of([job])
    used = []
    for step, batch in enumerate(learner.batches(0, STEPS)):
        learner.train_step(batch, step)
        used.append(learner.outputs is learner.dense)
    assert learner.small.memory == 3
    assert used == [False, True, True, True, False, True, True, True]


def test_a_training_too_short_to_forget_is_whole():
    recipe = image_recipe("resnet-8", steps="197it")
    mask = cutting(recipe, CASES["resnet"][1])
    for steps, small in (("197it", False), ("198it", True)):
        longer = recipe.replace(steps=steps)
        learner = learner_of([Job(longer, mask=mask)])
        assert isinstance(learner, ChannelSkipping) == small


def test_what_only_removed_units_read_is_removed_too(forgetful):
    recipe = image_recipe("conv-2")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["fc2.weight"][:, 1:] = False  # of fc1's units one is read,
    mask["fc1.weight"][0, : 10 * 16] = False  # which reads all but ten of conv2's channels
    learner = learner_of([Job(recipe, mask=mask)])
    shapes = {name: tuple(p.shape) for name, p in learner.small.graph.named_parameters()}
    assert shapes["fc1.weight"] == (1, 54 * 16)
    assert shapes["conv2.weight"][:2] == (54, 64)
    assert shapes["fc2.weight"] == (256, 1)


def own_model():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3), torch.nn.Flatten(),
        torch.nn.Linear(8 * 16, 4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("resnet-8", lambda mask: None),
        ("resnet-8", lambda mask: mask["blocks.0.conv2.weight"][:, :1].zero_()),  # not worth it
        ("resnet-8", lambda mask: mask["blocks.1.conv1.weight"].zero_()),  # the shortcut reads its inputs, too
        (own_model, lambda mask: mask["2.weight"][:, :10].zero_()),  # what its forward does is not known
    ],
)
def test_other_networks_are_trained_whole(forgetful, model, change):
    recipe = image_recipe(model)
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    change(mask)
    learner = learner_of([Job(recipe, mask=mask)])
    assert type(learner) is Autograd
    assert learner.describe() == "autograd"


def test_a_layer_keeps_a_unit_whatever_is_left(forgetful):
    recipe = image_recipe("resnet-8")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["blocks.0.conv2.weight"].zero_()
    mask["blocks.0.conv2.weight"][3, 5] = True
    for name in ("blocks.1.conv1", "blocks.1.shortcut.0", "blocks.0.conv1"):
        mask[f"{name}.weight"][:, 3] = False
    assert np.isfinite(train(Job(recipe, mask=mask)).history[-1]["train_loss"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_and_compacted(monkeypatch, forgetful):
    model, unread = CASES["conv"]
    recipe = image_recipe(model)
    mask, compiled = cutting(recipe, unread), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiled(module, backend="eager"))
    run, expected = (train(Job(recipe.replace(compile=c), mask=mask)) for c in (True, False))
    assert run.arithmetic.endswith("of the multiplications, compiled")
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(run.weights[name], tensor, rtol=1e-9, atol=1e-12)


def test_a_resumed_run_ends_in_the_same_bits(forgetful):
    recipe = image_recipe("resnet-8", precision="bfloat16", arithmetic="dense")
    job = Job(recipe, mask=cutting(recipe, CASES["resnet"][1]))
    undisturbed = train(job)
    kept = []
    train(job, on_checkpoint=lambda point: kept.append(copy.deepcopy(point)), checkpoint_seconds=0.0)
    assert len(kept) == STEPS - 1
    for point in kept:
        assert same_tensors(train(job, resume=point).weights, undisturbed.weights)


def test_without_anything_read_a_unit_stays(forgetful):
    recipe = image_recipe("conv-2")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["fc2.weight"].zero_()
    run = train(Job(recipe, mask=mask))
    assert "of the multiplications" in run.arithmetic
    assert np.isfinite(run.history[-1]["train_loss"])


def test_a_network_that_reads_words_trains_whole(monkeypatch):
    """Numbers of words are no inputs that layers take: its channels are not followed, and nothing is refused."""
    small = {"vocabulary": 30, "positions": 6, "width": 8, "layers": 1, "heads": 2, "hidden": 12}
    monkeypatch.setattr("lotto.models.Bert", lambda classes, reads=None: Bert(classes, **small))
    rng = np.random.default_rng(0)
    ids, classes = rng.integers(1, 30, (40, 6)), rng.integers(0, 2, 40)
    data = lotto.data.Arrays(ids[:30], classes[:30], ids[30:], classes[30:])
    recipe = lotto.Recipe("minilm-l6", data, lotto.SGD(0.1), init="module", batch_size=10, steps="3it")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    name = next(n for n in mask if n.endswith("intermediate.dense.weight"))
    mask[name][:, 3] = False  # an input that no unit reads
    run = train(Job(recipe, mask=mask))
    assert not run.weights[name][:, 3].any()
