"""The presets: hyper-parameters of the papers, and fast variants meant for a CPU.

Every function takes any field of `Recipe` as an override: ``lenet_mnist(steps="8ep", optimizer__lr=1e-3)``.
STAB = Stabilizing the Lottery Ticket Hypothesis (figure 2, its ResNet and VGG schedules put right); LTH = the
original paper; LMC = Linear Mode Connectivity and the LTH.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from lotto.core import registry
from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.data.augment import Augment
from lotto.pruning.rule import Pruning
from lotto.recipe.lr_schedules import Exponential, Linear, MultiStep
from lotto.recipe.optimizers import SGD, Adam, AdamW, RMSprop
from lotto.recipe.pretrained import Pretrained
from lotto.recipe.recipe import UNNAMED, Recipe
from lotto.recipe.titles import ENTRY_POINTS

CIFAR_AUGMENT = Augment(crop=4, flip=True)


PRESETS: dict[str, Callable[..., Recipe]] = {}
"""By name, in the order of this file."""


def preset(make: Callable[[], Recipe]) -> Callable[..., Recipe]:
    """Name a recipe after its function and let any of its fields be overridden."""
    name = make.__name__.replace("_", "-")

    @wraps(make)
    def preset(**overrides: Any) -> Recipe:
        return make().replace(**{"name": name, **overrides})

    PRESETS[name] = preset
    return preset


@preset
def mlp_mnist1d() -> Recipe:
    """A 40-256-256-10 MLP on MNIST-1D in 2,000 steps: the whole phenomenon in a minute, no download."""
    return Recipe(
        model="mlp-256-256",
        data="mnist1d",
        optimizer=SGD(0.1, momentum=0.9),
        schedule=Linear(),
        batch_size=100,
        steps="2000it",
        init="kaiming-normal",
        tolerance=1.0,
    )


@preset
def mlp_mnist1d_50k() -> Recipe:
    """A 40-256-256-10 MLP on MNIST-1D with 50,000 signals in 1,000 steps: its 10,000 test examples decide."""
    return Recipe(
        model="mlp-256-256",
        data="mnist1d-50k",
        optimizer=SGD(0.2, momentum=0.9),
        schedule=Linear(),
        batch_size=100,
        steps="1000it",
        init="kaiming-normal",
        rewind_to="100it",
    )


@preset
def conv_mnist1d() -> Recipe:
    """A small 1-D convolutional network on MNIST-1D in 2,000 steps."""
    return Recipe(
        model="conv1d",
        data="mnist1d",
        optimizer=Adam(1e-2),
        schedule=Linear(),
        batch_size=100,
        steps="2000it",
        init="kaiming-normal",
        tolerance=1.0,
    )


@preset
def resnet20_mnist1d() -> Recipe:
    """A 20-layer 1-D ResNet on 50,000 signals, 1,000 steps: rewinding matters, as for ResNet-20 at the standard rate.

    No warm-up; SGD 0.2 is held for half of the training. The dense network is unstable at torch's own initialisation.
    """
    return Recipe(
        model="resnet-20-w8",
        data="mnist1d-50k",
        optimizer=SGD(0.2, momentum=0.9, weight_decay=1e-4),
        schedule=MultiStep(milestones=("500it", "750it")),
        batch_size=128,
        steps="1000it",
        evaluations=4,
        pruning=Pruning(0.3),
        rewind_to="100it",
    )


@preset
def resnet20_mnist1d_low() -> Recipe:
    """The same at a low rate, SGD 0.02, as STAB's low-rate row of ResNet-20."""
    return resnet20_mnist1d().replace(optimizer__lr=0.02, rewind_to="0it")


@preset
def resnet20_mnist1d_warmup() -> Recipe:
    """The same with 200 iterations of linear warm-up to 0.2, as STAB's warm-up row of ResNet-20."""
    return resnet20_mnist1d().replace(schedule__warmup="200it", rewind_to="0it")


