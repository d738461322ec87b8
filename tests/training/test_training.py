"""The invariants of training: sparse always, true rewind, fork = continuation, resume = no interruption."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import SGD, Adam, AdamW, Constant, Job, Linear, Mask, RMSprop, State
from lotto.core.errors import DivergedError, UsageError
from lotto.data import Augment
from lotto.pruning import masks
from lotto.training import loop
from lotto.training.evaluation import evaluate
from lotto.training.loop import Checkpoint, train

OPTIMIZERS = [
    SGD(0.1, momentum=0.9, weight_decay=1e-2),
    SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    SGD(0.1),
    Adam(1e-2, weight_decay=1e-2),
    AdamW(1e-2, weight_decay=0.1),
    RMSprop(1e-3, momentum=0.9, weight_decay=1e-2),
]


def half_mask(recipe, seed=0) -> Mask:
    return lotto.pruning.prune(recipe.initial(seed), masks.ones(recipe), rate=0.5)


class Normed(nn.Module):
    """A small network with BatchNorm and convolutions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm1d(4)
        self.fc = nn.Linear(48, 6)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x.unsqueeze(1))).relu().flatten(1))


def test_against_a_slow_obvious_loop_in_float64():
    data = small_arrays()
    recipe = small_recipe(precision="float64", steps="15it", optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-3))
    mask = half_mask(recipe)
    run = train(Job(recipe, init_seed=3, order_seed=4, mask=mask))

    w = {n: t.double() for n, t in masks.apply(recipe.initial(3), mask).items()}
    velocity = {n: torch.zeros_like(t) for n, t in w.items()}
    batches = data.batches(4, 0, 15, 20)
    for step, (x, y) in enumerate(batches):
        leaves = {n: t.clone().requires_grad_() for n, t in w.items()}
        h = x.double()
        for layer in ("fc1", "fc2", "fc3"):
            h = h @ leaves[f"{layer}.weight"].T + leaves[f"{layer}.bias"]
            h = h * (h > 0) if layer != "fc3" else h
        loss = -(h.log_softmax(1)[torch.arange(len(y)), y]).mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        rate = 0.1 * (1 - step / 15)
        for name, g in zip(w, gradients, strict=True):
            if name in mask:
                g = g * mask[name]
            velocity[name] = 0.9 * velocity[name] + (g + 1e-3 * w[name])
            w[name] = w[name] - rate * velocity[name]
    for name in w:
        assert torch.allclose(run.weights[name].double(), w[name], atol=1e-10), name

    wrong = sum(
        float(np.argmax(_forward(w, x), 0) != y)
        for x, y in zip(data.x["test"].numpy(), data.y["test"].numpy(), strict=True)
    )
    assert run.test_error == pytest.approx(100 * wrong / 80)


def _forward(w, x):
    h = x.astype(np.float64)
    for layer in ("fc1", "fc2", "fc3"):
        h = w[f"{layer}.weight"].numpy() @ h + w[f"{layer}.bias"].numpy()
        h = np.maximum(h, 0) if layer != "fc3" else h
    return h


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__}-{vars(o).get('nesterov', '')}")
def test_pruned_weights_and_their_buffers_are_zero_after_every_step(optimizer):
    recipe = small_recipe(optimizer=optimizer, steps="8it")
    mask = half_mask(recipe)
    run = train(Job(recipe, mask=mask, keep=tuple(range(9))))
    for step in range(9):
        state = run.state(step)
        for name, keep in mask.items():
            assert (state.weights[name][~keep] == 0).all()
            for quantity, tensor in state.optimizer.items():
                if quantity.startswith(f"{name}/") and tensor.shape == keep.shape:
                    assert (tensor[~keep] == 0).all(), quantity
    moved = run.weights["fc1.weight"][mask["fc1.weight"]] - run.at(0)["fc1.weight"][mask["fc1.weight"]]
    assert (moved != 0).any()
    if not isinstance(optimizer, SGD) or optimizer.momentum:
        assert any(q.startswith("fc1.weight/") for q in run.state(4).optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__}-{vars(o).get('nesterov', '')}")
def test_fork_equals_continuation_to_the_bit(optimizer):
    recipe = small_recipe(model=Normed, init="module", optimizer=optimizer, steps="30it")
    mask = half_mask(recipe)
    whole = train(Job(recipe, mask=mask, keep=(13,)))
    fork = train(Job(recipe, start=whole.state(13), mask=mask, from_step=13))
    assert same_tensors(fork.weights, whole.weights)
    assert fork.test_error == whole.test_error
    # Without the optimizer's state it is another training (unless there is none).
    restarted = train(Job(recipe, start=whole.state(13).without_optimizer, mask=mask, from_step=13))
    has_state = not (isinstance(optimizer, SGD) and optimizer.momentum == 0)
    assert same_tensors(restarted.weights, whole.weights) != has_state


