"""Sparse training with real trainers of transformers, on a tiny random BERT: zeros, snapshots, schedules that go on."""

from __future__ import annotations

import copy
import os

import pytest
import torch

import lotto
from conftest import same_tensors
from lotto.core.errors import UsageError
from lotto.pruning import masks

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from lotto.integrations.huggingface import SparseCallback  # noqa: E402

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


TINY = {
    "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 8, "num_labels": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


class Bert(transformers.BertForSequenceClassification):
    """Which of two kinds the first token is of."""

    def __init__(self):
        super().__init__(transformers.BertConfig(**TINY))


def texts(count=160, seed=1):
    ids = torch.randint(20, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": int(row[0] < 10)} for row in ids]


def network():
    torch.manual_seed(0)
    return Bert()


def half(model):
    return lotto.pruning.prune(model.state_dict(), masks.ones(model), 0.5)


class Watch(transformers.TrainerCallback):
    """Looks at pruned weights, moments and gradients at each step."""

    def __init__(self, mask):
        self.mask, self.rates, self.steps = mask, [], 0

    def on_pre_optimizer_step(self, args, state, control, model=None, lr_scheduler=None, **_):
        self.rates.append(lr_scheduler.get_last_lr()[0])
        self.look(model, lambda parameter: [parameter, parameter.grad])

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **_):
        self.look(model, lambda p: [p, *optimizer.state[p].values()])

    def look(self, model, tensors):
        named = dict(model.named_parameters())
        for name, keep in self.mask.items():
            for tensor in tensors(named[name]):
                if tensor.shape == keep.shape:
                    assert not tensor.detach()[~keep].any()
                    self.steps += 1


def trainer(model, folder, *callbacks, kind=transformers.Trainer, **more):
    options = {"max_steps": 10, "per_device_train_batch_size": 8, "learning_rate": 0.01, "max_grad_norm": 0.1, **more}
    args = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        **{"save_strategy": "no", **options},
    )  # fmt: skip
    return kind(model, args, train_dataset=texts(), callbacks=[*callbacks])


class ByHand(transformers.Trainer):
    """Gradients masked after each backward, weights and moments after each step."""

    mask: dict
    states: list

    def training_step(self, model, *args, **named):
        if not self.state.global_step:
            self.put(model)
        found = super().training_step(model, *args, **named)
        for name, parameter in model.named_parameters():
            if name in self.mask:
                parameter.grad *= self.mask[name]
        return found

    @torch.no_grad()
    def put(self, model):
        for name, parameter in model.named_parameters():
            if name in self.mask:
                parameter *= self.mask[name]


class Note(transformers.TrainerCallback):
    def __init__(self):
        self.states = []

    def on_step_end(self, args, state, control, model=None, **_):
        self.states.append(copy.deepcopy(model.state_dict()))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_is_the_loop_by_hand_with_accumulation_and_clipping(accumulated, tmp_path):
    mask, note = half(network()), Note()
    expected = trainer(network(), tmp_path, note, kind=ByHand, gradient_accumulation_steps=accumulated)
    expected.mask = mask
    expected.train()
    model = network()
    sparse, watch = SparseCallback(mask, keep=["3it", 10]), Watch(mask)
    trainer(model, tmp_path, sparse, watch, gradient_accumulation_steps=accumulated).train()
    assert sparse.loop.steps == len(note.states) == len(watch.rates) == 10
    assert watch.steps > 10
    for step in (3, 10):
        for name, tensor in note.states[step - 1].items():
            torch.testing.assert_close(sparse.loop.kept[step][name], tensor, rtol=1e-3, atol=1e-5)
    assert same_tensors(sparse.loop.kept[10], model.state_dict())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("how", [{"max_steps": 20}, {"num_train_epochs": 1, "max_steps": -1}])
