"""What is measured about networks: paths and curvature."""

from __future__ import annotations

from functools import partial

import numpy as np

from lotto.benchmarks.baselines import power_iterations
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.core.weights import lerp
from lotto.landscape.curvature.eigenvalues import TopTask
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.path import PathTask
from lotto.pruning import masks, prune
from lotto.recipe import presets
from lotto.training.evaluation import evaluate
from lotto.training.job import Job
from lotto.training.loop import train


def path(points: int = 30) -> Benchmark:
    """The path between two LeNets on the test set of MNIST."""
    recipe = presets.lenet_mnist_sgd(device="cpu")
    a, b = recipe.initial(0), recipe.initial(1)

    def one_by_one() -> None:
        for i in range(points):
            evaluate(recipe, lerp(a, b, i / (points - 1)))

    contenders: dict[str, Contender] = {
        "a path": lambda: ignore(PathTask(recipe, a, b, points).execute()),
        "evaluations": one_by_one,
    }
    return Benchmark(f"{points} points between two LeNets, all cores", contenders, [("a path", "evaluations", "≥ 3")])


def hessian(k: int = 10, examples: int = 1000) -> Benchmark:
    """The largest eigenvalues of the Hessian of a trained LeNet-300-100, to a relative 1e-3."""
    recipe = presets.lenet_mnist_sgd(steps="1ep", evaluations=0, device="cpu")
    weights = train(Job(recipe)).weights
    mask = masks.ones(recipe)
    names, title = ("Lanczos", "one by one"), f"Top {k} eigenvalues of LeNet's Hessian, {examples} examples, all cores"
    return Benchmark(
        title,
        {
            names[0]: lambda: ignore(TopTask(recipe, weights, mask, k, examples, 1e-3).execute()),
            names[1]: lambda: ignore(power_iterations(recipe, weights, k, examples)),
        },
        [(*names, "–")],
    )


def products(examples: int = 3879, density: float = 0.1) -> Benchmark:
    """A product with the Hessian of a ResNet on signals, whole and pruned, by kernels and by autograd."""
    contenders: dict[str, Contender] = {}
    recipe = presets.get("resnet20-mnist1d").replace(device="cpu")
    weights = recipe.initial(0)
    dense = masks.ones(recipe)
    for what, mask in (("dense", dense), (f"{density:.0%} left", prune(weights, dense, rate=1 - density))):
        for how, arithmetic in (("kernels", "auto"), ("autograd", "dense")):
            hessian = Hessian(recipe.replace(arithmetic=arithmetic), weights, mask, examples=examples)
            vector = np.ones(hessian.size)
            contenders[f"{what}, {how}"] = partial(_multiplied, hessian, vector)
    names = [*contenders]
    pairs = [(names[0], names[1], "≥ 3"), (names[2], names[3], "≥ 6")]
    return Benchmark(f"A Hessian product of ResNet-20 on MNIST-1D, {examples} examples", contenders, pairs, 1)


def _multiplied(hessian: Hessian, vector: np.ndarray) -> None:
    ignore(hessian @ vector)


def signal_path(points: int = 6) -> Benchmark:
    """The path between two ResNets on signals, BatchNorm statistics re-estimated or not."""
    recipe = presets.get("resnet20-mnist1d").replace(device="cpu")
    ends = recipe.initial(0), recipe.initial(1)
    contenders: dict[str, Contender] = {}
    for policy in ("interpolate", "recompute"):
        for how, arithmetic in (("kernels", "auto"), ("autograd", "dense")):
            task = PathTask(recipe.replace(arithmetic=arithmetic), *ends, points, ("test",), policy)
            contenders[f"{policy}, {how}"] = partial(_executed, task)
    names = [*contenders]
    pairs = [(names[0], names[1], "–"), (names[2], names[3], "–")]
    return Benchmark(f"{points} points between two ResNet-20 on MNIST-1D", contenders, pairs, 1)


def _executed(task: PathTask) -> None:
    ignore(task.execute())