def test_another_data_order_gives_another_network():
    a, b = (train(Job(small_recipe(), order_seed=s)) for s in (0, 1))
    assert not same_tensors(a.weights, b.weights)
    assert same_tensors(a.weights, train(Job(small_recipe(), order_seed=0)).weights)


def test_true_rewind_starts_from_the_masked_weights_with_buffers_schedule_and_data_position(monkeypatch):
    recipe = small_recipe(model=Normed, init="module", steps="24it")
    dense = train(Job(recipe, keep=(10,)))
    mask = half_mask(recipe)
    rates, steps = [], []
    original = type(recipe).learning_rate
    monkeypatch.setattr(type(recipe), "learning_rate", lambda r, s: rates.append(s) or original(r, s))
    job = Job(recipe, start=dense.state(10).without_optimizer, mask=mask, from_step=10, keep=(10,))
    run = train(job, on_step=lambda step, loss: steps.append(step))
    for name, tensor in dense.at(10).items():
        expected = torch.where(mask[name], tensor, 0.0) if name in mask else tensor
        assert torch.equal(run.at(10)[name], expected), name
    assert "bn.running_mean" in run.at(10)
    assert rates[0] == 10
    assert steps[-1] == 24
    assert run.steps == (10, 24)


def test_resume_from_any_checkpoint_ends_in_the_same_bits():
    recipe = small_recipe(model=Normed, init="module", optimizer=Adam(1e-2), steps="20it", evaluations=5)
    job = Job(recipe, mask=half_mask(recipe), keep=(3,))
    whole = train(job)
    points: list[Checkpoint] = []

    def remember(point: Checkpoint) -> None:
        points.append(
            Checkpoint(
                point.step,
                point.state,
                dict(point.kept),
                [dict(r) for r in point.history],
                point.loss_sum,
                point.loss_count,
            )
        )

    train(job, on_checkpoint=remember, checkpoint_seconds=0.0)
    assert len(points) == 19
    for point in points[::3]:
        again = train(job, resume=point)
        assert same_tensors(again.weights, whole.weights)
        assert same_tensors(again.at(3), whole.at(3))
        assert again.history == whole.history


def test_learning_happens_and_history_records_it(recipe):
    run = train(Job(recipe))
    assert run.test_error < 25 < train(Job(recipe, to_step=1)).test_error
    assert [r["step"] for r in run.history] == [20, 40]
    assert run.history[0]["train_loss"] > run.history[1]["train_loss"]
    assert run.history[-1]["learning_rate"] == pytest.approx(0.1 / 40)
    metrics = evaluate(recipe, run.weights)
    assert (metrics.error, metrics.loss) == (run.test_error, run.test_loss)


def test_held_out_examples_are_evaluated(recipe):
    run = train(Job(recipe.replace(validation=40, steps="5it")))
    assert 0 <= run.history[-1]["validation_error"] <= 100


@pytest.mark.parametrize("layout", [True, False])
def test_bfloat16_stays_near_float32(layout):
    x = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8)).astype(np.uint8)
    y = np.arange(64) % 4
    data = lotto.data.Arrays(x, y, x, y)
    changes = {"data": data, "model": "resnet-8-w4", "batch_size": 16, "steps": "6it", "augment": Augment(1, True)}
    full = train(Job(small_recipe(**changes)))
    half = train(Job(small_recipe(**changes, precision="bfloat16", channels_last=layout)))
    assert half.weights["conv.weight"].dtype == torch.float32
    assert half.weights["conv.weight"].is_contiguous()
    assert half.test_loss == pytest.approx(full.test_loss, rel=0.2)
    assert not same_tensors(half.weights, full.weights)


def test_divergence_names_step_rate_and_what_to_try():
    recipe = small_recipe(optimizer=SGD(1e6), schedule=Constant(), steps="400it")
    with pytest.raises(DivergedError, match=r"at step \d+ \(learning rate 1e\+06\)\. Try a lower learning rate"):
        train(Job(recipe))


def test_regression_with_its_own_loss_and_error():
    x = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
    data = lotto.data.Arrays(x, 2 * x, x, 2 * x)
    recipe = small_recipe(data=data, model="mlp-16", loss="mse", error="mse", optimizer=Adam(1e-2), steps="200it")
    assert train(Job(recipe)).test_error < 0.02

    def largest(outputs, targets):
        return (outputs - targets).abs().max()

    assert train(Job(recipe.replace(error=largest, steps="1it"))).test_error > 0


