"""Sparse training with real Lightning trainers: what a loop by hand gives, zeros, snapshots, schedules that go on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lotto
from conftest import same_tensors, small_arrays
from lotto.core.errors import UsageError
from lotto.pruning import masks

pl = pytest.importorskip("lightning.pytorch")
from lotto.integrations.lightning import SparseCallback  # noqa: E402

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
]
SIZE = 20


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))


def loader(seed=None):
    data = small_arrays()
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    pairs = TensorDataset(data.x["train"], data.y["train"])
    return DataLoader(pairs, batch_size=SIZE, shuffle=seed is not None, generator=generator)


def half(model):
    return lotto.pruning.prune(model.state_dict(), masks.ones(model), 0.5)


class Module(pl.LightningModule):
    def __init__(self, net, optimizer=lambda p: torch.optim.AdamW(p, 0.01), schedule=None):
        super().__init__()
        self.net, self.make, self.schedule, self.rates = net, optimizer, schedule, []

    def training_step(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def on_train_batch_start(self, *_):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        return {"optimizer": optimizer, **({"lr_scheduler": self.schedule(optimizer)} if self.schedule else {})}


class Watch(pl.Callback):
    """Looks at pruned weights, moments and gradients at each step."""

    def __init__(self, mask, net):
        self.named, self.mask, self.norms, self.steps = dict(net.named_parameters()), mask, [], 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = [p.grad.flatten() for p in self.named.values() if p.grad is not None]
        self.norms.append(float(torch.cat(grads).norm()))
        self.look(lambda parameter: [parameter, *([] if parameter.grad is None else [parameter.grad])])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.look(lambda p: [p, *(t for o in trainer.optimizers for t in o.state.get(p, {}).values())])

    def look(self, tensors):
        for name, keep in self.mask.items():
            for tensor in tensors(self.named[name]):
                if tensor.shape == keep.shape:
                    assert not tensor.detach()[~keep].any()
        self.steps += 1


def trainer(*callbacks, **more):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks], **{"max_steps": 10, **more},
    )  # fmt: skip


def by_hand(net, mask, steps, accumulated, clip):
    """The same, every gradient and weight masked by hand; the states after each step, the norms before clipping."""
    optimizer, states, norms, batches = torch.optim.AdamW(net.parameters(), 0.01), [], [], []
    while len(batches) < steps * accumulated:
        # Lightning steps at the end of an epoch in any case: twelve batches are six steps.
        batches += [*loader()]
    named = dict(net.named_parameters())
    with torch.no_grad():
        for name, keep in mask.items():
            named[name] *= keep
    for step in range(steps):
        optimizer.zero_grad()
        for x, y in batches[step * accumulated : (step + 1) * accumulated]:
            (nn.functional.cross_entropy(net(x), y) / accumulated).backward()
        for name, keep in mask.items():
            named[name].grad *= keep
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), clip)))
        optimizer.step()
        states.append(copy.deepcopy(net.state_dict()))
    return states, norms


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_is_the_loop_by_hand_with_accumulation_and_clipping(accumulated):
    net = network()
    mask = half(net)
    states, norms = by_hand(copy.deepcopy(net), mask, 10, accumulated, 0.1)
    assert min(norms) > 0.1, "clipping does something"
    sparse, watch = SparseCallback(mask, keep=["3it", 10], module=net), Watch(mask, net)
    trainer(sparse, watch, accumulate_grad_batches=accumulated, gradient_clip_val=0.1).fit(Module(net), loader())
    assert sparse.loop.steps == 10
    assert watch.steps > 10
    assert watch.norms == pytest.approx(norms, rel=1e-4), "what is clipped is the subnetwork's gradient alone"
    for step in (3, 10):
        for name, tensor in states[step - 1].items():
            torch.testing.assert_close(sparse.loop.kept[step][name], tensor, rtol=1e-4, atol=1e-6)
    assert same_tensors(sparse.loop.kept[10], net.state_dict())


def test_two_optimizers_by_hand_in_a_lightning_module():
    class Gan(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = nn.Linear(12, 12), nn.Linear(12, 1)

        def training_step(self, batch):
            first, second = self.optimizers()
            made = self.generator(batch[0])
            second.zero_grad()
            self.manual_backward(self.critic(made.detach()).mean() - self.critic(batch[0]).mean())
            second.step()
            first.zero_grad()
            self.manual_backward(-self.critic(made).mean())
            first.step()

        def configure_optimizers(self):
            return [torch.optim.Adam(part.parameters(), 0.01) for part in (self.generator, self.critic)]

    gan = Gan()
    mask = half(gan)
    sparse, watch = SparseCallback(mask, keep=[2]), Watch(mask, gan)
    trainer(sparse, watch, max_steps=12).fit(gan, loader())
    assert sparse.loop.steps == 6, "of twelve steps of two optimizers six are of the first"
    assert watch.steps
    with pytest.raises(UsageError, match="several optimizers cannot go on at a later step"):
        trainer(SparseCallback(mask, start_step=2)).fit(gan, loader())


SCHEDULES = {
    "linear": (lambda o: {"scheduler": torch.optim.lr_scheduler.LinearLR(o, 1, 0, 20), "interval": "step"}, 7),
    "cosine": (lambda o: {"scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(o, 20), "interval": "step"}, 7),
    "by epochs": (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), 12),
    "none": (None, 7),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("how", [{"max_steps": 24}, {"max_epochs": 2, "max_steps": -1}])
def test_a_schedule_goes_on_at_the_rewind_point_and_ends_where_it_ended(name, how):
    schedule, step = SCHEDULES[name]
    whole = Module(network(), schedule=schedule)
    trainer(**how).fit(whole, loader())
    rest = Module(network(), schedule=schedule)
    sparse = SparseCallback(half(rest), start_step=step, keep=[step, 24])
    trainer(sparse, **how).fit(rest, loader())
    assert rest.rates == pytest.approx(whole.rates[step:])
    assert sparse.loop.steps == len(whole.rates) == 24
    assert [*sparse.loop.kept] == [step, 24]


def test_a_training_that_is_resumed_from_a_checkpoint_counts_on(tmp_path):
    net = network()
    mask = half(net)
    first = trainer(SparseCallback(mask, module=net), max_steps=4)
    first.fit(Module(net), loader())
    first.save_checkpoint(tmp_path / "a.ckpt")
    other = network()
    sparse = SparseCallback(mask, module=other, keep=[9])
    trainer(sparse, Watch(mask, other)).fit(Module(other), loader(), ckpt_path=tmp_path / "a.ckpt")
    assert sparse.loop.steps == 10
    assert [*sparse.loop.kept] == [9]


def test_what_cannot_go_on_is_one_sentence():
    plateau = {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau, "monitor": "x", "strict": False}
    for schedule, words in (
        (lambda o: {**plateau, "scheduler": plateau["scheduler"](o)}, "goes by what it measures"),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "inside an epoch of 12: rewind to a multiple of 12"),
        (
            lambda o: {
                "scheduler": torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "interval": "step", "frequency": 2
            },
            "frequency 2 cannot go on",
        ),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            trainer(SparseCallback(start_step=5)).fit(Module(network(), schedule=schedule), loader())
    with pytest.raises(UsageError, match=r"The mask has '9\.weight', which the model has not"):
        trainer(SparseCallback({"9.weight": torch.ones(2, 2)})).fit(Module(network()), loader())
    with pytest.raises(UsageError, match="No training with this callback has begun"):
        SparseCallback().loop  # noqa: B018


def test_hooks_go_when_a_training_fails_and_the_callback_can_be_used_again():
    class Fails(Module):
        fails = True

        def training_step(self, batch):
            if self.fails and self.trainer.global_step == 2:
                raise RuntimeError("mine")
            return super().training_step(batch)

    net = network()
    mask, module = half(net), Fails(net)
    sparse = SparseCallback(mask, module=net)
    with pytest.raises(RuntimeError, match="mine"):
        trainer(sparse).fit(module, loader())
    assert sparse.loop.steps == 2
    module.fails = False
    trainer(max_steps=2).fit(module, loader())
    assert any(net.get_parameter(name)[~keep].any() for name, keep in mask.items()), "dense again"
    trainer(sparse, Watch(mask, net), max_steps=2).fit(module, loader())
    assert sparse.loop.steps == 2


def fit(model, *, start_step, seed):
    schedule = SCHEDULES["linear"][0]
    module = Module(model, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), schedule)
    steps = trainer(SparseCallback(start_step=start_step), max_steps=20, gradient_clip_val=1.0)
    steps.fit(module, loader(seed))
    data = small_arrays()
    with torch.no_grad():
        wrong = model.eval()(data.x["test"]).argmax(1) != data.y["test"]
    return {"error": 100 * wrong.double().mean()}


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))


def test_a_whole_imp_with_lightning_trainers(store):
    trainable = lotto.Trainable(Net, fit, tolerance=5.0)
    assert lotto.Job(trainable).key is not None, lotto.Job(trainable).not_cacheable
    options = {"densities": [0.5, 0.2], "rewind_to": "4it", "replicates": 2, "jobs": 1, "store": store}
    result = lotto.imp(trainable, **options)
    for dense, *levels in result.replicates:
        for level, density in zip(levels, (0.5, 0.2), strict=True):
            assert masks.density(level.mask) == pytest.approx(density, abs=0.005)
            for name, keep in level.mask.items():
                assert not level.run.weights[name][~keep].any()
        assert dense.run.test_error < 40
    ticket = result.ticket(level=2)
    (dense, *_), *_ = result.replicates
    assert ticket.rewind_step == 4
    assert not same_tensors(ticket.start, masks.apply(dense.run.weights, ticket.mask))
    assert lotto.train(trainable, start=ticket, store=store).test_error == result.replicates[0][2].run.test_error
