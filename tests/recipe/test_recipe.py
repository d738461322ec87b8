from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import SGD, Adam, Cosine, Job, Linear, Recipe, recipes
from lotto.core import fingerprint
from lotto.core.errors import UsageError
from lotto.data import Augment


def facts(recipe):
    optimizer = recipe.optimizer
    return (
        recipe.model,
        recipe.data,
        type(optimizer).__name__,
        optimizer.lr,
        getattr(optimizer, "momentum", None),
        optimizer.weight_decay,
        recipe.batch_size,
        recipe.steps,
        recipe.validation,
        recipe.pruning.scope,
        recipe.pruning.rate,
        dict(recipe.pruning.rates),
        recipe.pruning.exclude,
    )


CONV_RATES = {"fc1": 0.2, "fc2": 0.2, "fc3": 0.1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet-mnist", ("lenet-300-100", "mnist", "Adam", 1.2e-3, None, 0, 60, "50000it", 5000, "layer", 0.2, {"fc3": 0.1}, ())),
        ("lenet-mnist-sgd", ("lenet-300-100", "mnist", "SGD", 0.1, 0, 0, 128, "40ep", 0, "global", 0.2, {}, ("fc3",))),
        ("conv2-cifar10", ("conv-2", "cifar10", "Adam", 2e-4, None, 0, 60, "20000it", 5000, "layer", 0.1, CONV_RATES, ())),
        ("conv4-cifar10", ("conv-4", "cifar10", "Adam", 3e-4, None, 0, 60, "25000it", 5000, "layer", 0.1, CONV_RATES, ())),
        ("conv6-cifar10", ("conv-6", "cifar10", "Adam", 3e-4, None, 0, 60, "30000it", 5000, "layer", 0.15, CONV_RATES, ())),
        ("resnet20-cifar10", ("resnet-20", "cifar10", "SGD", 0.1, 0.9, 1e-4, 128, "30000it", 5000, "global", 0.2, {}, ("fc",))),
        ("resnet20-cifar10-low", ("resnet-20", "cifar10", "SGD", 0.01, 0.9, 1e-4, 128, "30000it", 5000, "global", 0.2, {}, ("fc",))),
        ("resnet20-cifar10-warmup", ("resnet-20", "cifar10", "SGD", 0.03, 0.9, 1e-4, 128, "30000it", 5000, "global", 0.2, {}, ("fc",))),
        ("vgg16-cifar10", ("vgg-16", "cifar10", "SGD", 0.1, 0.9, 1e-4, 128, "160ep", 0, "global", 0.2, {}, ("fc",))),
        ("vgg19-cifar10", ("vgg-19", "cifar10", "SGD", 0.1, 0.9, 1e-4, 64, "112000it", 5000, "global", 0.2, {}, ("fc",))),
        ("vgg19-cifar10-low", ("vgg-19", "cifar10", "SGD", 0.01, 0.9, 1e-4, 64, "112000it", 5000, "global", 0.2, {}, ("fc",))),
        ("vgg19-cifar10-warmup", ("vgg-19", "cifar10", "SGD", 0.1, 0.9, 1e-4, 64, "112000it", 5000, "global", 0.2, {}, ("fc",))),
    ],
)  # fmt: skip
def test_hyper_parameters_of_the_papers(name, expected):
    assert facts(recipes.get(name)) == expected


def test_vgg_schedules_and_rewind_defaults():
    assert recipes.vgg19_cifar10().schedule.milestones == ("56000it", "84000it")
    assert recipes.vgg19_cifar10_warmup().schedule.warmup == "10000it"
    assert recipes.resnet20_cifar10_warmup().schedule.warmup == "20000it"
    assert recipes.vgg16_cifar10().schedule.milestones == ("80ep", "120ep")
    assert recipes.resnet20_cifar10().augment == Augment(4, True)