def test_denormals_are_flushed_within_training_only(recipe):
    def flushes():
        return float(torch.tensor(1e-40) * 1.0) == 0.0

    seen = []
    assert not flushes()
    train(Job(recipe), on_step=lambda *_: seen.append(flushes()))
    assert seen
    assert all(seen)
    assert not flushes()


def test_jobs_that_cannot_be_are_refused(recipe):
    weights = recipe.initial(0)
    for bad, text in (
        ({"from_step": 5}, "needs the weights at that step"),
        ({"from_step": 50, "start": State(weights)}, "beyond the training's end at 40"),
        ({"keep": (41,)}, "beyond the training's end at 40"),
        ({"keep": (2,), "from_step": 3, "start": State(weights)}, "Cannot keep a step before"),
        ({"to_step": 41}, "beyond the recipe's 40 iterations"),
        ({"start": State({**weights, "x": torch.ones(1)})}, "'x' is in only one"),
        ({"start": State({**weights, "fc1.bias": torch.full((24,), torch.nan)})}, r"NaN or infinity in 'fc1\.bias'"),
    ):
        with pytest.raises(UsageError, match=text):
            Job(recipe, **bad)


def test_asking_for_a_step_that_was_not_kept(recipe):
    with pytest.raises(UsageError, match=r"Step 7 was not kept.*Kept steps: 5, 40"):
        train(Job(recipe, keep=(5,))).at(7)


def test_initialisations():
    for init, std in (("kaiming-normal", (2 / 784) ** 0.5), ("glorot-normal", (2 / 1084) ** 0.5)):
        x = np.zeros((20, 784), np.float32)
        data = lotto.data.Arrays(x, np.arange(20) % 10, x, np.arange(20) % 10)
        recipe = small_recipe(model="lenet-300-100", data=data, init=init)
        weights = recipe.initial(0)
        assert weights["fc1.weight"].std().item() == pytest.approx(std, rel=0.01)
        assert (weights["fc1.bias"] == 0).all()
        assert same_tensors(weights, recipe.initial(0))
        assert not torch.equal(weights["fc1.weight"], recipe.initial(1)["fc1.weight"])
    uniform = small_recipe(model=Normed, init="module", norm_init="uniform").initial(0)["bn.weight"]
    assert ((uniform > 0) & (uniform < 1)).all()


def test_a_gpu_is_not_waited_for_within_an_epoch(recipe):
    assert loop.steps_between_logs(recipe, torch.device("cpu")) == loop.LOG_EVERY
    long = recipe.replace(batch_size=2)
    assert long.per_epoch > loop.LOG_EVERY
    assert loop.steps_between_logs(long, torch.device("cuda")) == long.per_epoch


def test_evaluation_steps_are_global_to_the_recipe():
    recipe = small_recipe(steps="40it", evaluations=4, schedule=Linear())
    start = State(recipe.initial(0))
    run = train(Job(recipe, start=start, from_step=15))
    assert [r["step"] for r in run.history] == [20, 30, 40]
    assert all(a["step"] < b["step"] for a, b in itertools.pairwise(run.history))


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_fork_and_evaluation_lose_nothing_in_other_precisions(precision):
    recipe = small_recipe(precision=precision, steps="20it", channels_last=False)
    whole = train(Job(recipe, keep=(9,)))
    fork = train(Job(recipe, start=whole.state(9), from_step=9))
    assert same_tensors(fork.weights, whole.weights)
    assert evaluate(recipe, whole.weights).loss == whole.test_loss


class Tied(nn.Module):
    """An autoencoder's kind of sharing, and one layer used under two names."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 12)
        self.enc = nn.Linear(12, 12)
        self.same = self.enc
        self.out = nn.Linear(12, 6)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.same(self.enc(x).relu()).relu())


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9, weight_decay=1e-2), Adam(1e-2)])
@pytest.mark.parametrize("init", ["module", "kaiming-normal"])
def test_tied_weights_are_pruned_under_all_their_names(optimizer, init):
    recipe = small_recipe(model=Tied, init=init, optimizer=optimizer, steps="6it")
    mask = half_mask(recipe)
    assert set(mask) == {"enc.weight", "out.weight"}
    run = train(Job(recipe, mask=mask, keep=(0, 3)))
    for step in (0, 3, 6):
        weights = run.at(step)
        for name, twin in (("enc.weight", "same.weight"), ("out.weight", "table.weight")):
            assert torch.equal(weights[name], weights[twin])
            assert (weights[twin][~mask[name]] == 0).all()
    again = train(Job(recipe, start=run.state(3), mask=mask, from_step=3))
    assert same_tensors(again.weights, run.weights)


def test_parametrized_layers_are_refused_by_name():
    def net():
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 6)))

    with pytest.raises(UsageError, match="'0' is computed from other parameters"):
        masks.ones(small_recipe(model=net, init="module"))


class Late(nn.Module):
    """A branch whose first gradient comes in the third step."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 6), nn.Linear(12, 6)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return self.a(x) + (self.b(x) if self.calls > 2 else 0)


