import random

import numpy as np
import pytest
import torch

import lotto
from lotto.core.errors import DataError, StorageError
from lotto.data.sources import download, synthetic
from lotto.data.sources.catalog import PUBLISHED, Computed, Published


def test_signals_are_those_of_the_generator_and_no_global_generator_moves():
    from mnist1d.data import get_dataset_args, make_dataset

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].copy()
    said = []
    ours = synthetic.mnist1d(1_000, lambda done, total: said.append((done, total)))
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert said == [(80_000, 160_000), (160_000, 160_000)]
    settings = get_dataset_args()
    settings.num_samples = 1_000
    theirs = make_dataset(settings)
    assert (ours["x_train"] == np.round(theirs["x"], 5).astype(np.float32)).all()
    assert (ours["x_test"] == np.round(theirs["x_test"], 5).astype(np.float32)).all()
    assert (ours["y_train"] == theirs["y"]).all()
    assert (ours["y_test"] == theirs["y_test"]).all()
    assert ours["x_train"].shape == (800, 40)


def test_mnist1d_is_what_it_was():
    assert lotto.data.load("mnist1d").fingerprint == "a2007c4ae1b906978f911154c6a76409"


def test_mnist1d_does_without_a_cache(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("LOTTO_DATA", str(blocked / "data"))
    with pytest.raises(StorageError, match="Cannot use the data cache"):
        download.get(PUBLISHED["mnist1d"])
    made = synthetic.mnist1d(1_000)
    monkeypatch.setattr(synthetic, "mnist1d", lambda count: made)
    assert lotto.data.load("mnist1d").size() == 800


@pytest.fixture
def small(monkeypatch):
    """The large set in the size of a small one, so that it is made in a moment."""
    made = synthetic.mnist1d(1_000, lambda done, total: None)
    shapes = {name: array.shape for name, array in made.items()}
    digests = {name: download._sha256(array) for name, array in made.items()}
    calls = []

    def make(progress):
        calls.append(1)
        progress(1, 2)
        return made

    return Published("mnist1d-50k", (Computed("the mnist1d generator", make),), (), (), shapes, digests), calls


def test_a_computed_set_is_made_once_with_progress_and_verified(small, tmp_path):
    published, calls = small
    said = []
    first = download.get(published, tmp_path, lambda *progress: said.append(progress))
    assert said == [("the mnist1d generator", 1, 2)]
    again = download.get(published, tmp_path)
    assert len(calls) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)
    path = tmp_path / "mnist1d-50k.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(bytes(damaged))
    assert all(torch.equal(first[name], found) for name, found in download.get(published, tmp_path).items())
    assert len(calls) == 2


def test_other_bits_than_the_published_ones_are_refused(small, tmp_path):
    published, _ = small
    published.sha256["x_test"] = "0" * 64
    with pytest.raises(DataError, match="the mnist1d generator: mnist1d-50k: the checksum of the decoded x_test"):
        download.get(published, tmp_path)
