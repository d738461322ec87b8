"""Arrays in files give the batches of `Arrays`, and take no more memory than a batch."""

import json
import pickle

import numpy as np
import pytest
import torch

import interpreter
import lotto
from conftest import small_arrays, small_recipe
from lotto.core.errors import DataError, UsageError
from lotto.data import Arrays, MappedArrays
from lotto.data import mapped as module
from lotto.training.loop import train


def saved(path, array):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def numbers(kind):
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, (90, 3, 5, 4))
    x = {"bytes": x.astype(np.uint8), "half": (x / 100).astype(np.float16), "tokens": x.astype(np.int32)}[kind]
    return x, generator.integers(0, 4, 90).astype(np.uint8)


def equal(one, two):
    pairs = list(zip(one, two, strict=True))
    return all(torch.equal(a, b) and a.dtype == b.dtype for pair in pairs for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("kind", ["bytes", "half", "tokens"])
def test_batches_are_those_of_arrays_to_the_bit(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 700)
    x, y = numbers(kind)
    files = saved(tmp_path / "x.npy", x), saved(tmp_path / "y.npy", y)
    arrays, mapped = (cls(a[:60], b[:60], a[60:], b[60:]) for cls, (a, b) in ((Arrays, (x, y)), (MappedArrays, files)))
    assert equal(mapped.train_batches(3, 2, 19, 8), arrays.batches(3, 2, 19, 8))
    assert equal(mapped.eval_batches("test", 7), arrays.evaluation("test", 7))
    assert (mapped.classes, mapped.size(), mapped.size("test")) == (arrays.classes, 60, 30)
    assert equal(pickle.loads(pickle.dumps(mapped)).train_batches(0, 0, 2, 8), arrays.batches(0, 0, 2, 8))


def test_a_training_is_that_of_arrays_and_is_remembered_for_the_content(tmp_path, store):
    arrays = small_arrays()
    x = saved(tmp_path / "x.npy", torch.cat([*arrays.x.values()]).numpy())
    y = torch.cat([*arrays.y.values()])
    plan = lotto.Plan(levels=1, replicates=2, rewind_to="10it", controls=())
    tables, keys = [], []
    for data in (arrays, MappedArrays(x[:240], y[:240], x[240:], y[240:])):
        recipe = small_recipe(data=data)
        tables.append(lotto.imp(recipe, plan, jobs=1, store=store, progress=False).table())
        keys.append(lotto.Job(recipe).key)
    assert tables[0].equals(tables[1])
    assert None not in keys
    changed = np.array(x)
    changed[100, 3] += 1
    np.save(tmp_path / "x.npy", changed)
    again = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert lotto.Job(small_recipe(data=MappedArrays(again[:240], y[:240], again[240:], y[240:]))).key != keys[1]


SCRIPT = """
import json, os, sys, numpy as np, torch
os.chdir(sys.argv[2])
import lotto
from lotto.benchmarks.memory import forget_peak, peak_resident
from lotto.data import Arrays, MappedArrays
from lotto.training.loop import train
from lotto.training.evaluation import evaluate

def tried(kind, x, y):
    data = kind(x[:-64], y[:-64], x[-64:], y[-64:])
    recipe = lotto.Recipe("mlp-16", data, lotto.SGD(0.01), batch_size=32, steps="60it", evaluations=1,
                          eval_batch_size=128)
    job = lotto.Job(recipe)
    assert job.key
    evaluate(recipe, train(job).weights, "train")

torch.set_num_threads(1)
small = np.zeros((256, 1, 64, 64), np.uint8)
np.save("small.npy", small)
tried(MappedArrays, np.load("small.npy", mmap_mode="r"), np.arange(256) % 3)
x = np.load("large.npy", mmap_mode="r")
base = forget_peak()
tried({"mapped": MappedArrays, "arrays": Arrays}[sys.argv[1]], x, np.arange(len(x)) % 3)
print(json.dumps(peak_resident() - base))
"""


@pytest.mark.extras
@pytest.mark.parametrize(("how", "least", "most"), [("mapped", 0, 24), ("arrays", 64, 1000)])
def test_memory_is_that_of_a_batch(how, least, most, tmp_path):
    large = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (16384, 1, 64, 64))  # 64 MiB
    large[::100] = 7
    large.flush()
    found = interpreter.run(SCRIPT, how, str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert least <= json.loads(found.stdout) < most, "MiB"


def test_what_cannot_be_read_is_refused(tmp_path):
    x = saved(tmp_path / "x.npy", np.arange(40.0).reshape(10, 4))
    y = np.arange(10) % 2
    with pytest.raises(UsageError, match="x_train is no run of whole examples of its file, such as x"):
        MappedArrays(x[::2], y[::2], x, y)
    with pytest.raises(UsageError, match="x_train may differ from its file: open it with mode='r'"):
        MappedArrays(np.load(tmp_path / "x.npy", mmap_mode="c"), y, x, y)
    with pytest.raises(UsageError, match="x_train has 10 examples and y_train has 9; they must be equal"):
        MappedArrays(x, y[:9], x, y)
    wrong = np.ones((30, 4))
    wrong[23] = np.nan
    with pytest.raises(
        UsageError, match="Of the examples 0 to 29 alone: x_test holds NaN or infinity in 1 of 30 examples"
    ):
        MappedArrays(x, y, saved(tmp_path / "w.npy", wrong), np.arange(30) % 2)
    data = MappedArrays(x, y, x, y)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match="ends before example 9: it is shorter than it was"):
        list(data.eval_batches("test", 10))


def test_training_and_test_examples_are_of_one_type_as_those_of_arrays_are(tmp_path):
    pixels = saved(tmp_path / "pixels.npy", np.zeros((6, 1, 4, 4), np.uint8))
    scaled = saved(tmp_path / "scaled.npy", np.zeros((6, 1, 4, 4), np.float32))
    y = np.arange(6) % 2
    for kind in (Arrays, MappedArrays):
        with pytest.raises(UsageError, match=r"Training inputs are torch.uint8, test inputs torch.float32"):
            kind(pixels, y, scaled, y)
        with pytest.raises(UsageError, match=r"Training targets have shape \(\) and type torch.int64, test targets"):
            kind(pixels, y, pixels, y.astype(np.float32))
        with pytest.raises(UsageError, match=r"Training inputs have shape \(1, 4, 4\), test inputs \(1, 4\)"):
            kind(pixels, y, saved(tmp_path / "other.npy", np.zeros((6, 1, 4), np.uint8)), y)


def test_more_classes_than_outputs_is_refused_before_training(tmp_path, store):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(x)

    x = saved(tmp_path / "x.npy", np.arange(120.0).reshape(30, 4))
    data = MappedArrays(x, np.arange(30) % 3, x, np.arange(30) % 3)
    with pytest.raises(UsageError, match=r"has 3 classes, and the model has 2 outputs.*give the model 3 outputs"):
        lotto.imp(small_recipe(model=Two, init="module", data=data), levels=1, rewind_to="0it", jobs=1, store=store)
    assert train(lotto.Job(small_recipe(data=data, steps="2it"))).steps == (0, 2)