def test_every_preset_can_be_made_and_overridden():
    for preset in recipes.PRESETS.values():
        recipe = preset(steps="3it", optimizer__lr=0.5)
        assert recipe.steps == "3it"
        assert recipe.optimizer.lr == 0.5


def test_replace_reaches_inside_fields_and_changes_kinds():
    recipe = small_recipe(optimizer__momentum=0.5, schedule__kind="cosine", schedule__warmup="3it", augment__crop=2)
    assert recipe.optimizer == SGD(0.1, momentum=0.5)
    assert recipe.schedule == Cosine(warmup="3it")
    assert recipe.augment == Augment(crop=2)
    assert small_recipe(optimizer__kind="adam", optimizer__beta1=0.8).optimizer == Adam(0.1, beta1=0.8)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"step": 5}, r"Unknown field of a recipe 'step'.*Did you mean 'steps'"),
        ({"optimizer__momentun": 5}, r"Unknown field of optimizer 'momentun'.*Did you mean 'momentum'"),
        ({"optimizer__kind": "adan"}, r"Unknown kind of optimizer 'adan'.*Did you mean 'adam'"),
        ({"data": "minst"}, r"Unknown data set 'minst'.*Did you mean 'mnist'"),
        ({"data": [1, 2]}, r"data is text or a DataSource, such as lotto\.data\.Arrays"),
        ({"model": nn.Linear(2, 2)}, r"model=MyNet, not model=MyNet\(\)"),
        ({"init": "kaiming"}, r"Unknown initialisation 'kaiming'.*Did you mean 'kaiming-normal'"),
        ({"precision": "float16"}, "Unknown precision 'float16'"),
        ({"loss": "xent"}, "Unknown loss 'xent'"),
        ({"optimizer": 0.1}, r"optimizer is an Optimizer, such as .*; got 0\.1"),
        ({"optimizer__lr": -1}, "learning rate is greater than 0"),
        ({"steps": "five"}, "such as '500it'"),
        ({"batch_size": 0}, "batch_size is a whole number from 1; got 0"),
        ({"pruning__rate": 1.0}, "greater than 0 and less than 1"),
    ],
)
def test_bad_fields_are_named_when_the_recipe_is_made(changes, text):
    with pytest.raises(UsageError, match=text):
        small_recipe(**changes)


def test_bad_values_that_need_the_data():
    with pytest.raises(UsageError, match="between 1 and the 240 training examples"):
        _ = small_recipe(batch_size=241).total
    with pytest.raises(UsageError, match="at least one step"):
        _ = small_recipe(steps="0it").total
    with pytest.raises(UsageError, match=r"Unknown recipe 'lenet-mnits'.*Did you mean 'lenet-mnist'"):
        recipes.get("lenet-mnits")


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(12, width), nn.Linear(width, 6)

    def forward(self, x):
        return self.b(self.a(x).relu())


def key(**changes):
    return Job(small_recipe(**changes)).key


def test_identity_is_of_values_not_of_their_spelling():
    assert key(steps="2ep") == key(steps="24it") == key(steps=24)
    assert key(optimizer=SGD(1)) == key(optimizer=SGD(1.0))
    assert key(schedule=Linear(warmup="1ep")) == key(schedule=Linear(warmup=12))
    assert key(device="cpu") == key() == key(name="other", tolerance=3.0, pruning__rate=0.5)
    assert key(data=small_arrays()) == key()