def test_a_gradient_that_comes_late():
    recipe = small_recipe(model=Late, init="module", steps="6it")
    assert train(Job(recipe, mask=half_mask(recipe))).steps == (0, 6)


def noisy_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs + 0.1 * torch.randn_like(outputs), targets)


def test_a_loss_that_draws_has_its_own_numbers():
    recipe = small_recipe(loss=noisy_loss, steps="5it")
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(train(Job(recipe)).weights)
    assert same_tensors(*runs)


def test_floating_targets_are_measured_by_their_squared_error():
    x = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
    data = lotto.data.Arrays(x, 2 * x, x, 2 * x)
    recipe = small_recipe(data=data, model="mlp-16", loss="mse", steps="3it")
    assert train(Job(recipe)).test_error == train(Job(recipe)).test_loss
    assert recipe.error_unit == ""
    with pytest.raises(UsageError, match="Misclassification needs integer targets"):
        lotto.train(recipe.replace(error="misclassification"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss": lambda o, t: (o.sum(1) - t) ** 2}, "gives one number"),
        ({"error": lambda o, t: o}, "gives one number"),
        ({"model": lambda: nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 6)), "batch_size": 1}, "more than 1 value"),
    ],
)
def test_what_does_not_work_together_is_told_before_training(changes, text):
    with pytest.raises(UsageError, match=text):
        lotto.train(small_recipe(**{"init": "module", **changes}))


def test_training_from_a_folder_of_images_equals_training_from_memory(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    for i, image in enumerate(pixels):
        path = tmp_path / ("train" if i < 18 else "test") / f"class{i % 3}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    folder = lotto.data.ImageFolder(tmp_path, size=8)
    index = {"train": [i for c in range(3) for i in range(c, 18, 3)], "test": [18, 21, 19, 22, 20, 23]}
    x = {k: pixels[v].transpose(0, 3, 1, 2) for k, v in index.items()}
    y = {k: np.array(v) % 3 for k, v in index.items()}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    arrays = lotto.data.Arrays(x["train"], y["train"], x["test"], y["test"], mean=mean, std=std)
    for rate in (0.0, 0.95):  # the sparse layers take their batches in another layout
        runs = []
        for data in (folder, arrays):
            recipe = small_recipe(model="mlp-8", data=data, batch_size=6, steps="2ep", augment=Augment(1, True))
            start = recipe.initial(0)
            mask = lotto.pruning.prune(start, lotto.pruning.masks.ones(recipe), rate) if rate else None
            runs.append(train(Job(recipe, mask=mask)))
        for name in runs[0].weights:
            assert torch.allclose(runs[0].weights[name], runs[1].weights[name], atol=1e-5), name
    assert Job(small_recipe(model="mlp-8", data=folder, batch_size=6)).key is not None


@pytest.mark.parametrize(
    "name", ["resnet20-cifar10", pytest.param("vgg19-cifar10", marks=pytest.mark.extras), "conv6-cifar10"]
)
def test_the_papers_networks_train_prune_and_rewind(name):
    noise = np.random.default_rng(0)
    x, y = noise.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8), noise.permutation(np.arange(24) % 10)
    data = lotto.data.Arrays(x[:16], y[:16], x[16:], y[16:])
    recipe = lotto.recipes.get(name, data=data, validation=0, batch_size=8, steps="4it", evaluations=1)
    dense = train(Job(recipe, keep=(2,)))
    rule = recipe.pruning
    mask = lotto.pruning.prune(
        dense.weights, lotto.pruning.masks.ones(recipe), rule.rate, rule.score, rule.scope, rule.rates
    )
    start = dense.state(2).without_optimizer
    run = train(Job(recipe, start=start, mask=mask, from_step=2, keep=(2,)))
    assert same_tensors(run.at(2), lotto.pruning.masks.apply(dense.at(2), mask))
    for layer, keep in mask.items():
        assert not run.weights[layer][~keep].any()
        assert not torch.equal(run.weights[layer], run.at(2)[layer])
    assert "fc.weight" not in mask, "the output layer stays dense"