@preset
def lenet_mnist() -> Recipe:
    """LeNet-300-100 on MNIST as in LTH and STAB: Adam, layer-wise 20 %, output layer 10 %."""
    return Recipe(
        model="lenet-300-100",
        data="mnist",
        optimizer=Adam(1.2e-3),
        batch_size=60,
        steps="50000it",
        init="glorot-normal",
        validation=5_000,
        pruning=Pruning(0.2, allocation="layer", rates={"fc3": 0.1}),
    )


@preset
def lenet_mnist_sgd() -> Recipe:
    """LeNet-300-100 on MNIST as in LMC: SGD 0.1, 40 epochs, global 20 %, output layer not pruned."""
    return Recipe(
        model="lenet-300-100",
        data="mnist",
        optimizer=SGD(0.1),
        batch_size=128,
        steps="40ep",
        init="kaiming-normal",
        pruning=Pruning(0.2, exclude=("fc3",)),
    )


@preset
def lenet_mnist_fast() -> Recipe:
    """LeNet-300-100 on MNIST in 4 epochs of a triangular schedule."""
    return lenet_mnist_sgd().replace(
        steps="4ep",
        optimizer=SGD(0.1, momentum=0.9),
        schedule=Linear(warmup="200it"),
    )


def _conv(depth: int, lr: float, steps: str, rate: float) -> Recipe:
    return Recipe(
        model=f"conv-{depth}",
        data="cifar10",
        optimizer=Adam(lr),
        batch_size=60,
        steps=steps,
        init="glorot-normal",
        validation=5_000,
        pruning=Pruning(rate, allocation="layer", rates={"fc1": 0.2, "fc2": 0.2, "fc3": 0.1}),
    )


@preset
def conv2_cifar10() -> Recipe:
    """Conv-2 on CIFAR-10 as in LTH: layer-wise, convolutions 10 %, linear 20 %, output 10 %."""
    return _conv(2, 2e-4, "20000it", 0.1)


@preset
def conv2_cifar10_fast() -> Recipe:
    """Conv-2 on CIFAR-10 in 4 epochs of a triangular schedule, bfloat16."""
    return conv2_cifar10().replace(
        batch_size=128,
        steps="4ep",
        optimizer=Adam(1e-3),
        schedule=Linear(warmup="200it"),
        precision="bfloat16",
        validation=0,
    )


@preset
def conv4_cifar10() -> Recipe:
    """Conv-4 on CIFAR-10 as in LTH: layer-wise, convolutions 10 %, linear 20 %, output 10 %."""
    return _conv(4, 3e-4, "25000it", 0.1)


@preset
def conv6_cifar10() -> Recipe:
    """Conv-6 on CIFAR-10 as in LTH: layer-wise, convolutions 15 %, linear 20 %, output 10 %."""
    return _conv(6, 3e-4, "30000it", 0.15)


@preset
def resnet20_cifar10() -> Recipe:
    """ResNet-20 on CIFAR-10, STAB's standard row: SGD 0.1, drops at 20K and 25K of 30K."""
    return Recipe(
        model="resnet-20",
        data="cifar10",
        optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-4),
        schedule=MultiStep(milestones=("20000it", "25000it")),
        batch_size=128,
        steps="30000it",
        init="glorot-normal",
        augment=CIFAR_AUGMENT,
        validation=5_000,
        pruning=Pruning(0.2, exclude=("fc",)),
        rewind_to="500it",
    )


@preset
def resnet20_cifar10_low() -> Recipe:
    """ResNet-20 on CIFAR-10, STAB's low-rate row: SGD 0.01."""
    return resnet20_cifar10().replace(optimizer__lr=0.01, rewind_to="0it")


@preset
def resnet20_cifar10_warmup() -> Recipe:
    """ResNet-20 on CIFAR-10, STAB's warm-up row: SGD 0.03, 20K iterations of linear warm-up."""
    return resnet20_cifar10().replace(
        optimizer__lr=0.03,
        schedule__warmup="20000it",
        rewind_to="0it",
    )


