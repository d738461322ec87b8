"""Sets of Hugging Face's own package, made in memory."""

import numpy as np
import pytest
import torch

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.data import Indexed
from lotto.training.loop import train

pytestmark = pytest.mark.extras
hf = pytest.importorskip("datasets")
ARRAYS = small_arrays()


def made(split="train", **more):
    return hf.Dataset.from_dict({"x": ARRAYS.x[split].numpy(), "label": ARRAYS.y[split].numpy(), **more})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(12, 16), torch.nn.Linear(16, 6)

    def forward(self, x):
        return self.two(self.one(x).relu())


def recipe_of(train_set, test_set, **options):
    return small_recipe(model=Net, init="module", data=Indexed(train_set, test_set, **options))


def test_a_training_is_that_of_arrays_to_the_bit():
    found = train(lotto.Job(recipe_of(made(), made("test"))))
    expected = train(lotto.Job(small_recipe(model=Net, init="module")))
    assert same_tensors(found.weights, expected.weights)
    assert found.test_error == expected.test_error


def test_the_key_is_of_the_rows_in_their_order_and_of_what_shows_them(tmp_path):
    def key(data, **options):
        return lotto.Job(recipe_of(data, made("test"), **options)).key

    data = made()
    data.save_to_disk(str(tmp_path / "set"))
    first = key(data)
    assert first is not None
    assert key(made()) == first
    assert key(hf.load_from_disk(str(tmp_path / "set"))) == first, "in memory or mapped"
    changed = ARRAYS.y["train"].numpy().copy()
    changed[5] = (changed[5] + 1) % 6
    others = [
        data.select(range(200)), data.shuffle(seed=1), made(label=changed), data.with_format("torch", columns=["x", "label"]),
        data.with_transform(lambda rows: {"x": torch.tensor(rows["x"]) * 2, "label": torch.tensor(rows["label"])}),
    ]  # fmt: skip
    keys = [key(other) for other in others]
    assert None not in keys
    assert keys[3] == first, "as it is shown by itself"
    assert len({first, *keys}) == 5


def test_texts_of_different_lengths_are_padded_by_a_collate_function():
    words = [[1 + i % 7] * (2 + i % 3) for i in range(240)]
    data = hf.Dataset.from_dict({"ids": words, "label": [i % 6 for i in range(240)]})

    def padded(examples):
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(e["ids"]) for e in examples], batch_first=True)
        return {"ids": ids, "label": torch.tensor([e["label"] for e in examples])}

    batch = next(iter(Indexed(data, data, collate=padded).train_batches(0, 0, 1, 20)))
    assert batch.inputs["ids"].shape == (20, 4)
    with pytest.raises(UsageError, match=r"cannot be put together: .* collate=\.\.\., from a list"):
        next(iter(Indexed(data, data).train_batches(0, 0, 1, 20)))


def test_a_column_of_text_is_refused_before_training(store):
    recipe = recipe_of(made(text=["a"] * 240), made("test", text=["a"] * 80))
    with pytest.raises(UsageError, match=r"cannot be trained .*unexpected keyword argument 'text'"):
        lotto.imp(recipe, levels=1, replicates=1, rewind_to="0it", jobs=1, store=store)


def test_numbers_are_seen_as_tensors_of_float32():
    data = hf.Dataset.from_dict({"x": np.ones((30, 2)), "y": np.ones(30)})
    (x, y) = next(iter(Indexed(data, data, target="y").train_batches(0, 0, 1, 4)))
    assert (x["x"].dtype, y.dtype) == (torch.float32, torch.float32)