def test_identity_changes_with_whatever_changes_the_outcome():
    keys = [
        key(),
        key(steps=25),
        key(optimizer=SGD(0.1)),
        key(optimizer=SGD(0.1, momentum=0.9, nesterov=True)),
        key(precision="float64"),
        key(data=small_arrays(seed=1)),
        key(model=Net, init="module"),
        key(model=functools.partial(Net, 9), init="module"),
        key(validation=20),
        key(batch_size=24),
        key(init="glorot-normal"),
        key(schedule=Cosine()),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_identity_of_a_job_covers_seeds_mask_start_and_steps():
    recipe = small_recipe()
    mask = lotto.pruning.masks.ones(recipe)
    start = lotto.State(recipe.initial(0))
    jobs = [
        Job(recipe),
        Job(recipe, init_seed=1),
        Job(recipe, order_seed=1),
        Job(recipe, mask=mask),
        Job(recipe, start=start, from_step=3),
        Job(recipe, to_step=30),
    ]
    assert len({job.key for job in jobs}) == len(jobs)
    assert Job(recipe, keep=(3,), label="x").key == Job(recipe).key
    assert Job(recipe, init_seed=5, start=start).key == Job(recipe, start=start).key
    assert Job(recipe, init_seed=0).key == Job(recipe, start=start).key, "the same start, given either way"


def test_the_source_of_a_users_model_is_its_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(12, 6){})\n"
    keys = []
    for name, extra in (("one", ""), ("two", ", nn.ReLU()")):
        (tmp_path / f"usernet_{name}.py").write_text(text.format(extra))
        keys.append(key(model=__import__(f"usernet_{name}").net, init="module"))
    assert keys[0] != keys[1]
    assert None not in keys


def test_what_cannot_be_identified_has_no_key():
    namespace: dict = {"nn": nn}
    exec("def net():\n    return nn.Linear(12, 6)", namespace)
    assert key(model=namespace["net"], init="module") is None
    assert "no source" in Job(small_recipe(model=namespace["net"], init="module")).not_cacheable


def test_variables_of_the_scope_around_are_part_of_a_models_identity():
    def made(width):
        return lambda: Net(width)

    found = {key(model=made(width), init="module") for width in (8, 8, 9)}
    assert len(found) == 2
    assert None not in found


def test_canonical_numbers():
    assert fingerprint.digest({"a": 1, "b": [True, None]}) == fingerprint.digest({"b": (True, None), "a": 1.0})
    assert fingerprint.digest(1) != fingerprint.digest(True)
    assert fingerprint.digest(0.1) != fingerprint.digest("0.1")


def test_recipes_travel_without_their_data():
    import pickle

    recipe = recipes.mlp_mnist1d()
    assert recipe.per_epoch == 40
    assert len(pickle.dumps(recipe)) < 10_000
    assert pickle.loads(pickle.dumps(recipe)).per_epoch == 40


def test_module_initialisation_is_seeded_and_private():
    recipe = Recipe(model=Net, data=small_arrays())
    torch.manual_seed(0)
    first = recipe.initial(0)
    torch.manual_seed(1)
    assert torch.equal(recipe.initial(0)["a.weight"], first["a.weight"])
    assert not torch.equal(recipe.initial(1)["a.weight"], first["a.weight"])
    assert np.isfinite(first["a.weight"].numpy()).all()


SCALE = 1.0


def scaled_loss(outputs, targets):
    return SCALE * nn.functional.cross_entropy(outputs, targets)


def helped_loss(outputs, targets):
    return scaled_loss(outputs, targets)


def test_code_that_differs_in_values_is_told_apart(monkeypatch):
    one, two = (lambda o, t, w=w: w * nn.functional.cross_entropy(o, t) for w in (1.0, 5.0))
    assert None not in (key(loss=one), key(loss=two))
    assert key(loss=one) != key(loss=two)
    first, second = (lambda o, t: o.mean()), (lambda o, t: o.sum())  # two on one line
    assert key(loss=first) != key(loss=second)
    before = key(loss=scaled_loss), key(loss=helped_loss)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert key(loss=scaled_loss) != before[0]
    assert key(loss=helped_loss) != before[1], "a global of a helper"


class Halved(SGD):
    def update(self, parameters, gradients, states, lr):
        super().update(parameters, gradients, states, lr / 2)


def test_a_users_optimizer_is_not_taken_for_ours():
    assert key(optimizer=Halved(0.1)) not in (key(optimizer=SGD(0.1)), None)


