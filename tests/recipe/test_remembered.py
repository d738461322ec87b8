"""What a recipe's key covers besides code: data of every class, files that are read, values that change meanwhile."""

import configparser
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lotto
from conftest import small_arrays, small_recipe
from lotto import Job, Recipe
from lotto.core.errors import UsageError
from lotto.data import Arrays, Augment, ImageFolder
from lotto.execution.compute import get_or_compute
from lotto.execution.store import Store


class Silent(Arrays):
    def batches(self, *given):
        for x, y in super().batches(*given):
            yield x * self.volume, y

    volume = 0


def silent(kind=Silent):
    data = small_arrays()
    return kind(data.x["train"], data.y["train"], data.x["test"], data.y["test"])


def test_a_subclass_of_arrays_has_keys_and_batches_of_its_own(tmp_path):
    recipes = [small_recipe(data=d, steps="5it") for d in (silent(Arrays), silent(), silent())]
    recipes[2].data.volume = 1
    keys = [Job(r).key for r in recipes]
    assert len(set(keys)) == 3
    assert None not in keys
    for engine in (
        lotto.engine.make(jobs=1, store=Store(tmp_path / "1")),
        lotto.engine.make(jobs=1, store=Store(tmp_path / "2"), backend="processes"),
    ):
        plain, muted, loud = engine.run([Job(r) for r in recipes])
        torch.testing.assert_close(plain.weights["fc1.weight"], loud.weights["fc1.weight"])
        assert not torch.allclose(plain.weights["fc1.weight"], muted.weights["fc1.weight"])
    assert isinstance(small_recipe(data=silent(), validation=10).arrays, Silent), "also with examples held out"


def test_a_subclass_of_augment_has_keys_of_its_own():
    class Louder(Augment):
        factor = 2

        def __call__(self, x, seed, step):
            return x * self.factor

    images = lotto.data.load("digits")
    keys = [Job(Recipe("mlp-8", images, augment=a, steps="2it")).key for a in (Augment(1), Louder(1))]
    Louder.factor = 3
    keys.append(Job(Recipe("mlp-8", images, augment=Louder(1), steps="2it")).key)
    assert len(set(keys)) == 3
    assert None not in keys


def test_edited_arrays_are_noticed():
    data = small_arrays()
    recipe = small_recipe(data=data)
    keys = [Job(recipe).key]
    data.x["train"][0] += 1
    keys.append(Job(recipe).key)
    data.x["train"].numpy()[1] = 0
    keys.append(Job(recipe).key)
    data.y["test"] = data.y["test"].flip(0)
    keys.append(Job(recipe).key)
    assert len(set(keys)) == 4
    data.y["test"] = data.y["test"].flip(0)
    assert Job(recipe).key == keys[2]


def test_a_replaced_image_of_the_same_size_and_time_is_noticed(tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / split / label / f"{i}.bmp")
    first, again = ImageFolder(tmp_path, 8).fingerprint, ImageFolder(tmp_path, 8).fingerprint
    path = tmp_path / "train" / "a" / "0.bmp"
    before = path.stat()
    Image.new("RGB", (8, 8), (0, 9, 0)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    changed = ImageFolder(tmp_path, 8).fingerprint
    assert first == again != changed


class ReadsAFile(nn.Module):
    path = ""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 6)
        self.settings = configparser.ConfigParser()
        self.settings.read(self.path)

    def forward(self, x):
        return self.a(x) * float(self.settings["a"]["scale"])


def test_a_file_that_a_package_reads_for_the_users_code_is_noticed(tmp_path, monkeypatch, caplog):
    path = tmp_path / "settings.ini"
    path.write_text("[a]\nscale = 2\n")
    monkeypatch.setattr(ReadsAFile, "path", str(path))
    recipe = small_recipe(model=ReadsAFile, init="module", steps="3it")
    job = Job(recipe)
    assert job.key is None
    assert "__init__ opens" in job.not_cacheable
    assert "settings.ini" in job.not_cacheable
    assert "test_remembered.py, line" in job.not_cacheable
    engine = lotto.engine.make(jobs=1, store=Store(tmp_path / "runs"))
    engine.run([Job(recipe), Job(recipe, order_seed=1)])
    assert caplog.text.count("are not remembered") == 1
    assert "settings.ini" in caplog.text


SIZES = {"train": [], "evaluation": []}


class Counts(nn.Linear):
    mode = ""

    def __init__(self):
        super().__init__(12, 6)

    def forward(self, x):
        mode = "train" if self.training else "evaluation"
        if mode == self.mode:
            SIZES[mode].append(len(x))
        return super().forward(x)


@pytest.mark.parametrize("mode", SIZES)
def test_a_network_that_changes_what_it_reads_is_trained_and_not_remembered(mode, store, monkeypatch, caplog):
    monkeypatch.setattr(Counts, "mode", mode)
    recipe = small_recipe(model=Counts, init="module", steps="3it")
    job = Job(recipe)
    assert job.key is None
    assert "changes what it reads" in job.not_cacheable
    assert "SIZES" in job.not_cacheable
    runs = lotto.engine.make(jobs=1, store=store).run([Job(recipe, seed) for seed in range(3)])
    assert len({float(run.test_loss) for run in runs}) == 3
    assert caplog.text.count("are not remembered") == 1


SCALE = 1.0


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(12, 6)

    def forward(self, x):
        return super().forward(x) * SCALE


def test_a_recipe_asked_again_after_a_value_changed_has_another_key(monkeypatch):
    recipe = small_recipe(model=Scaled, init="module", steps="3it")
    first = Job(recipe).key
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    second = Job(recipe).key
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert second != first == Job(recipe).key


def test_a_job_whose_code_changed_before_it_ran_is_refused(tmp_path, monkeypatch):
    job = Job(small_recipe(model=Scaled, init="module", steps="3it"))
    assert job.key is not None
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(UsageError, match=r"made of \(model\) has changed"):
        get_or_compute(Store(tmp_path), job)


def test_weighted_losses_and_metrics_of_the_users_are_remembered():
    weights = [nn.CrossEntropyLoss(weight=torch.arange(1.0, 7.0) * k) for k in (1, 1, 2)]
    keys = [Job(small_recipe(loss=w)).key for w in weights]
    assert keys[0] == keys[1] != keys[2]

    def metric(outputs, targets):
        return (outputs.argmax(1) != targets).float().mean()

    assert Job(small_recipe(error=metric)).key not in (None, Job(small_recipe()).key)


def test_no_generator_is_moved_by_making_a_key():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert Job(small_recipe(model=Scaled, init="module")).key
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