@preset
def resnet20_cifar10_fast() -> Recipe:
    """ResNet-20 on CIFAR-10 in 8 epochs of a triangular schedule, bfloat16, 36 % of all layers per level."""
    return Recipe(
        model="resnet-20",
        data="cifar10",
        optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-4),
        schedule=Linear(warmup="200it"),
        batch_size=128,
        steps="8ep",
        init="kaiming-normal",
        augment=CIFAR_AUGMENT,
        precision="bfloat16",
        evaluations=8,
        pruning=Pruning(0.36),
        rewind_to="390it",
    )


@preset
def resnet8_cifar10_short() -> Recipe:
    """ResNet-8 on CIFAR-10, the standard row's schedule in 2,000 iterations: unstable at initialisation.

    No warm-up; the rate 0.1 is held for two thirds of the training.
    """
    return resnet20_cifar10_fast().replace(
        model="resnet-8",
        schedule=MultiStep(milestones=("1333it", "1667it")),
        steps="2000it",
        rewind_to="500it",
    )


@preset
def vgg16_cifar10() -> Recipe:
    """VGG-16 on CIFAR-10 as in LMC: SGD 0.1, 160 epochs, drops at 80 and 120, output not pruned."""
    return Recipe(
        model="vgg-16",
        data="cifar10",
        optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-4),
        schedule=MultiStep(milestones=("80ep", "120ep")),
        batch_size=128,
        steps="160ep",
        init="kaiming-normal",
        norm_init="uniform",
        augment=CIFAR_AUGMENT,
        pruning=Pruning(0.2, exclude=("fc",)),
        rewind_to="1000it",
    )


@preset
def vgg16_cifar10_fast() -> Recipe:
    """VGG-16 on CIFAR-10 in 4 epochs of a triangular schedule, bfloat16."""
    return vgg16_cifar10().replace(
        steps="4ep",
        schedule=Linear(warmup="200it"),
        precision="bfloat16",
        norm_init="ones",
        evaluations=4,
        pruning=Pruning(0.5, exclude=("fc",)),
        rewind_to="390it",
    )


@preset
def vgg19_cifar10() -> Recipe:
    """VGG-19 on CIFAR-10, STAB's standard row: SGD 0.1, batch 64, drops at 56K and 84K of 112K."""
    return Recipe(
        model="vgg-19",
        data="cifar10",
        optimizer=SGD(0.1, momentum=0.9, weight_decay=1e-4),
        schedule=MultiStep(milestones=("56000it", "84000it")),
        batch_size=64,
        steps="112000it",
        init="glorot-normal",
        augment=CIFAR_AUGMENT,
        validation=5_000,
        pruning=Pruning(0.2, exclude=("fc",)),
        rewind_to="100it",
    )


@preset
def vgg19_cifar10_low() -> Recipe:
    """VGG-19 on CIFAR-10, STAB's low-rate row: SGD 0.01."""
    return vgg19_cifar10().replace(optimizer__lr=0.01, rewind_to="0it")


@preset
def vgg19_cifar10_warmup() -> Recipe:
    """VGG-19 on CIFAR-10, STAB's warm-up row: SGD 0.1, 10K iterations of linear warm-up."""
    return vgg19_cifar10().replace(schedule__warmup="10000it", rewind_to="0it")


@preset
def resnet50_imagenet() -> Recipe:
    """ResNet-50 on ImageNet, STAB: SGD 0.4, batch 1024, 5 epochs of warm-up, drops at 30, 60, 80 of 90 epochs."""
    return Recipe(
        model="torchvision/resnet50",
        data="imagenet",
        optimizer=SGD(0.4, momentum=0.9, weight_decay=1e-4),
        schedule=MultiStep(warmup="5ep", milestones=("30ep", "60ep", "80ep")),
        batch_size=1024,
        steps="90ep",
        init="kaiming-normal",
        augment=Augment(flip=True),
        evaluations=30,
        rewind_to="6ep",
    )


@preset
def inception_v3_imagenet() -> Recipe:
    """Inception-v3 on ImageNet, STAB: SGD 0.03 falling linearly to 0.005 over 171 epochs, batch 1024.

    Without the auxiliary output: 23.8 million parameters; STAB's 27.1 million count it.
    """
    return Recipe(
        model="torchvision/inception_v3",
        data="imagenet-299",
        optimizer=SGD(0.03, momentum=0.9, weight_decay=1e-4),
        schedule=Linear(end=0.005 / 0.03),
        batch_size=1024,
        steps="171ep",
        init="kaiming-normal",
        augment=Augment(flip=True),
        evaluations=30,
        rewind_to="6ep",
    )


