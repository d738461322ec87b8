"""Full commands: all levels of IMP, from nothing and rerun; what more replicates cost."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import partial

from lotto.benchmarks.baselines import half_left, lenet_epoch, usual
from lotto.benchmarks.convolutions import image_recipe
from lotto.benchmarks.harness import Benchmark, Contender, Row, compared, timed
from lotto.data.sources.catalog import MNIST
from lotto.execution.serial import Serial
from lotto.execution.store import Store
from lotto.execution.threads import limited_threads
from lotto.lottery.search import imp
from lotto.pruning.rule import Pruning
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe


def whole(levels: int = 16, replicates: int = 8) -> Benchmark:
    """A whole `lotto imp` of LeNet-300-100 with an epoch for each training, against one such epoch of the usual loop.

    Workers, data, pruning and files are in it; longer trainings make their part smaller.
    """
    recipe = lenet_epoch()
    title = f"LeNet-300-100/MNIST, IMP of {levels} levels and {replicates} replicates, 1 epoch each, per training"
    return Benchmark(
        title,
        {
            "whole command": lambda: _imp(recipe, levels, replicates),
            "usual loop, one level": usual(recipe, half_left(recipe), MNIST),
        },
        [("whole command", "usual loop, one level", "≥ 20")],
        replicates={"whole command": (levels + 1) * replicates},
    )


def paper(levels: int = 16, replicates: int = 8, epochs: int = 8) -> list[Row]:
    """The whole command once with real trainings, against two epochs of the usual loop right before and two after."""
    short = lenet_epoch()
    usual_epoch = usual(short, half_left(short), MNIST)
    usual_epoch()  # uncounted
    epoch_seconds = [timed(usual_epoch) for _ in range(2)]
    trainings = (levels + 1) * replicates
    each = timed(lambda: _imp(short.replace(steps=f"{epochs}ep", evaluations=10), levels, replicates)) / trainings
    epoch_seconds += [timed(usual_epoch) for _ in range(2)]
    title = f"LeNet-300-100/MNIST, IMP of {levels} levels and {replicates} replicates, {epochs} epochs each"
    ours = ("whole command, per training", [each] * len(epoch_seconds))
    theirs = (f"usual loop, {epochs} times an epoch", [epochs * seconds for seconds in epoch_seconds])
    return [compared("paper", title, ours, theirs, "≥ 20")]


def levels_by_kernels(levels: int = 16, steps: int = 10, rate: float = 0.22) -> list[Row]:
    """IMP of ResNet-20 on CIFAR-10 down to 2 % in 16 levels, with kernels where they are quicker and without.

    Trainings are ``steps`` long, one worker of one thread, one replicate; the evaluation is the same for both and
    kept small.
    """
    recipe = image_recipe(steps, precision="float32").replace(pruning=Pruning(rate=rate), rewind_to="0it")
    seconds: dict[str, list[float]] = {"auto": [], "dense": []}
    for turn in range(2):
        for how in ("auto", "dense") if turn else ("dense", "auto"):
            seconds[how].append(timed(partial(_chain, recipe.replace(arithmetic=how), levels)))
    title = f"ResNet-20/CIFAR-10, IMP of {levels} levels, {steps} steps each, one thread"
    ours, theirs = ("by kernels where quicker", seconds["auto"]), ("torch's layers", seconds["dense"])
    return [compared("levels", title, ours, theirs, "–")]


def _chain(recipe: Recipe, levels: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lotto-") as folder, limited_threads(1):
        imp(recipe, levels, replicates=1, controls=(), engine=Serial(Store(folder)))


def replicates() -> Benchmark:
    """What a replicate costs as there are more of them: a dense training and a level of LeNet-300-100 each."""
    recipe = lenet_epoch()
    names = {f"{count} replicate{'s, each' if count > 1 else ''}": count for count in (1, 2, 4, 8)}
    contenders: dict[str, Contender] = {n: partial(_imp, recipe, 1, count) for n, count in names.items()}
    one = next(iter(names))
    pairs = [(name, one, "–") for name in list(names)[1:]]
    title = "LeNet-300-100/MNIST, whole commands of 2 trainings of an epoch"
    return Benchmark(title, contenders, pairs, replicates=names)


def _imp(recipe: Recipe, levels: int, count: int) -> None:
    """From nothing, with a worker per core."""
    with tempfile.TemporaryDirectory(prefix="lotto-") as folder:
        imp(recipe, levels, replicates=count, controls=(), store=Store(folder))


def again() -> Benchmark:
    """IMP of 4 levels on MNIST-1D, and the same command again."""
    recipe = presets.mlp_mnist1d(device="cpu")
    store = Store(tempfile.mkdtemp(prefix="lotto-"))
    atexit.register(shutil.rmtree, store.root, ignore_errors=True)

    def again() -> None:
        imp(recipe, 4, replicates=1, controls=(), engine=Serial(store))

    def first() -> None:
        store.clear()
        again()

    first()
    return Benchmark(
        "IMP of MNIST-1D, 5 trainings", {"again": again, "first run": first}, [("again", "first run", "≥ 50")], 1
    )
