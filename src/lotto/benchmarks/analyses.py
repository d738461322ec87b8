"""What is measured about networks: paths and curvature."""

from __future__ import annotations

from lotto.benchmarks.baselines import power_iterations
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.core.weights import lerp
from lotto.landscape.curvature.eigenvalues import TopTask
from lotto.landscape.path import PathTask
from lotto.pruning import masks
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