@preset
def squeezenet_imagenet() -> Recipe:
    """SqueezeNet on ImageNet, STAB: RMSprop 0.66 falling exponentially over 150 epochs, batch 1024.

    Momentum, eps and the rate's last value (1e-4 of the first) are our choice: STAB's table gives none.
    """
    return Recipe(
        model="torchvision/squeezenet1_0",
        data="imagenet",
        optimizer=RMSprop(0.66, eps=1.0, momentum=0.9),
        schedule=Exponential(end=1e-4),
        batch_size=1024,
        steps="150ep",
        init="kaiming-normal",
        augment=Augment(flip=True),
        evaluations=30,
        rewind_to="10ep",
    )


@preset
def minilm_spam() -> Recipe:
    """MiniLM, six layers of a pretrained BERT, on SpamAssassin's mails: AdamW 5e-5, one epoch; encoder pruned.

    Weights are rewound to the pretrained ones; the classifier is new in each replicate. Embeddings, half of all
    parameters, and the classifier are not pruned.
    """
    return Recipe(
        model="minilm-l6",
        data="spam-assassin",
        pretrained=Pretrained("minilm-l6", new=("classifier",)),
        optimizer=AdamW(5e-5, weight_decay=0.01),
        schedule=Linear(warmup="15it"),
        batch_size=32,
        steps="1ep",
        evaluations=0,
        pruning=Pruning(0.3, exclude=("classifier",)),
        tolerance=0.5,
    )


@preset
def minilm_spam_short() -> Recipe:
    """The same in 60 iterations at twice the rate, of each mail its first 48 tokens: minutes on a CPU."""
    return minilm_spam().replace(model="minilm-l6-t48", steps="60it", schedule__warmup="10it", optimizer__lr=1e-4)


@preset
def mlp_diamonds() -> Recipe:
    """A perceptron that tells the price of a diamond: regression, error and tolerance in logarithms of the price."""
    return Recipe(
        model="mlp-64-64",
        data="diamonds",
        optimizer=Adam(1e-2),
        schedule=Linear(),
        batch_size=256,
        steps="8ep",
        init="kaiming-normal",
        loss="mse",
        error="rmse",
        evaluations=4,
        pruning=Pruning(0.4),
        rewind_to="1ep",
        tolerance=0.003,
    )


@preset
def gru_vowels() -> Recipe:
    """A recurrent network that knows nine speakers by two vowels: series of unequal lengths, padded, with a mask."""
    return Recipe(
        model="gru-32",
        data="japanese-vowels",
        optimizer=Adam(1e-2),
        schedule=Linear(),
        batch_size=27,
        steps="20ep",
        evaluations=4,
        pruning=Pruning(0.5, exclude=("fc",)),
        rewind_to="20it",
        tolerance=1.0,
    )


@checked
def get(name: str, **overrides: Any) -> Recipe:
    """A recipe by its command-line name: a preset's, an installed package's, or ``package.module:recipe``.

    Packages name theirs as entry points ``lotto.recipes``: a `Recipe`, or a function without arguments that returns
    one.

    Raises:
        UsageError: if the name is unknown; lists the choices and suggests the nearest.

    >>> get("mlp-mnist1d", steps="20it").name
    'mlp-mnist1d'
    """
    key = name.replace("_", "-")
    if key in PRESETS:
        return PRESETS[key](**overrides)
    found = registry.find("recipe", name, PRESETS, ENTRY_POINTS)
    made = found if isinstance(found, Recipe) or not callable(found) else found()
    if not isinstance(made, Recipe):
        raise UsageError(
            f"{name!r} is a lotto.Recipe, or a function without arguments that returns one; got {text(made)}."
        )
    named = made.replace(name=name) if made.name == UNNAMED else made
    return named.replace(**overrides)
