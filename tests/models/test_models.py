from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import lotto
from lotto.core.errors import UsageError
from lotto.models import build
from lotto.pruning import masks


def parameters(name, shape, classes=10):
    model = build(name, shape, classes)
    x = torch.randn(2, *shape)
    assert model(x).shape == (2, classes)
    return sum(p.numel() for p in model.parameters()), masks.size(masks.ones(model))


@pytest.mark.parametrize(
    ("name", "shape", "total", "prunable"),
    [
        ("lenet-300-100", (1, 28, 28), 266_610, 266_200),
        ("mlp-256-256", (40,), 78_858, 78_336),
        ("resnet-20", (3, 32, 32), 272_474, 270_896),
        ("conv-2", (3, 32, 32), 4_301_642, 4_300_992),
        ("conv-4", (3, 32, 32), 2_425_930, 2_425_024),
        ("conv-6", (3, 32, 32), 2_262_602, 2_261_184),
        ("conv1d", (40,), 5_210, 5_125),
    ],
)
def test_parameter_counts(name, shape, total, prunable):
    assert parameters(name, shape) == (total, prunable)


def test_vgg19_has_twenty_million():
    total, _ = parameters("vgg-19", (3, 32, 32))
    assert 19.9e6 < total < 20.1e6


def test_width_and_depth_of_resnets():
    assert parameters("resnet-8-w4", (3, 32, 32))[0] < parameters("resnet-8", (3, 32, 32))[0]
    with pytest.raises(UsageError, match="6n \\+ 2 layers"):
        build("resnet-21", (3, 32, 32), 10)


def test_unknown_and_unsuitable_models():
    with pytest.raises(UsageError, match=r"Unknown model 'resnet20'.*Did you mean 'resnet-20'"):
        build("resnet20", (3, 32, 32), 10)
    with pytest.raises(UsageError, match=r"'vgg-16' cannot read inputs of shape \(40,\)"):
        build("vgg-16", (40,), 10)


def test_torchvision_is_asked_only_when_needed_and_missed_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UsageError, match=r"'torchvision/resnet50' needs torchvision.*lotto-tickets\[vision\]"):
        build("torchvision/resnet50", (3, 224, 224), 1000)
    with pytest.raises(UsageError, match="cannot read inputs"):
        build("torchvision/resnet50", (40,), 1000)


def test_timm_models_are_untrained_and_see_the_data_s_channels(monkeypatch):
    asked = []

    def create_model(name, **options):
        asked.append((name, options))
        return nn.Sequential(
            nn.Conv2d(options["in_chans"], options["num_classes"], 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    package = types.ModuleType("timm")
    package.create_model, package.list_models = create_model, lambda: ["vit_tiny_patch16_224", "resnet10t"]
    package.is_model = lambda name: name in package.list_models()
    monkeypatch.setitem(sys.modules, "timm", package)
    assert parameters("timm/vit_tiny_patch16_224", (1, 28, 28)) == (20, 10)
    assert asked[0] == ("vit_tiny_patch16_224", {"pretrained": False, "in_chans": 1, "num_classes": 10})
    with pytest.raises(UsageError, match="Did you mean 'resnet10t'"):
        build("timm/resnet10", (3, 224, 224), 10)
    images = lotto.data.load("digits")
    run = lotto.train(lotto.Recipe("timm/resnet10t", images, batch_size=100, steps="2it"))
    assert run.steps == (0, 2)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"'timm/resnet10t' needs timm.*pip install timm"):
        build("timm/resnet10t", (3, 224, 224), 10)


def test_torchvision_models_are_untrained_and_without_auxiliary_outputs(monkeypatch):
    asked = []

    def get_model(name, **options):
        asked.append((name, options))
        return nn.Sequential(nn.Conv2d(3, options["num_classes"], 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    package, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    package.models = models
    models.get_model, models.list_models = get_model, lambda module: ["resnet50", "inception_v3"]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    assert parameters("torchvision/resnet50", (3, 224, 224)) == (40, 30)
    build("torchvision/inception_v3", (3, 299, 299), 1000)
    assert asked[0] == ("resnet50", {"weights": None, "num_classes": 10})
    assert asked[-1] == (
        "inception_v3",
        {"weights": None, "num_classes": 1000, "aux_logits": False, "init_weights": True},
    )
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        build("torchvision/resnet5", (3, 224, 224), 10)
