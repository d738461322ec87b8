"""Training steps: of perceptrons and 1-D ResNets, dense and sparse, of a ResNet, single and stacked."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache

import torch
from loky import ProcessPoolExecutor
from torch import nn

from lotto.benchmarks.baselines import half_left, lenet_epoch, tight, usual
from lotto.benchmarks.convolutions import image_recipe, made
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.data.sources.catalog import CIFAR10, MNIST
from lotto.execution.autotune import WIDTH, steps_of
from lotto.execution.factory import available_cores
from lotto.execution.memory import keep_freed_memory
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import prune
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.channel_skipping import ChannelSkipping
from lotto.training.learners.perceptron import Perceptron
from lotto.training.learners.sparse_linear import SPARSE
from lotto.training.loop import learner_of, train
from lotto.training.network import flushed_denormals

EACH = "lotto, a worker per core, per replicate"


def lenet() -> Benchmark:
    """An epoch of LeNet-300-100 on MNIST at half density, test evaluation included."""
    recipe = lenet_epoch()
    mask, half = half_left(recipe), recipe.replace(precision="bfloat16")
    return Benchmark(
        "LeNet-300-100/MNIST, one epoch and a test evaluation, all cores",
        {
            "lotto": lambda: ignore(train(Job(recipe, mask=mask))),
            EACH: _one_per_core(lenet_epoch, (), mask),
            "usual loop": usual(recipe, mask, MNIST),
            "tight loop": tight(recipe, mask),
            "lotto, bfloat16": lambda: ignore(train(Job(half, mask=mask))),
        },
        [
            ("lotto", "usual loop", "≥ 8"),
            (EACH, "usual loop", "–"),
            ("lotto", "tight loop", "≥ 0.87"),
            ("lotto, bfloat16", "lotto", "–"),
        ],
        replicates={EACH: available_cores()},
    )


@cache
def resnet(steps: int = 24) -> Benchmark:
    """Steps of ResNet-20 on CIFAR-10 with augmentation, at half density."""
    recipe = image_recipe(steps)
    mask = half_left(recipe)
    return Benchmark(
        f"ResNet-20/CIFAR-10, {steps} steps of batch {recipe.batch_size}, all cores",
        {
            "lotto": lambda: ignore(train(Job(recipe, mask=mask))),
            EACH: _one_per_core(image_recipe, (steps,), mask),
            "usual loop": usual(recipe, mask, CIFAR10),
        },
        [("lotto", "usual loop", "≥ 2.2"), (EACH, "usual loop", "≥ 4")],
        replicates={EACH: available_cores()},
    )


def _one_per_core(recipe: Callable[..., Recipe], arguments: tuple[int, ...], mask: Mask) -> Contender:
    """As many trainings at once as there are cores, each in a worker with one thread."""
    cores = available_cores()
    workers = ProcessPoolExecutor(cores, initializer=_start_worker)
    atexit.register(workers.shutdown, kill_workers=True)

    def contender() -> None:
        for future in [workers.submit(_trained, recipe, arguments, mask) for _ in range(cores)]:
            future.result()

    return contender


def _start_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _trained(recipe: Callable[..., Recipe], arguments: tuple[int, ...], mask: Mask) -> None:
    with flushed_denormals():
        train(Job(recipe(*arguments), mask=mask))


def _steps(recipe: Recipe, density: float, count: int, crossover: float = SPARSE) -> Contender:
    """``count`` training steps at a density, with nothing around them; layers above ``crossover`` are dense."""
    mask = prune(recipe.initial(0), masks.ones(recipe), rate=1 - density) if density < 1 else None
    job = Job(recipe, mask=mask)
    return _repeated(steps_of(made(Perceptron, job, crossover=crossover)), count)


def _sparse(recipe: Recipe, title: str, count: int, goals: dict[float, str]) -> Benchmark:
    contenders = {f"{d:.0%} left": _steps(recipe, d, count) for d in (1.0, *goals)}
    least, masked = min(goals), f"{min(goals):.0%} left, dense layers and a mask"
    contenders[masked] = _steps(recipe, least, count, crossover=0.0)
    pairs = [(f"{d:.0%} left", "100% left", goal) for d, goal in goals.items()]
    pairs.append((f"{least:.0%} left", masked, "–"))
    return Benchmark(f"{title}, {count} training steps, one thread", contenders, pairs, threads=1)


def sparse() -> Benchmark:
    """Steps of LeNet-300-100 on MNIST as fewer weights are left."""
    recipe = presets.lenet_mnist_sgd(device="cpu")
    return _sparse(recipe, "LeNet-300-100/MNIST", 100, {0.2: "–", 0.1: "–", 0.05: "≥ 2", 0.02: "≥ 3"})


def wide() -> Benchmark:
    """Steps of a perceptron with two layers of 4,096 units as fewer weights are left."""
    recipe = presets.lenet_mnist_sgd(model="mlp-4096-4096", device="cpu")
    return _sparse(recipe, "784-4096-4096-10/MNIST", 4, {0.2: "–", 0.1: "–", 0.05: "–", 0.02: "≥ 5"})


def cut() -> Benchmark:
    """Steps of VGG-11 on CIFAR-10 when nothing reads a half, or three quarters, of the channels of every layer."""
    recipe = image_recipe(2).replace(model="vgg-11", steps="1000it")  # the first two of so many
    contenders: dict[str, Contender] = {}
    pairs = []
    for fraction in (0.5, 0.75):
        mask = _unread(recipe, fraction)
        job = Job(recipe, mask=mask)
        for name, kind in (("", ChannelSkipping), (", dense network", Autograd)):
            contenders[f"{fraction:.0%} unread{name}"] = _repeated(steps_of(made(kind, job)), 2)
        pairs.append((f"{fraction:.0%} unread", f"{fraction:.0%} unread, dense network", "–"))
    return Benchmark("VGG-11/CIFAR-10, 2 training steps, one thread", contenders, pairs, threads=1)


def _unread(recipe: Recipe, fraction: float) -> Mask:
    """All weights but those that read the first channels of another layer."""
    keep = {name: mask.clone() for name, mask in masks.ones(recipe).items()}
    for mask in keep.values():
        if mask.shape[1] > recipe.arrays.shape[0]:
            mask[:, : round(fraction * mask.shape[1])] = False
    return Mask(keep)


def width() -> Benchmark:
    """Steps of perceptrons with two hidden layers as these grow, with all and with a twentieth of the weights."""
    contenders: dict[str, Contender] = {}
    pairs = []
    for units in (128, 512, 2048):
        recipe = presets.lenet_mnist_sgd(model=f"mlp-{units}-{units}", device="cpu")
        every, few = f"{units} units", f"{units} units, 5% left"
        contenders |= {every: _steps(recipe, 1.0, 10), few: _steps(recipe, 0.05, 10)}
        pairs.append((few, every, "–"))
        if units > 128:
            pairs.append((every, f"{units // 4} units", "–"))
    return Benchmark("784-n-n-10/MNIST, 10 training steps, one thread", contenders, pairs, threads=1)


def stacked() -> Benchmark:
    """Steps of several networks in a stack against one after another: whether it is faster depends on the network."""
    contenders: dict[str, Contender] = {}
    pairs, replicates = [], {}
    small = presets.mlp_mnist1d(device="cpu")
    own = small.replace(model=_own)  # trained by autograd, as any class of a user
    resnet_ = image_recipe(2).replace(model="resnet-8")
    for name, recipe, count in (
        ("own 40-64-10", own, 200),
        ("40-256-256-10", small, 100),
        ("LeNet-300-100", presets.lenet_mnist_sgd(device="cpu"), 20),
        ("ResNet-8", resnet_, 2),
    ):
        jobs = [Job(recipe, i, i) for i in range(WIDTH)]
        one, all_ = f"{name}, alone", f"{name}, {WIDTH} stacked"
        contenders |= {
            one: _repeated(steps_of(learner_of(jobs[:1])), count),
            all_: _repeated(steps_of(learner_of(jobs)), count),
        }
        replicates[all_] = WIDTH
        pairs.append((all_, one, "–"))
    title = "Steps of networks in a stack, per network, one thread"
    return Benchmark(title, contenders, pairs, threads=1, replicates=replicates)


def _own() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 10))


def _repeated(steps: Callable[[int], None], count: int) -> Contender:
    return lambda: steps(count)