def test_dropout_rates_are_part_of_a_models_identity():
    def build(p):
        return nn.Sequential(nn.Dropout(p), nn.Linear(12, 6))

    a, b = (key(model=functools.partial(build, p), init="module") for p in (0.1, 0.2))
    assert a != b


def test_recipes_are_hashable():
    assert hash(recipes.lenet_mnist()) == hash(recipes.lenet_mnist())
    assert recipes.lenet_mnist() == recipes.lenet_mnist()


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 12.5}, {"validation": 0.1}, {"evaluations": True}, {"tolerance": float("nan")}, {"augment": True},
        {"schedule__warmup": [1]}, {"model": None}, {"pruning__rates": "abc"}, {"pruning__score": 3},
        {"augment__crop": 1.5}, {"optimizer__lr": "fast"}, {"optimizer": Adam(0.1), "optimizer__eps": 0},
    ],
)  # fmt: skip
def test_values_of_the_wrong_type_are_one_sentence(changes):
    with pytest.raises(UsageError, match=r"got .*\.$"):
        small_recipe(**changes)


def test_a_single_name_may_stand_for_a_tuple():
    assert small_recipe(pruning__exclude="fc3").pruning.exclude == ("fc3",)


def test_imagenet_networks_train_from_the_usual_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path))
    with pytest.raises(lotto.LottoError, match=r"ImageNet is not in .*train/CLASS/\*.JPEG"):
        _ = recipes.resnet50_imagenet().arrays
    for i in range(12):
        path = tmp_path / "imagenet" / ("train" if i < 8 else "val") / f"n0{i % 2}" / f"{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    for name in ("resnet50-imagenet", "inception-v3-imagenet", "squeezenet-imagenet"):
        # torchvision's networks are for those who have it; a small network of ours stands in for them.
        full = recipes.get(name, model="resnet-8-w4", batch_size=4, steps="3it", evaluations=1)
        side = 299 if "inception" in name else 224
        assert full.arrays.shape == (3, side, side)
        assert full.arrays.random_crop
        assert (full.per_epoch, full.arrays.size("test")) == (2, 4)
        quick = full.replace(data=lotto.data.ImageFolder(tmp_path / "imagenet", size=32, random_crop=True))
        assert np.isfinite(lotto.train(quick).test_error)


def test_images_are_normalised_also_when_the_architecture_is_asked_for_first(tmp_path, monkeypatch):
    # A worker whose first job has a mask builds the architecture, on the meta device, before it has the data.
    generator = np.random.default_rng(0)
    images = {f"x_{split}": generator.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8)
              for split, n in (("train", 60), ("test", 20))}  # fmt: skip
    labels = {f"y_{split}": generator.integers(0, 10, n) for split, n in (("train", 60), ("test", 20))}
    monkeypatch.setattr(lotto.data.sources.download, "get", lambda published, **options: images | labels)
    found = []
    for first in (False, True):
        monkeypatch.setenv("LOTTO_DATA", str(tmp_path / str(first)))  # not what an earlier call has loaded
        recipe = recipes.lenet_mnist_sgd(batch_size=20, steps="3it", evaluations=1)
        if first:
            recipe.meta_model()
        inputs, _ = next(recipe.arrays.batches(0, 0, 1, 20))
        assert abs(float(inputs.mean()) - 1.2) < 0.1  # (0.5 - 0.1307) / 0.3081
        found.append(lotto.train(recipe, mask=lotto.pruning.masks.ones(recipe)))
    assert same_tensors(found[0].weights, found[1].weights)


def test_arrays_are_where_their_inputs_are():
    x, y = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2), np.arange(6) % 2
    with torch.device("meta"):
        arrays = lotto.data.Arrays(x, y, x, y)
    assert float(arrays.normalise(arrays.x["train"]).mean()) == pytest.approx(0.0, abs=1e-6)
