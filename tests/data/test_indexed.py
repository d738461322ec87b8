"""Data sets of torch's by number: the batches of the same examples in `Arrays`, whatever reads them and from wherever."""

import logging
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.data import Indexed, Stream, from_loaders, seeded
from lotto.data.contents import content
from lotto.data.order import batches_of
from lotto.training.loop import train

ARRAYS = small_arrays()


class Examples(Dataset):
    """The examples of `small_arrays`, in several shapes."""

    def __init__(self, split="train", how="pair"):
        self.x, self.y, self.how = ARRAYS.x[split], ARRAYS.y[split], how

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        x, y = self.x[i], int(self.y[i])
        return {"pair": (x, y), "dict": {"x": x, "labels": y}, "nested": ({"x": x}, y)}[self.how]


class Noisy(Examples):
    """Draws from all three generators, as transforms do."""

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.rand(1) + random.random() + float(np.random.rand()), y


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(12, 16), torch.nn.Linear(16, 6)

    def forward(self, x):
        return self.two(self.one(x).relu())


def sets(kind=Examples, how="pair", **options):
    return Indexed(kind("train", how), kind("test", how), classes=6, **options)


def leaves(batches):
    return [[t for t in flatten(batch) if isinstance(t, torch.Tensor)] for batch in batches]


