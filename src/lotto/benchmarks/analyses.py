"""What is measured about networks: paths and curvature."""

from __future__ import annotations

from lotto import recipes
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.benchmarks.rivals import power_iterations
from lotto.job import Job
from lotto.landscape import evaluate_path
from lotto.landscape.hessian import top
from lotto.training import evaluate, train
from lotto.weights import lerp


def path(points: int = 30) -> Benchmark:
    """The path between two LeNets on the test set of MNIST."""
    recipe = recipes.lenet_mnist_sgd(device="cpu")
    a, b = recipe.initial(0), recipe.initial(1)

    def one_by_one() -> None:
        for i in range(points):
            evaluate(recipe, lerp(a, b, i / (points - 1)))

    contenders: dict[str, Contender] = {
        "a path": lambda: ignore(evaluate_path(recipe, a, b, points)),
        "evaluations": one_by_one,
    }
    return Benchmark(f"{points} points between two LeNets, all cores", contenders, [("a path", "evaluations", "≥ 3")])


def hessian(k: int = 10, examples: int = 1000) -> Benchmark:
    """The largest eigenvalues of the Hessian of a trained LeNet-300-100, to a relative 1e-3."""
    recipe = recipes.lenet_mnist_sgd(steps="1ep", evaluations=0, device="cpu")
    weights = train(Job(recipe)).weights
    names, title = ("Lanczos", "one by one"), f"Top {k} eigenvalues of LeNet's Hessian, {examples} examples, all cores"
    return Benchmark(
        title,
        {
            names[0]: lambda: ignore(top(recipe, weights, k=k, examples=examples, tolerance=1e-3)),
            names[1]: lambda: ignore(power_iterations(recipe, weights, k, examples)),
        },
        [(*names, "–")],
    )
