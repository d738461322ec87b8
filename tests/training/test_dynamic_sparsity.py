"""A mask that changes along a training: exact counts, zeros, the same bits after a stop, keys, and what is refused."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_channel_skipping import CASES, cutting, image_recipe
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import SGD, Adam, AdamW, DynamicSparsity, Job, RMSprop, State, Store
from lotto.core.errors import DivergedError, UsageError
from lotto.core.ranks import Ranks
from lotto.core.rng import stream
from lotto.execution.admin import survey, words
from lotto.execution.compute import get_or_compute
from lotto.pruning import masks
from lotto.training.loop import train, train_stack

SET, RIGL = DynamicSparsity("set", every=5), DynamicSparsity("rigl", every=5)
GRADUAL = DynamicSparsity("gradual", every=5, density=0.1)
KINDS = pytest.mark.parametrize("sparsity", [SET, RIGL, GRADUAL], ids=lambda s: s.kind)


class Normed(nn.Module):
    """Convolutions with BatchNorm, in a class that no kernel knows."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Linear(48, 6)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x.unsqueeze(1))).relu().flatten(1))


class Dropping(nn.Module):
    """Dropout draws in every step."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6))

    def forward(self, x):
        return self.layers(x)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 6)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())


NETWORKS = {
    "perceptron": {},
    "autograd": {"model": Normed, "init": "module", "optimizer": AdamW(1e-2, weight_decay=0.1)},
    "dropout": {"model": Dropping, "init": "module"},
    "tied": {"model": Tied, "init": "module"},
    "average": {"ema": 0.9},
    "groups": {"model": Normed, "init": "module", "batch_groups": 2},
    "accumulated": {"accumulate": 2, "batch_size": 10},
    "convolutions": {"model": "resnet-8-w4"},
}


def sparse_mask(recipe, density=0.2):
    return lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), density=density, allocation="erk")


def job_of(recipe, sparsity, **more):
    given = {} if sparsity.kind == "gradual" else {"mask": sparse_mask(recipe)}
    return Job(recipe, sparsity=sparsity, **{**given, **more})


def recipe_of(name):
    return small_recipe(**NETWORKS[name])


def kept(mask):
    return {name: int(keep.sum()) for name, keep in mask.items()}


@KINDS
@pytest.mark.parametrize("network", [n for n in NETWORKS if n != "convolutions"])
def test_counts_are_exact_and_what_is_pruned_is_zero_after_every_step(sparsity, network):
    recipe = recipe_of(network)
    run = train(job_of(recipe, sparsity, keep=tuple(range(41))))
    masks_of = [run.mask_at(step) for step in range(41)]
    updates = sparsity.updates(recipe)
    size = masks.size(masks_of[0])
    for step in range(41):
        state, mask = run.state(step), masks_of[step]
        full = masks.cover_shared(mask, recipe.meta_model())
        for name, keep in full.items():
            assert (state.weights[name][~keep] == 0).all()
            for quantity, tensor in state.optimizer.items():
                if quantity.startswith(f"{name}/") and tensor.shape == keep.shape and "explored" not in quantity:
                    assert (tensor[~keep] == 0).all(), (step, quantity)
        if step and step - 1 not in updates.steps:
            assert same_tensors(mask, masks_of[step - 1])
        if sparsity.exchanges:
            assert kept(mask) == kept(masks_of[0])
        elif step:
            before = [s for s in updates.steps if s < step]
            density = sparsity.density_at(updates.progress(before[-1])) if before else 1.0
            assert masks.count(mask) == round(density * size)
            assert all(not bool((mask[n] & ~masks_of[step - 1][n]).any()) for n in mask)
    changed = {s for s in range(40) if not same_tensors(masks_of[s], masks_of[s + 1])}
    assert changed <= set(updates.steps)
    assert len(changed) == len(updates.steps) or not sparsity.exchanges  # small steps may round to the same count
    ever = {n: torch.stack([m[n] for m in masks_of]).any(0) for n in masks_of[0]}
    assert run.history[-1]["explored"] == masks.density(ever)
    assert run.history[-1]["density"] == masks.density(run.mask)


@KINDS
@pytest.mark.parametrize("network", NETWORKS)
def test_stopped_anywhere_and_continued_ends_in_the_same_bits(sparsity, network):
    recipe = recipe_of(network).replace(steps="20it")
    sparsity = replace(sparsity, every=3)
    points = []
    job = job_of(recipe, sparsity, keep=(7,))
    whole = train(job, on_checkpoint=lambda p: points.append(replace(p, kept=dict(p.kept), history=[*p.history])),
                  checkpoint_seconds=0)  # fmt: skip
    assert len(points) > 10
    for point in points[::4]:
        again = train(job, resume=replace(point, kept=dict(point.kept), history=[*point.history]))
        assert same_tensors(again.weights, whole.weights)
        assert same_tensors(again.mask, whole.mask)
        assert same_tensors(again.state(7).optimizer, whole.state(7).optimizer)
        assert again.history == whole.history


@KINDS
def test_a_fork_goes_on_as_the_training_did_also_where_the_mask_changes(sparsity):
    recipe = small_recipe(optimizer=Adam(1e-2))
    whole = train(job_of(recipe, sparsity, keep=(9, 10, 11)))
    for step in (9, 10, 11):
        fork = train(Job(recipe, start=whole.state(step), from_step=step, sparsity=sparsity))
        assert same_tensors(fork.weights, whole.weights)
        assert same_tensors(fork.mask, whole.mask)
        assert fork.history[-1]["explored"] == whole.history[-1]["explored"]
    # Held still from there it is a training of the weights alone.
    still = Job(recipe, start=whole.state(11), mask=whole.mask_at(11), from_step=11)
    assert same_tensors(still.initial_state().optimizer, {
        n: t for n, t in whole.state(11).optimizer.items() if not n.endswith(("/mask", "/explored"))
    })  # fmt: skip
    assert train(still).mask is None


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, weight_decay=1e-2), RMSprop(1e-3, momentum=0.9)])
def test_what_grows_begins_at_zero_without_memory(optimizer, monkeypatch):
    from lotto.training import loop

    seen = []
    original = loop.at_step

    def watched(job, state, step, network):
        found = original(job, state, step, network)
        seen.append((step, state, found))
        return found

    monkeypatch.setattr(loop, "at_step", watched)
    train(job_of(small_recipe(optimizer=optimizer), RIGL))
    assert [step for step, *_ in seen] == [0, 5, 10, 15, 20, 25]
    for _, before, (job, after) in seen[1:]:
        for name, keep in job.mask.items():
            grown = keep & (before.weights[name] == 0)
            assert grown.any()
            for quantity, tensor in after.optimizer.items():
                if quantity.startswith(f"{name}/") and tensor.shape == keep.shape and tensor.is_floating_point():
                    assert (tensor[grown] == 0).all()
                    assert (tensor[~keep] == 0).all()
            assert (after.weights[name][grown] == 0).all()
            stays = keep & ~grown
            assert torch.equal(after.weights[name][stays], before.weights[name][stays])


def gradients_by_hand(w, x, y):
    leaves = {n: t.clone().requires_grad_() for n, t in w.items()}
    h = x.double()
    for layer in ("fc1", "fc2", "fc3"):
        h = h @ leaves[f"{layer}.weight"].T + leaves[f"{layer}.bias"]
        h = h * (h > 0) if layer != "fc3" else h
    loss = -(h.log_softmax(1)[torch.arange(len(y)), y]).mean()
    return dict(zip(w, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize("kind", ["set", "rigl"])
def test_against_a_slow_obvious_loop_in_float64(kind):
    recipe = small_recipe(precision="float64", steps="15it", optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-3))
    start = sparse_mask(recipe, 0.3)
    sparsity = DynamicSparsity(kind, every=3, stop=12, fraction=0.4)
    run = train(Job(recipe, init_seed=3, order_seed=4, mask=start, sparsity=sparsity))

    mask = {n: m.numpy().copy() for n, m in start.items()}
    w = {n: t.double() for n, t in masks.apply(recipe.initial(3), start).items()}
    velocity = {n: torch.zeros_like(t) for n, t in w.items()}
    for step, (x, y) in enumerate(recipe.arrays.batches(4, 0, 15, 20)):
        gradients = gradients_by_hand(w, x, y)
        if step in (3, 6, 9):
            for name in mask:
                flat, keep = w[name].flatten().numpy(), mask[name].reshape(-1)
                on, off = ([i for i, k in enumerate(keep) if k is wanted] for wanted in (np.True_, np.False_))
                number = min(round(0.2 * (1 + math.cos(math.pi * step / 12)) * len(on)), len(off))
                if kind == "rigl":
                    score = gradients[name].flatten().abs().tolist()
                else:
                    score = stream(4, f"grow:{name.removesuffix('.weight')}", step).permutation(len(keep)).tolist()
                for i in sorted(on, key=lambda i: (abs(flat[i]), -i))[:number]:
                    keep[i], flat[i] = False, 0.0
                    velocity[name].flatten()[i] = 0.0
                for i in sorted(off, key=lambda i: (-score[i], i))[:number]:
                    keep[i] = True
            # A dropped weight has no part in this step's gradients.
            gradients = gradients_by_hand(w, x, y)
        rate = 0.1 * (1 - step / 15)
        for name, g in gradients.items():
            g = g * torch.from_numpy(mask[name]) if name in mask else g
            velocity[name] = 0.9 * velocity[name] + (g + 1e-3 * w[name])
            w[name] = w[name] - rate * velocity[name]
    for name, keep in run.mask.items():
        assert np.array_equal(keep.numpy(), mask[name]), name
    for name in w:
        assert torch.allclose(run.weights[name].double(), w[name], atol=1e-10), name


def test_keys_of_trainings_whose_mask_holds_still_are_what_they_were(recipe):
    half = lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), rate=0.5)
    at_5 = State(recipe.initial(3), {"fc1.weight/momentum_buffer": recipe.initial(4)["fc1.weight"]})
    keys = [Job(recipe).key, Job(recipe, mask=half).key, Job(recipe, 1, 2, start=at_5, mask=half, from_step=5).key]
    assert keys == [
        "8cfdccc69b772c73b6eca84060af5a0c",
        "059102f6bd4aea032cc146177cd6c92f",
        "a0b19c08e6e8f6d60277dcaab7878387",
    ]


def test_equal_keys_are_equal_trainings(recipe):
    keys = [
        job_of(recipe, sparsity).key
        for sparsity in (SET, RIGL, GRADUAL, DynamicSparsity("rigl", every=5, fraction=0.2),
                         DynamicSparsity("rigl", every=5, decay="constant"), DynamicSparsity("rigl", every=5, stop=20),
                         DynamicSparsity("rigl", every=4), DynamicSparsity("rigl", every=5, begin=2))
    ]  # fmt: skip
    keys.append(Job(recipe, mask=sparse_mask(recipe)).key)
    assert len(set(keys)) == len(keys)
    # The same steps in other words.
    assert job_of(recipe, DynamicSparsity("rigl", every="5it", stop="30it")).key == job_of(recipe, RIGL).key
    # A whole mask is what gradual pruning begins with.
    assert Job(recipe, mask=masks.ones(recipe), sparsity=GRADUAL).key == Job(recipe, sparsity=GRADUAL).key
    state = job_of(recipe, RIGL).initial_state()
    assert Job(recipe, start=state, sparsity=RIGL).key == job_of(recipe, RIGL).key
    # The mask of the state is the one that counts.
    assert Job(recipe, start=state, mask=masks.ones(recipe), sparsity=RIGL).key == job_of(recipe, RIGL).key


@KINDS
def test_a_store_has_the_masks_and_adds_states_from_the_nearest_one_before(sparsity, store, recipe):
    job = job_of(recipe, sparsity, keep=(8,))
    first, computed = get_or_compute(store, job)
    assert [f", masked by {sparsity.kind}, steps 0 to 40" in words(entry) for entry in survey(store)] == [True]
    again, anew = get_or_compute(store, job)
    assert (computed, anew) == (True, False)
    plain = train(replace(job, keep=(8, 10, 17)))
    assert same_tensors(again.mask, plain.mask)
    assert same_tensors(again.mask_at(8), plain.mask_at(8))
    more, _ = get_or_compute(store, replace(job, keep=(8, 10, 17)))
    for step in (8, 10, 17):
        assert same_tensors(more.state(step).optimizer, plain.state(step).optimizer)
        assert same_tensors(more.at(step), plain.at(step))
    assert first.history == plain.history


KILLED = """
import os
from conftest import small_recipe
from lotto import Store
from lotto.execution.compute import get_or_compute
from test_dynamic_sparsity import DynamicSparsity, job_of
import torch
torch.set_num_threads(1)
job = job_of(small_recipe(steps="2000it"), DynamicSparsity("rigl", every=150), keep=(700,))
resumed = []
get_or_compute(Store(os.environ["STORE"]), job, on_step=lambda step, loss: resumed.append(step), checkpoint_seconds=0.02)
print(resumed[0], flush=True)
"""


@pytest.mark.extras
def test_killed_and_started_again_it_ends_in_the_same_bits(tmp_path):
    job = job_of(small_recipe(steps="2000it"), DynamicSparsity("rigl", every=150), keep=(700,))
    store = Store(tmp_path / "s")
    checkpoint = store.folder(job.key) / "checkpoint.safetensors"
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1], *sys.path)))
    environment = {**os.environ, "STORE": str(store.root), "PYTHONPATH": paths}
    process = subprocess.Popen([sys.executable, "-c", KILLED], env=environment)
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert store.lookup(job) is None
    resumed = []
    run, _ = get_or_compute(store, job, on_step=lambda step, loss: resumed.append(step))
    assert resumed[0] > 50, "it went on from its checkpoint"
    whole = train(job)
    assert same_tensors(run.weights, whole.weights)
    assert same_tensors(run.mask, whole.mask)
    assert same_tensors(run.state(700).optimizer, whole.state(700).optimizer)
    assert run.history == whole.history


def test_kernels_and_autograd_train_alike_and_change_the_same_weights(monkeypatch):
    from lotto.training import loop
    from lotto.training.learners.autograd import Autograd

    recipe = recipe_of("convolutions").replace(steps="12it")
    job = job_of(recipe, DynamicSparsity("set", every=2, decay="constant"))
    kernels = train(job)
    assert kernels.arithmetic.startswith("convolutions")
    monkeypatch.setattr(loop, "LEARNERS", (Autograd,))
    slow = train(job)
    assert slow.arithmetic.startswith("autograd")
    assert same_tensors(kernels.mask, slow.mask)
    for name, weight in slow.weights.items():
        assert torch.allclose(kernels.weights[name], weight, rtol=1e-3, atol=1e-4), name


def test_channels_that_nothing_reads_are_not_skipped_where_they_may_grow_again():
    model, unread = CASES["conv"]
    recipe = image_recipe(model)
    mask = cutting(recipe, unread)
    assert "of the multiplications" in train(Job(recipe, mask=mask)).arithmetic
    run = train(Job(recipe, mask=mask, sparsity=DynamicSparsity("set", every=2)))
    assert run.arithmetic.startswith("autograd")
    assert "of the multiplications" not in run.arithmetic


def test_in_a_stack_each_has_its_own_mask_that_changes(recipe):
    jobs = [job_of(recipe, SET), job_of(recipe, RIGL, order_seed=1), job_of(recipe, GRADUAL), Job(recipe)]
    runs = train_stack(jobs)
    for run, job in zip(runs, jobs, strict=True):
        single = train(job)
        assert (run.mask is None) == (job.sparsity is None)
        if run.mask is not None:
            assert kept(run.mask).keys() == kept(single.mask).keys()
            assert masks.count(run.mask) == masks.count(single.mask)
            assert all((run.weights[n][~keep] == 0).all() for n, keep in run.mask.items())
    assert same_tensors(runs[0].mask_at(40), runs[0].mask)


class Rows(lotto.recipe.optimizers.Optimizer):
    """Remembers one number for each row."""

    def init_state(self, parameter):
        return {"row": torch.zeros(parameter.shape[0])}

    def update(self, parameters, gradients, states, lr):
        for weight, gradient in zip(parameters, gradients, strict=True):
            weight.sub_(lr * gradient)


class Frozen(Normed):
    """Its convolution is not trained."""

    def __init__(self):
        super().__init__()
        self.conv.weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": Rows(0.1)}, "remembers 'row' of shape"),
        ({"compile": True}, "without compile"),
        ({"weights": "best", "validation": 40}, "weights='best'"),
        ({"model": Frozen, "init": "module"}, "is frozen"),
    ],
)
def test_recipes_whose_mask_cannot_change_are_refused(changes, said):
    recipe = small_recipe(**changes)
    frozen = {"conv.weight": torch.zeros(4, 1, 3, dtype=torch.bool)}
    mask = frozen if "model" in changes else sparse_mask(small_recipe())
    with pytest.raises(UsageError, match=said):
        Job(recipe, mask=mask, sparsity=RIGL)


def test_own_loops_are_refused():
    trainable = lotto.Trainable(lambda: nn.Linear(4, 2), lambda model, *, start_step, seed: {"error": 0.0})
    with pytest.raises(UsageError, match="loop of your own"):
        Job(trainable, mask={"weight": torch.zeros(2, 4, dtype=torch.bool)}, sparsity=SET)


def test_several_ranks_are_refused(recipe):
    class Two(Ranks):
        size = 2

        def __init__(self):
            pass

    with pytest.raises(UsageError, match="has 2 ranks"):
        train(job_of(recipe, SET), ranks=Two())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "seth"}, "set"),
        ({"kind": "set", "fraction": 1.0}, "fraction"),
        ({"kind": "set", "fraction": 0}, "fraction"),
        ({"kind": "set", "density": 0.1}, "has no density"),
        ({"kind": "gradual"}, "needs the density"),
        ({"kind": "gradual", "density": 0.1, "fraction": 0.5}, "has no fraction"),
        ({"kind": "gradual", "density": 0.5, "initial_density": 0.4}, "falls from initial_density"),
    ],
)
def test_settings_that_nobody_can_mean_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        DynamicSparsity(**given)


@pytest.mark.parametrize(
    ("sparsity", "said"),
    [
        (DynamicSparsity("set", every=5, stop="41it"), "not before the end"),
        (DynamicSparsity("set", every=5, stop="200%"), "not before the end"),
        (DynamicSparsity("gradual", every=5, stop="100%", density=0.1), "not before the end"),
        (DynamicSparsity("set", every=50), "No update lies between"),
        (DynamicSparsity("set", every=0), "1 iteration or more"),
        (DynamicSparsity("set", every="often"), "A step is text"),
    ],
)
def test_steps_beyond_the_training_are_refused(sparsity, said, recipe):
    with pytest.raises(UsageError, match=said):
        job_of(recipe, sparsity)


def test_set_and_rigl_need_a_mask_that_prunes(recipe):
    with pytest.raises(UsageError, match="give it one"):
        Job(recipe, sparsity=SET)
    with pytest.raises(UsageError, match="nothing to exchange"):
        Job(recipe, mask=masks.ones(recipe), sparsity=RIGL)
    with pytest.raises(UsageError, match="sparsity is"):
        Job(recipe, sparsity="rigl")
    tied = small_recipe(model=Tied, init="module")
    both = {name: torch.eye(12, dtype=torch.bool) for name in ("first.weight", "second.weight")}
    with pytest.raises(UsageError, match="one tensor"):
        Job(tied, mask=both, sparsity=SET)


def test_a_gradient_that_is_no_number_is_a_divergence(recipe):
    def loss(outputs, y):
        return (outputs * 1e30).square().sum() * 0 + nn.functional.cross_entropy(outputs, y)

    with pytest.raises(DivergedError):
        train(job_of(small_recipe(loss=loss, optimizer=SGD(1e4)), RIGL))


def test_train_takes_it_by_keyword(recipe):
    run = lotto.train(recipe, mask=sparse_mask(recipe), sparsity=RIGL)
    assert kept(run.mask) == kept(sparse_mask(recipe))
    assert not same_tensors(run.mask, sparse_mask(recipe))
    assert lotto.train(recipe).mask is None