def equal(one, two):
    one, two = leaves(one), leaves(two)
    return len(one) == len(two) and all(
        len(a) == len(b) and all(torch.equal(s, t) for s, t in zip(a, b, strict=True))
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("how", ["pair", "dict", "nested"])
def test_a_training_is_that_of_arrays_to_the_bit(how, store):
    plan = lotto.Plan(levels=1, replicates=1, rewind_to="10it", controls=())
    recipes = [small_recipe(model=Net, init="module", data=data) for data in (sets(how=how), ARRAYS)]
    indexed, arrays = (lotto.imp(r, plan, jobs=1, store=store, progress=False) for r in recipes)
    assert indexed.table().equals(arrays.table())
    runs = [train(lotto.Job(r)) for r in recipes]
    assert same_tensors(runs[0].weights, runs[1].weights)


@pytest.mark.parametrize("kind", [Examples, Noisy])
def test_batches_begin_anywhere_and_are_the_same_with_workers(kind):
    whole = [*sets(kind).train_batches(3, 0, 30, 20)]
    state = random.getstate(), np.random.get_state()[2], torch.get_rng_state()
    assert equal(sets(kind).train_batches(3, 17, 30, 20), whole[17:])
    assert equal(sets(kind, workers=2).train_batches(3, 0, 30, 20), whole)
    assert equal(sets(kind, workers=1).eval_batches("test", 15), sets(kind).eval_batches("test", 15))
    assert not equal(sets(kind).train_batches(4, 0, 1, 20), whole[:1])
    assert random.getstate() == state[0]
    assert np.random.get_state()[2] == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_rows_of_tensors_at_once_are_those_that_torch_stacks(dtype, monkeypatch):
    class Own(TensorDataset):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x + 1, y

    x, y = (100 * torch.rand(20, 3, 4, 4)).to(dtype), torch.rand(20, dtype=torch.float64)
    read = []
    real = seeded.rows
    monkeypatch.setattr(seeded, "rows", lambda *given: read.append(given) or real(*given))
    kinds = {TensorDataset: (x, 0), Own: (x, 1)}  # what is added, by whatever is not torch's own
    for kind, (values, added) in kinds.items():
        for laid in (values, values.to(memory_format=torch.channels_last)):
            read.clear()
            given = [*Indexed(kind(laid, y), kind(laid, y)).train_batches(0, 2, 6, 5)]
            assert bool(read) is (kind is TensorDataset and laid.is_contiguous())
            steps = batches_of(0, 2, 6, 5, 20)
            for batch, (_, chosen) in zip(given, steps, strict=True):
                wanted = torch.stack([laid[int(i)] + added for i in chosen])
                wanted = wanted.float() if dtype == torch.float64 else wanted
                assert (batch.inputs.dtype, batch.inputs.stride()) == (wanted.dtype, wanted.stride())
                assert torch.equal(batch.inputs, wanted)
                assert torch.equal(batch.targets, y[chosen].float())
            assert len(given) == 4


def test_what_is_drawn_differs_between_steps_and_a_training_goes_on_with_the_same_bits():
    recipe = small_recipe(data=sets(Noisy))
    first, second = (x for x, _ in sets(Noisy).train_batches(0, 0, 2, 20))
    order = [x for x, _ in ARRAYS.batches(0, 0, 2, 20)]
    assert not torch.equal(first - order[0], second - order[1])
    run = train(lotto.Job(recipe, keep=(10,)))
    half = train(lotto.Job(recipe, start=run.state(10), from_step=10))
    assert same_tensors(half.weights, run.weights)


@pytest.mark.extras
def test_replicates_in_workers_give_the_same_table(store, tmp_path):
    recipe = small_recipe(data=sets(Noisy, workers=1))
    plan = lotto.Plan(levels=1, replicates=2, rewind_to="10it", controls=())
    here = lotto.imp(recipe.replace(data=sets(Noisy)), plan, jobs=1, store=store, progress=False)
    there = lotto.imp(recipe, plan, jobs=2, store=tmp_path / "other", progress=False)
    assert here.table().equals(there.table())


def test_a_loader_that_only_shuffles_is_its_data_set(caplog):
    shuffled = DataLoader(Examples(), 20, shuffle=True)
    found = from_loaders(shuffled, DataLoader(Examples("test"), 40), classes=6)
    assert type(found) is Indexed
    assert equal(found.train_batches(0, 0, 15, 20), ARRAYS.batches(0, 0, 15, 20))
    with pytest.raises(UsageError, match="has batch_size=20 and the recipe 30: give the recipe batch_size=20"):
        small_recipe(data=found, batch_size=30).total  # noqa: B018
    with caplog.at_level(logging.WARNING):
        from_loaders(DataLoader(Examples(), 20), DataLoader(Examples("test"), 40))
    assert "does not shuffle: lotto draws a new order for every epoch" in caplog.text
    with pytest.raises(UsageError, match=r"The train loader is a torch.utils.data.DataLoader; got \[1\]"):
        from_loaders([1], shuffled)


def weighted(seed=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    sampler = WeightedRandomSampler(1 + ARRAYS.y["train"], 100, generator=generator)
    return DataLoader(Examples(), 20, sampler=sampler)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_loader_with_a_sampler_of_its_own_is_a_stream_that_is_replayed(seed, store, caplog):
    made = [from_loaders(weighted(seed), DataLoader(Examples("test"), 40), classes=6) for _ in range(2)]
    assert type(made[0]) is Stream
    assert (made[0].size(), made[0].size("test"), made[0].random_access) == (None, 80, False)
    twelve = [*made[0].train_batches(2, 0, 12, 20)]
    assert len(twelve) == 12, "epoch after epoch"
    assert not equal(twelve[:5], twelve[5:10])
    assert equal(made[0].train_batches(2, 0, 1, 20), twelve[:1])
    assert equal(made[1].train_batches(2, 7, 12, 20), twelve[7:])
    assert not equal(made[1].train_batches(3, 0, 1, 20), twelve[:1])
    with pytest.raises(UsageError, match="loops of your own have no epochs: give iterations"):
        lotto.imp(small_recipe(data=made[0]), levels=1, rewind_to="1ep", jobs=1, store=store)
    recipe = small_recipe(data=made[0], steps="12it")
    with caplog.at_level(logging.WARNING):
        lotto.imp(recipe, levels=1, replicates=1, rewind_to="5it", jobs=1, store=store, controls=(), progress=False)
    assert "Stream cannot begin at any step: a training that begins at step k" in caplog.text
    assert "states no fingerprint" in caplog.text
    run = train(lotto.Job(recipe, keep=(5,)))
    rest = train(lotto.Job(recipe, start=run.state(5), from_step=5))
    assert same_tensors(rest.weights, run.weights)


class Numbers(IterableDataset):
    def __iter__(self):
        yield from zip(ARRAYS.x["train"][:50], ARRAYS.y["train"][:50], strict=True)


def test_an_iterable_data_set_is_a_stream_with_one_order_which_is_said(caplog, store):
    data = from_loaders(DataLoader(Numbers(), 20), DataLoader(Examples("test"), 40), classes=6, name="numbers")
    assert [len(y) for _, y in data.train_batches(0, 0, 4, 20)] == [20] * 4, "the last 10 of an epoch are left out"
    recipe = small_recipe(data=data, steps="4it")
    with caplog.at_level(logging.WARNING):
        lotto.imp(recipe, levels=1, replicates=1, rewind_to="0it", jobs=1, store=store, controls=(), progress=False)
    assert "numbers gives the same batches for every seed: replicates have one data order" in caplog.text


def test_a_stream_of_a_function_is_read_by_seed_and_epoch():
    def batches(seed, epoch):
        return list(ARRAYS.batches(seed, 12 * epoch, 12 * (epoch + 1), 20))

    data = Stream(batches, list(ARRAYS.evaluation("test", 40)), classes=6, fingerprint="rings")
    assert equal(data.train_batches(1, 0, 30, 20), ARRAYS.batches(1, 0, 30, 20))
    weights = [train(lotto.Job(small_recipe(data=d))).weights for d in (data, ARRAYS)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*(w.values() for w in weights), strict=True))


class Counting:
    """A collate function that is another at each call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, examples):
        self.calls += 1
        return torch.stack([x for x, _ in examples]) + self.calls, torch.tensor([y for _, y in examples])


def triple(examples):
    return (*torch.utils.data.default_collate(examples), 1)


def unnamed(examples):
    return {"a": torch.stack([x for x, _ in examples]), "b": torch.tensor([y for _, y in examples])}


class Ragged(Examples):
    def __getitem__(self, i):
        return torch.ones(1 + i % 3), 0


class Texts(Examples):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], "cat"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (lambda: sets(collate=Counting()), "Indexed gives another batch for .seed 0, step 0. when it is read again: its"),
        (lambda: sets(collate=triple), "a pair of these; data gave a tuple of 3"),
        (lambda: sets(collate=unnamed), "A batch of data is a mapping with a, b: say which of them are the targets"),
        (lambda: sets(Ragged), "The examples of a batch cannot be put together: .*collate=..., from a list"),
        (lambda: sets(Texts), "The targets of Indexed are texts, such as 'cat'"),
        (lambda: Indexed(Numbers(), Examples()), "gives examples by number: it has len.* is a lotto.data.Stream"),
        (lambda: Indexed([], Examples()), "The train set of data has no examples"),
        (lambda: Stream(iter([1]), []), "can be read only once: give a list or a loader, or a function .seed, epoch"),
        (lambda: Stream([], 3), "The test batches are a loader or another iterable; got 3"),
        (lambda: sets(Floats), "the targets are floating numbers and the loss takes classes"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_training(data, sentence, store):
    with pytest.raises(UsageError, match=sentence):
        lotto.imp(small_recipe(data=data()), levels=1, replicates=1, rewind_to="0it", jobs=1, store=store)


class Floats(Examples):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], float(self.y[i])


def key_of(data):
    return lotto.Job(small_recipe(data=data)).key


class Filed(Examples):
    def __getitem__(self, i):
        with open(__file__) as lines:
            next(lines)
        return super().__getitem__(i)


def test_the_key_is_of_the_content_and_of_the_code(tmp_path):
    x, y = ARRAYS.x["train"], ARRAYS.y["train"]
    plain, test = TensorDataset(x, y), TensorDataset(ARRAYS.x["test"], ARRAYS.y["test"])

    def of(train, **options):
        return key_of(Indexed(train, test, classes=6, **options))

    changed = x.clone()
    changed[7, 3] += 1
    first = of(plain)
    assert first is not None
    assert of(TensorDataset(x.clone(), y), workers=1, name="another") == first, "neither decides a batch"
    different = [
        of(TensorDataset(changed, y)), of(Subset(plain, range(200))), of(Subset(plain, range(100, 240))),
        of(ConcatDataset([plain, test])), of(Examples()), of(plain, collate=torch.utils.data.default_collate),
        of(plain, fingerprint="1"), of(plain, fingerprint="2"), key_of(ARRAYS),
    ]  # fmt: skip
    assert None not in different
    assert len({first, *different}) == 10
    edited = Examples()
    before = of(edited)
    edited.x = changed
    assert of(edited) != before, "no stale result"


def test_what_no_key_covers_is_trained_and_not_remembered_unless_it_is_stated():
    silent = lotto.Job(small_recipe(data=Indexed(Filed(), Filed("test"), classes=6)))
    assert silent.key is None
    assert "uses open" in silent.not_cacheable
    stated = lotto.Job(small_recipe(data=Indexed(Filed(), Filed("test"), classes=6, fingerprint="v1")))
    assert stated.key is not None, stated.not_cacheable


def test_arrays_are_hashed_in_pieces(monkeypatch):
    values = {
        "f": np.arange(60.0).reshape(20, 3)[:, ::2],
        "t": torch.arange(40, dtype=torch.bfloat16),
        "b": np.ones(5, bool),
    }
    whole = content(values)
    monkeypatch.setattr("lotto.data.contents.PIECE", 16)
    assert content(values) == whole


@pytest.mark.parametrize("kind", ["indexed", "mapped"])
def test_held_out_examples_are_those_of_arrays(kind, tmp_path, store):
    arrays = small_arrays()
    x, y = ({s: getattr(arrays, part)[s].numpy() for s in ("train", "test")} for part in ("x", "y"))
    if kind == "indexed":
        sets = [TensorDataset(arrays.x[s], arrays.y[s]) for s in ("train", "test")]
        data = lotto.data.Indexed(*sets, classes=6, name="rings")
    else:
        np.save(tmp_path / "x.npy", x["train"])
        data = lotto.data.MappedArrays(np.load(tmp_path / "x.npy", mmap_mode="r"), y["train"], x["test"], y["test"])
    recipe, plain = small_recipe(data=data, validation=60, steps="12it"), small_recipe(validation=60, steps="12it")
    for split in ("train", "validation", "test"):
        assert recipe.arrays.size(split) == plain.arrays.size(split)
        one, other = (torch.cat([b.inputs for b in r.arrays.evaluation(split, 32)]) for r in (recipe, plain))
        assert torch.equal(one, other), split
    run, expected = (lotto.train(r, store=store) for r in (recipe, plain.replace(arithmetic="dense")))
    for name, weight in expected.weights.items():
        torch.testing.assert_close(run.weights[name], weight, rtol=1e-4, atol=1e-6)
    assert run.history[-1]["validation_error"] == pytest.approx(expected.history[-1]["validation_error"])
    assert len({lotto.Job(small_recipe(data=data, validation=v)).key for v in (0, 60, 61)}) == 3
    with pytest.raises(UsageError, match="Can hold out 1 to 239"):
        lotto.train(recipe.replace(validation=240), store=store)
    if kind == "indexed":
        own = lotto.data.Indexed(*sets, validation=sets[1], classes=6)
        with pytest.raises(UsageError, match="has a validation set of its own"):
            lotto.train(small_recipe(data=own, validation=10), store=store)
