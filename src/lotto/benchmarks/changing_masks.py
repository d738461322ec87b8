"""Trainings whose mask changes on the way: what the updates cost, and what a step costs as fewer weights are left."""

from __future__ import annotations

from functools import partial

from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.recipe import presets
from lotto.training.dynamic_sparsity import DynamicSparsity
from lotto.training.job import Job
from lotto.training.loop import train

STEPS, EVERY = 600, 100
DENSITIES = (0.2, 0.1, 0.05, 0.02)


def rigl() -> Benchmark:
    """LeNet-300-100 on MNIST by RigL as fewer weights are left, against dense, and against masks that hold still."""
    recipe = presets.lenet_mnist_sgd(device="cpu", steps=f"{STEPS}it", evaluations=1)
    sparsity = DynamicSparsity("rigl", every=EVERY)
    jobs = {"100% left": Job(recipe)}
    pairs = []
    for density in DENSITIES:
        mask = prune(recipe.initial(0), masks.ones(recipe), density=density, score="random", allocation="erk")
        name, still = f"{density:.0%} left, RigL", f"{density:.0%} left"
        jobs |= {name: Job(recipe, mask=mask, sparsity=sparsity), still: Job(recipe, mask=mask)}
        pairs += [(name, "100% left", "–"), (name, still, "–")]
    contenders: dict[str, Contender] = {name: partial(_trained, job) for name, job in jobs.items()}
    updates = len(sparsity.updates(recipe).steps)
    title = f"LeNet-300-100/MNIST, {STEPS} training steps, {updates} updates of the mask, one evaluation, one thread"
    return Benchmark(title, contenders, pairs, threads=1)


def _trained(job: Job) -> None:
    ignore(train(job))
