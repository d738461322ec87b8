"""Networks of transformers with random weights go through IMP end to end, from a configuration and from a folder."""

import pytest
import torch

import lotto
from lotto.core.errors import UsageError
from lotto.data import Batch, DataSource
from lotto.models import transformers_model
from lotto.pruning import masks
from lotto.training.evaluation import evaluate

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.extras

TINY = {
    "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 12,
}  # fmt: skip


class Sentences(DataSource):
    """Token ids with padding; the class is whether the first is small."""

    fingerprint = "sentences"

    def size(self, split="train"):
        return {"train": 200, "test": 60}.get(split, 0)

    def batch(self, seed, count):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 20, (count, 8), generator=generator)
        mask = (torch.arange(8) < torch.randint(3, 9, (count, 1), generator=generator)).long()
        return Batch({"input_ids": ids, "attention_mask": mask}, (ids[:, 0] < 10).long())

    def train_batches(self, seed, start, stop, batch_size):
        return (self.batch(1_000_003 * seed + step, batch_size) for step in range(start, stop))

    def eval_batches(self, split, batch_size):
        x, y = self.batch(-1, self.size(split))
        for i in range(0, self.size(split), batch_size):
            yield Batch({name: part[i : i + batch_size] for name, part in x.items()}, y[i : i + batch_size])


def bert_recipe(**changes):
    model = transformers_model(transformers.BertConfig(**TINY), "BertForSequenceClassification", num_labels=2)
    base = lotto.Recipe(model, Sentences(), lotto.AdamW(3e-3), batch_size=20, steps="30it", tolerance=5.0, name="bert")
    return base.replace(**changes)


@pytest.mark.parametrize("loss", ["cross-entropy", "model"])
def test_imp_of_a_bert(loss, store):
    recipe = bert_recipe(loss=loss)
    result = lotto.imp(recipe, levels=2, rewind_to="5it", replicates=2, controls=("random",), jobs=1, store=store)
    assert result.table()["density"].tolist() == pytest.approx([1, 0.8, 0.64], abs=0.01)
    ticket = result.ticket(2, 0)
    run = result.replicates[0][2].run
    pruned = {n: (run.weights[n][~keep] == 0).all() for n, keep in ticket.mask.items()}
    assert pruned
    assert all(pruned.values())
    assert {n.rpartition(".")[0].rpartition(".")[2] for n in pruned} >= {"query", "key", "value", "dense", "classifier"}
    module = recipe.build().eval()
    module.load_state_dict(run.weights)
    with torch.no_grad():
        logits, targets = zip(*((module(**x).logits, y) for x, y in Sentences().eval_batches("test", 20)), strict=True)
    y = torch.cat(targets)
    found = evaluate(recipe, run.weights)
    assert found.error == pytest.approx(100 * float((torch.cat(logits).argmax(1) != y).double().mean()))
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(torch.cat(logits), y)), rel=1e-4)


def test_tied_weights_of_a_language_model_are_pruned_under_all_their_names(store):
    config = transformers.GPT2Config(vocab_size=20, n_positions=12, n_embd=16, n_layer=1, n_head=2)

    class Tokens(Sentences):
        def batch(self, seed, count):
            x, _ = super().batch(seed, count)
            return Batch(x, x["input_ids"].masked_fill(x["attention_mask"] == 0, -100))

    recipe = lotto.Recipe(
        transformers_model(config, "GPT2LMHeadModel"), Tokens(), lotto.AdamW(3e-3), batch_size=20, steps="6it", loss="model",
        include="*.wte",
    )  # fmt: skip
    mask = masks.random_like(
        {n: torch.arange(k.numel()).reshape(k.shape) % 2 == 0 for n, k in masks.ones(recipe).items()}, 0
    )
    run = lotto.train(recipe, mask=mask, store=store)
    assert torch.equal(run.weights["transformer.wte.weight"], run.weights["lm_head.weight"])
    assert float((run.weights["lm_head.weight"] == 0).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_a_folder_is_where_training_begins_and_reinit_draws_anew(tmp_path, store):
    torch.manual_seed(0)
    stored = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY))
    stored.save_pretrained(tmp_path / "bert")
    recipe = bert_recipe(model=f"transformers/{tmp_path / 'bert'}", steps="4it")
    assert all(torch.equal(recipe.initial(3)[n], w) for n, w in stored.state_dict().items())
    result = lotto.imp(recipe, levels=1, rate=0.5, replicates=2, controls=("reinit",), jobs=1, store=store)
    assert result.replicates[0][1].controls["reinit"].test_loss != result.replicates[0][1].run.test_loss
    other = bert_recipe(model=transformers_model(tmp_path / "bert", num_labels=5))
    assert other.build().classifier.out_features == 5
    again = bert_recipe(model=transformers_model(tmp_path / "bert", num_labels=5))
    assert lotto.Job(other).key == lotto.Job(again).key is not None
    (tmp_path / "bert" / "model.safetensors").unlink()
    assert lotto.Job(other).key == lotto.Job(again).key, "the weights have been read"
    scratch = bert_recipe(model=transformers_model(transformers.BertConfig(**TINY), "BertForSequenceClassification"))
    assert lotto.Job(scratch).key != lotto.Job(other).key
    assert not torch.equal(scratch.initial(0)["classifier.weight"], scratch.initial(1)["classifier.weight"])


@pytest.mark.parametrize(("make", "text"), [
    (lambda: transformers_model("nowhere/bert"), "is no folder of model.save_pretrained"),
    (lambda: transformers_model(transformers.BertConfig(**TINY)), "names no architecture"),
    (lambda: transformers_model(transformers.BertConfig(**TINY), "BertForNothing")(), "no architecture 'BertForNothing'"),
    (lambda: transformers_model(3), "is a folder of save_pretrained, a configuration"),
])  # fmt: skip
def test_what_is_no_model_is_refused(make, text):
    with pytest.raises(UsageError, match=text):
        make()
