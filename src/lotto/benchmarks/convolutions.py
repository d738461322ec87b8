"""Training steps of convolutional networks as fewer weights are left, against autograd's with dense layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lotto.benchmarks.baselines import arrays_of, tight_steps
from lotto.benchmarks.harness import Benchmark, Contender
from lotto.data.in_memory import Arrays
from lotto.data.sources.catalog import CIFAR10
from lotto.execution.autotune import steps_of
from lotto.execution.factory import available_cores
from lotto.execution.threads import limited_threads
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.base import Learner
from lotto.training.learners.convolutions import Convolutions
from lotto.training.network import Network

FLOAT32, BFLOAT16, TIGHT = "autograd, float32", "autograd, bfloat16", "tight loop"


def signals(count: int = 10) -> Benchmark:
    """Steps of a 1-D ResNet-20 on MNIST-1D, against a tight loop's, too."""
    recipe = presets.resnet20_mnist1d(device="cpu")
    others = {FLOAT32: _steps(Autograd, Job(recipe), count), TIGHT: tight_steps(recipe, count)}
    goals = {1.0: {TIGHT: "≥ 2"}, 0.5: {}, 0.2: {}, 0.1: {}, 0.05: {TIGHT: "≥ 4"}, 0.02: {}}
    return _densities("1-D ResNet-20/MNIST-1D", recipe, count, others, goals)


def images(count: int = 2) -> Benchmark:
    """Steps of ResNet-20 on CIFAR-10 with augmentation."""
    recipe = image_recipe(count, precision="float32")
    goals = {1.0: {}, 0.2: {FLOAT32: "≥ 1"}, 0.05: {FLOAT32: "≥ 3"}, 0.02: {FLOAT32: "≥ 5"}}
    return _densities("ResNet-20/CIFAR-10", recipe, count, _dense(recipe, count), goals)


def images_in_bfloat16(count: int = 2) -> Benchmark:
    """The same with activations in bfloat16."""
    recipe = image_recipe(count, precision="bfloat16")
    goals = {1.0: {}, 0.2: {BFLOAT16: "≥ 1"}, 0.05: {BFLOAT16: "≥ 1.5"}, 0.02: {BFLOAT16: "≥ 2.5"}}
    return _densities("ResNet-20/CIFAR-10 in bfloat16", recipe, count, _dense(recipe, count), goals)


def deep(count: int = 1) -> Benchmark:
    """Steps of VGG-16 on CIFAR-10 with augmentation."""
    recipe = image_recipe(count, model="vgg-16", precision="float32")
    others = {FLOAT32: _steps(Autograd, Job(recipe), count)}
    return _densities("VGG-16/CIFAR-10", recipe, count, others, {1.0: {}, 0.1: {}, 0.02: {FLOAT32: "≥ 5"}})


def deep_in_bfloat16(count: int = 1) -> Benchmark:
    """The same with activations in bfloat16."""
    recipe = image_recipe(count, model="vgg-16", precision="bfloat16")
    goals: dict[float, dict[str, str]] = {1.0: {}, 0.1: {}, 0.02: {FLOAT32: "≥ 5"}}
    return _densities("VGG-16/CIFAR-10 in bfloat16", recipe, count, _dense(recipe, count), goals)


def threads(count: int = 2) -> Benchmark:
    """Steps of ResNet-20 on CIFAR-10 by all cores together against those of one; worker processes have one each."""
    cores = available_cores()
    contenders: dict[str, Contender] = {}
    pairs = []
    for precision in ("float32", "bfloat16"):
        recipe = image_recipe(count, precision=precision)
        mask = prune(recipe.initial(0), masks.ones(recipe), rate=0.95)
        for name, kind, job in (
            (f"autograd, {precision}", Autograd, Job(recipe)),
            (f"5% left, {precision}", Convolutions, Job(recipe, mask=mask)),
        ):
            for number in (1, cores):
                contenders[_by(name, number)] = _threaded(number, kind, job, count)
            pairs.append((_by(name, cores), _by(name, 1), "–"))
    title = f"ResNet-20/CIFAR-10, {count} training steps of batch {recipe.batch_size}"
    return Benchmark(title, contenders, pairs)


def _by(name: str, number: int) -> str:
    return f"{name}, {number} threads" if number > 1 else f"{name}, 1 thread"


def _threaded(number: int, kind: type[Learner], job: Job, count: int) -> Contender:
    """Steps of a learner that is made for so many threads, and taken by as many."""
    with limited_threads(number):
        steps = _steps(kind, job, count)

    def run() -> None:
        with limited_threads(number):
            steps()

    return run


def image_recipe(steps: int, **changes: Any) -> Recipe:
    """ResNet-20 on CIFAR-10; the steps are what an epoch consists of; the evaluation, alike for all, is kept small."""
    recipe = presets.resnet20_cifar10_fast(steps=f"{steps}it", evaluations=0, device="cpu", **changes)
    x, y = arrays_of(recipe).x, arrays_of(recipe).y
    small = Arrays(x["train"], y["train"], x["test"][:128], y["test"][:128], mean=CIFAR10.mean, std=CIFAR10.std)
    return recipe.replace(data=small)


def made(kind: type[Learner], job: Job, **how: Any) -> Learner:
    """A learner that is not chosen but named."""
    state = job.initial_state()
    return kind([job], Network(job.recipe, state.weights), [state], **how)


def _dense(recipe: Recipe, count: int) -> dict[str, Contender]:
    precisions = {FLOAT32: "float32", BFLOAT16: "bfloat16"}
    return {n: _steps(Autograd, Job(recipe.replace(precision=p)), count) for n, p in precisions.items()}


def _densities(
    title: str,
    recipe: Recipe,
    count: int,
    others: Mapping[str, Contender],
    goals: Mapping[float, Mapping[str, str]],
) -> Benchmark:
    """``count`` steps at each density of ``goals`` against each of the others; weights are cut off by magnitude."""
    contenders, pairs = dict(others), []
    for density, goal in goals.items():
        mask = prune(recipe.initial(0), masks.ones(recipe), rate=1 - density) if density < 1 else None
        name = f"{density:.0%} left"
        contenders[name] = _steps(Convolutions, Job(recipe, mask=mask), count)
        pairs += [(name, other, goal.get(other, "–")) for other in others]
    title = f"{title}, {count} training steps of batch {recipe.batch_size}, one thread"
    return Benchmark(title, contenders, pairs, threads=1)


def _steps(kind: type[Learner], job: Job, count: int) -> Contender:
    steps: Callable[[int], None] = steps_of(made(kind, job))
    return lambda: steps(count)