def test_a_schedule_goes_on_at_the_rewind_point_and_ends_where_it_ended(schedule, how, tmp_path):
    options = {"lr_scheduler_type": schedule, "warmup_steps": 5, **how}
    mask = half(network())
    whole, rest = Watch({}), Watch(mask)
    trainer(network(), tmp_path, whole, **options).train()
    sparse = SparseCallback(mask, start_step=7, keep=[7, 20])
    trainer(network(), tmp_path, sparse, rest, **options).train()
    assert len(whole.rates) == sparse.loop.steps == 20
    assert rest.rates == pytest.approx(whole.rates[7:])
    assert [*sparse.loop.kept] == [7, 20]


def test_a_training_that_is_resumed_from_a_checkpoint_counts_on(tmp_path):
    mask = half(network())
    first = trainer(network(), tmp_path, SparseCallback(mask), save_strategy="steps", save_steps=4)
    first.train()
    sparse = SparseCallback(mask, keep=[9])
    again = trainer(network(), tmp_path, sparse, Watch(mask))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert sparse.loop.steps == 10
    assert [*sparse.loop.kept] == [9]
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_what_cannot_go_on_is_one_sentence(tmp_path):
    failing = trainer(network(), tmp_path, SparseCallback(start_step=5))
    optimizer = torch.optim.SGD(failing.model.parameters(), 0.1)
    failing.optimizer, failing.lr_scheduler = optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(UsageError, match="ReduceLROnPlateau goes by what it measures"):
        failing.train()
    with pytest.raises(UsageError, match=r"The mask has '9\.weight', which the model has not"):
        trainer(network(), tmp_path, SparseCallback({"9.weight": torch.ones(2, 2)})).train()
    with pytest.raises(UsageError, match=r"keep=3 is before start_step=5"):
        trainer(network(), tmp_path, SparseCallback(keep=[3], start_step=5)).train()
    with pytest.raises(UsageError, match=r"Adafactor keeps .* cannot be set to 0"):
        trainer(network(), tmp_path, SparseCallback(half(network())), optim="adafactor").train()
    with pytest.raises(UsageError, match="No training with this callback has begun"):
        SparseCallback().loop  # noqa: B018


def test_a_callback_is_good_for_another_training_after_one_that_failed(tmp_path):
    class Fails(transformers.TrainerCallback):
        def on_optimizer_step(self, *_, **__):
            raise RuntimeError("mine")

    model = network()
    mask = half(model)
    sparse = SparseCallback(mask)
    with pytest.raises(RuntimeError, match="mine"):
        trainer(model, tmp_path, sparse, Fails()).train()
    assert sparse.loop.steps == 1
    trainer(model, tmp_path, sparse, Watch(mask), max_steps=2).train()
    assert sparse.loop.steps == 2
    del sparse
    trainer(model, tmp_path, max_steps=2).train()
    named = dict(model.named_parameters())
    assert any(named[name][~keep].any() for name, keep in mask.items()), "dense again"


def fit(model, *, start_step, seed):
    sparse = SparseCallback(start_step=start_step)
    rest = trainer(model, "unused", sparse, max_steps=30, learning_rate=0.02, seed=seed, max_grad_norm=1.0)
    rest.train()
    found = rest.predict(texts(80, seed=2))
    return {"error": 100 * float((found.predictions.argmax(1) != found.label_ids).mean())}


def test_a_whole_imp_with_trainers_of_transformers(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainable = lotto.Trainable(Bert, fit, tolerance=5.0)
    assert lotto.Job(trainable).key is not None, lotto.Job(trainable).not_cacheable
    options = {"densities": [0.5, 0.2], "rewind_to": "4it", "replicates": 1, "jobs": 1, "store": store}
    result = lotto.imp(trainable, **options)
    (dense, *levels), *_ = result.replicates
    for level, density in zip(levels, (0.5, 0.2), strict=True):
        assert masks.density(level.mask) == pytest.approx(density, abs=0.005)
        assert set(level.controls) == {"reinit", "random"}
        for name, keep in level.mask.items():
            assert not level.run.weights[name][~keep].any()
    assert dense.run.test_error < 30
    ticket = result.ticket(level=2)
    assert ticket.rewind_step == 4
    assert lotto.train(trainable, start=ticket, store=store).test_error == levels[1].run.test_error
