"""What is trained: three networks on random images of the size of MNIST's and CIFAR-10's, in three precisions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch

from lotto.benchmarks.gpu.resnet18 import ResNet18
from lotto.core.errors import unknown
from lotto.core.rounding import Rounding
from lotto.data.in_memory import Arrays
from lotto.data.sources.catalog import CIFAR10, MNIST
from lotto.execution.autotune import steps_of
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.loop import learner_of

NETWORKS = ("lenet", "resnet-20", "resnet-18")
PRECISIONS = ("float32", "tf32", "bfloat16")
"""tf32 is float32 whose products a card rounds to 10 bits; bfloat16 is that of activations."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        batch: examples of a step.
        examples: of an epoch: MNIST's and CIFAR-10's.
        turn_seconds: each contender takes as many steps in a turn as fill so many seconds, at most an epoch's.
        repetitions: turns that count.
        widths: networks in a stack.
        processes: how many at once on one card.
        same_steps: after which two runs are compared to the bit.
    """

    batch: int = 128
    examples: tuple[int, int] = (60_000, 50_000)
    turn_seconds: float = 0.4
    repetitions: int = 5
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    processes: tuple[int, ...] = (2, 4, 8)
    same_steps: int = 50


TINY = Sizes(4, (64, 32), 0.0, 1, (2,), (2,), 2)
"""What shows on a processor that all of it runs; its times say nothing."""


@dataclass(frozen=True)
class Setup:
    """A training step that is measured.

    Attributes:
        network: of `NETWORKS`.
        precision: of `PRECISIONS`.
        device: ``cuda``, ``cuda:1``, ``cpu``.
        sizes: see there.
        compiled: whether by `torch.compile`.
        graphs: whether as CUDA graphs.

    >>> Setup("lenet", "tf32", "cpu", TINY).recipe.precision
    'float32'
    """

    network: str
    precision: str
    device: str
    sizes: Sizes
    compiled: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        for what, value, known in (("network", self.network, NETWORKS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise unknown(what, value, known)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the papers, LMC's LeNet and STAB's ResNet-20; ResNet-18 is trained as that is."""
        numbers, batch = self.sizes.examples, self.sizes.batch
        precision = "float32" if self.precision == "tf32" else self.precision
        how = {
            "batch_size": batch, "precision": precision, "device": self.device, "compile": self.compiled,
            "graphs": self.graphs,
        }  # fmt: skip
        if self.network == "lenet":
            return presets.lenet_mnist_sgd(data=_images(numbers[0], 1, 28), name=self.network, **how)
        model = ResNet18 if self.network == "resnet-18" else "resnet-20"
        data = _images(numbers[1], 3, 32)
        return presets.resnet20_cifar10(data=data, validation=0, model=model, name=self.network, **how)

    def jobs(self, width: int = 1) -> list[Job]:
        """Trainings with half of the weights, each with an initialisation and a data order of its own."""
        recipe = self.recipe
        every = masks.ones(recipe)
        return [Job(recipe, i, i, mask=prune(recipe.initial(i), every, rate=0.5)) for i in range(width)]

    def steps(self, width: int = 1) -> Callable[[int], None]:
        """What takes so many training steps: data order, augmentation, gradients, masks, optimizer; no evaluation."""
        return steps_of(learner_of(self.jobs(width)))


@cache
def _images(count: int, channels: int, size: int) -> Arrays:
    """Random bytes: how long a step takes does not depend on what the images show."""
    generator, few = torch.Generator().manual_seed(0), min(count, 128)
    x = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    y = torch.arange(count) % 10
    published = MNIST if channels == 1 else CIFAR10
    return Arrays(x, y, x[:few], y[:few], mean=published.mean, std=published.std, name="random images")


@contextlib.contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Have the card multiply float32 numbers as such, or in tf32, within the block; convolutions, too.

    torch's own setting is tf32 for convolutions and float32 for other products.
    """
    before = Rounding.of_this_process()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        before.set()
