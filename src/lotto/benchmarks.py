"""Speed as ratios within one run: contenders take turns, and the ratio is taken pair by pair.

The contenders a user would otherwise have: the *usual* loop (a `Dataset` of PIL images with per-image
transforms behind a `DataLoader`, float32, NCHW, masks multiplied in) and a *tight* loop written by hand over
tensors in memory.
"""

from __future__ import annotations

import atexit
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from loky import ProcessPoolExecutor
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lotto import files, masks, recipes
from lotto.data import Arrays
from lotto.data.catalog import CIFAR10, MNIST, Published
from lotto.engine import Serial, available_cores
from lotto.engine.memory import keep_freed_memory
from lotto.engine.threads import limited_threads
from lotto.errors import UsageError, unknown
from lotto.imp import imp
from lotto.job import Job
from lotto.landscape import evaluate_path
from lotto.masks import Mask
from lotto.optimizers import Updates
from lotto.pruning import prune
from lotto.recipe import Recipe
from lotto.store import Store
from lotto.training import evaluate, train
from lotto.training.network import Network, flushed_denormals
from lotto.training.perceptron import Perceptron
from lotto.weights import lerp

Contender = Callable[[], None]


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        title: what the table is called.
        contenders: by name; they take turns.
        pairs: (quicker, slower, goal): which are compared, and how many times quicker the one should be.
        threads: of all contenders; None = all cores.
        replicates: how many a contender trains at once, where more than one: its time is divided by it.
    """

    title: str
    contenders: dict[str, Contender]
    pairs: Sequence[tuple[str, str, str]]
    threads: int | None = None
    replicates: Mapping[str, int] = field(default_factory=dict)


class _Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, with the transforms that everyone writes.

    Tensor operation by tensor operation what torchvision's data sets, ``ToTensor`` and ``Normalize`` do to an
    image: picked as a tensor, made an image, copied to an array, scaled, copied again, normalised.
    """

    def __init__(self, data: Arrays, mean: Sequence[float], std: Sequence[float], augment: bool) -> None:
        x = data.x["train"].permute(0, 2, 3, 1).contiguous()
        self.images = x[..., 0] if x.shape[-1] == 1 else x
        self.labels = data.y["train"]
        self.mean, self.std = mean, std
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        if self.augment:
            width, height = image.size
            image = ImageOps.expand(image, 4)
            left, top = int(torch.randint(0, 9, (1,))), int(torch.randint(0, 9, (1,)))
            image = image.crop((left, top, left + width, top + height))
            if torch.rand(1) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).view(image.size[1], image.size[0], -1)
        pixels = pixels.permute(2, 0, 1).contiguous().to(torch.get_default_dtype()).div(255)
        pixels = pixels.clone()
        mean = torch.as_tensor(self.mean, dtype=pixels.dtype, device=pixels.device)
        std = torch.as_tensor(self.std, dtype=pixels.dtype, device=pixels.device)
        if (std == 0).any():
            raise UsageError("A standard deviation is 0.")
        return pixels.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)), int(self.labels[index])


def _arrays(recipe: Recipe) -> Arrays:
    assert isinstance(recipe.arrays, Arrays)
    return recipe.arrays


def _usual(recipe: Recipe, mask: Mask, published: Published) -> Contender:
    arrays = _arrays(recipe)
    images = _Images(arrays, published.mean, published.std, recipe.augment is not None)

    def contender() -> None:
        model = recipe.build()
        model.load_state_dict(recipe.initial(0))
        parameters = dict(model.named_parameters())
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.optimizer.lr,
            momentum=getattr(recipe.optimizer, "momentum", 0.0),
            weight_decay=recipe.optimizer.weight_decay,
        )
        loader = DataLoader(images, batch_size=recipe.batch_size, shuffle=True, drop_last=True)
        for step, (x, y) in enumerate(loader):
            if step == recipe.total:
                break
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, keep in mask.items():
                    parameters[name].mul_(keep)
        _evaluate(model, arrays)

    return contender


@torch.no_grad()
def _evaluate(model: nn.Module, arrays: Arrays) -> None:
    model.eval()
    wrong = 0
    for x, y in arrays.evaluation("test", 1000):
        wrong += int((model(x).argmax(1) != y).sum())


def _tight(recipe: Recipe, mask: Mask) -> Contender:
    """The tightest loop over tensors in memory: floats made beforehand, one permutation, a fused optimizer."""
    arrays = _arrays(recipe)
    x, y = arrays.normalise(arrays.x["train"]).flatten(1), arrays.y["train"]
    keep = [m.float() for m in mask.values()]

    def contender() -> None:
        model = recipe.build()
        model.load_state_dict(recipe.initial(0))
        parameters = dict(model.named_parameters())
        masked = [parameters[n] for n in mask]
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.optimizer.lr, fused=True)
        order = torch.randperm(len(x))
        for step in range(recipe.per_epoch):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch._foreach_mul_([p.grad for p in masked if p.grad is not None], keep)
            optimizer.step()
        _evaluate(model, arrays)

    return contender


def _half(recipe: Recipe) -> Mask:
    return prune(recipe.initial(0), masks.ones(recipe), rate=0.5)


def lenet() -> Benchmark:
    """An epoch of LeNet-300-100 on MNIST at half density, test evaluation included."""
    recipe = recipes.lenet_mnist_sgd(steps="1ep", evaluations=1, device="cpu")
    mask, half = _half(recipe), recipe.replace(precision="bfloat16")
    return Benchmark(
        "LeNet-300-100/MNIST, one epoch and a test evaluation, all cores",
        {
            "lotto": lambda: _ignore(train(Job(recipe, mask=mask))),
            "usual loop": _usual(recipe, mask, MNIST),
            "tight loop": _tight(recipe, mask),
            "lotto, bfloat16": lambda: _ignore(train(Job(half, mask=mask))),
        },
        [("lotto", "usual loop", "≥ 8"), ("lotto", "tight loop", "≥ 0.87"), ("lotto, bfloat16", "lotto", "–")],
    )


@cache
def _resnet_recipe(steps: int) -> Recipe:
    """The steps are what an epoch consists of; the evaluation, alike for all, is kept small."""
    recipe = recipes.resnet20_cifar10_fast(steps=f"{steps}it", evaluations=0, device="cpu")
    x, y = _arrays(recipe).x, _arrays(recipe).y
    small = Arrays(x["train"], y["train"], x["test"][:128], y["test"][:128], mean=CIFAR10.mean, std=CIFAR10.std)
    return recipe.replace(data=small)


def resnet(steps: int = 24) -> Benchmark:
    """Steps of ResNet-20 on CIFAR-10 with augmentation, at half density."""
    recipe = _resnet_recipe(steps)
    mask, cores = _half(recipe), available_cores()
    workers = ProcessPoolExecutor(cores, initializer=_start_worker)
    atexit.register(workers.shutdown, kill_workers=True)
    each = "lotto, a worker per core, per replicate"

    def one_per_core() -> None:
        for future in [workers.submit(_trained, steps, mask) for _ in range(cores)]:
            future.result()

    return Benchmark(
        f"ResNet-20/CIFAR-10, {steps} steps of batch {recipe.batch_size}, all cores",
        {
            "lotto": lambda: _ignore(train(Job(recipe, mask=mask))),
            each: one_per_core,
            "usual loop": _usual(recipe, mask, CIFAR10),
        },
        [("lotto", "usual loop", "≥ 2.2"), (each, "usual loop", "≥ 4")],
        replicates={each: cores},
    )


def _start_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _trained(steps: int, mask: Mask) -> None:
    with flushed_denormals():
        train(Job(_resnet_recipe(steps), mask=mask))


def _steps(recipe: Recipe, density: float, count: int) -> Contender:
    """``count`` training steps at a density, with nothing around them."""
    mask = prune(recipe.initial(0), masks.ones(recipe), rate=1 - density) if density < 1 else None
    job = Job(recipe, mask=mask)
    learner = Perceptron(job, Network(recipe, job.initial_state().weights))
    updates = Updates(recipe.optimizer, learner.parameters)

    def contender() -> None:
        batches = _arrays(recipe).batches(0, 0, count, recipe.batch_size, None, learner.by_feature)
        for step, (x, y) in enumerate(batches):
            learner.backward(x, y, step)
            updates.step(recipe.learning_rate(step))

    return contender


def _sparse(recipe: Recipe, title: str, count: int, goals: dict[float, str]) -> Benchmark:
    contenders = {f"{d:.0%} left": _steps(recipe, d, count) for d in (1.0, *goals)}
    pairs = [(f"{d:.0%} left", "100% left", goal) for d, goal in goals.items()]
    return Benchmark(f"{title}, {count} training steps, one thread", contenders, pairs, threads=1)


def sparse() -> Benchmark:
    """Steps of LeNet-300-100 on MNIST as fewer weights are left."""
    recipe = recipes.lenet_mnist_sgd(device="cpu")
    return _sparse(recipe, "LeNet-300-100/MNIST", 100, {0.2: "–", 0.1: "–", 0.05: "≥ 2", 0.02: "≥ 3"})


def wide() -> Benchmark:
    """Steps of a perceptron with two layers of 4,096 units as fewer weights are left."""
    recipe = recipes.lenet_mnist_sgd(model="mlp-4096-4096", device="cpu")
    return _sparse(recipe, "784-4096-4096-10/MNIST", 4, {0.2: "–", 0.1: "–", 0.05: "–", 0.02: "≥ 5"})


def path(points: int = 30) -> Benchmark:
    """The path between two LeNets on the test set of MNIST."""
    recipe = recipes.lenet_mnist_sgd(device="cpu")
    a, b = recipe.initial(0), recipe.initial(1)

    def one_by_one() -> None:
        for i in range(points):
            evaluate(recipe, lerp(a, b, i / (points - 1)))

    contenders: dict[str, Contender] = {
        "a path": lambda: _ignore(evaluate_path(recipe, a, b, points)),
        "evaluations": one_by_one,
    }
    return Benchmark(f"{points} points between two LeNets, all cores", contenders, [("a path", "evaluations", "≥ 3")])


def again() -> Benchmark:
    """IMP of 4 levels on MNIST-1D, and the same command again."""
    recipe = recipes.mlp_mnist1d(device="cpu")

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


BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "lenet": lenet,
    "resnet": resnet,
    "sparse": sparse,
    "wide": wide,
    "path": path,
    "again": again,
}


def run_benchmarks(names: Sequence[str], repetitions: int, console: Console, out: Path | None = None) -> pd.DataFrame:
    """Run benchmarks and print their ratios.

    Args:
        names: keys of `BENCHMARKS`; empty for all.
        repetitions: how often each contender runs; they take turns, after one uncounted turn.
        console: where the tables go.
        out: a CSV file for the rows.

    Returns:
        One row per comparison: what against what, seconds of both (medians), ratio (median, min, max), goal.

    Raises:
        UsageError: for an unknown name; lists the choices.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS)
    if repetitions < 1:
        raise UsageError(f"repetitions is 1 or more; got {repetitions}.")
    keep_freed_memory()  # as lotto's workers do; all contenders gain alike
    rows = []
    for name in names or BENCHMARKS:
        benchmark = BENCHMARKS[name]()
        with limited_threads(benchmark.threads or available_cores()), console.status(f"measuring {name}"):
            rows += measure(name, benchmark, repetitions)
        console.print(_table(benchmark.title, [r for r in rows if r["benchmark"] == name]))
    frame = pd.DataFrame(rows)
    if out is not None:
        files.write_text(out, frame.to_csv(index=False))
    return frame


def measure(name: str, benchmark: Benchmark, repetitions: int) -> list[dict[str, object]]:
    """Let the contenders take turns and compare pairs of them turn by turn.

    Each turn begins with another one: a contender is not always measured after the same neighbour.
    """
    names = list(benchmark.contenders)
    seconds: dict[str, list[float]] = {c: [] for c in names}
    with flushed_denormals():
        for turn in range(repetitions + 1):
            at = turn % len(names)
            for contender in names[at:] + names[:at]:
                began = time.perf_counter()
                benchmark.contenders[contender]()
                if turn:
                    seconds[contender].append((time.perf_counter() - began) / benchmark.replicates.get(contender, 1))
    rows: list[dict[str, object]] = []
    for quicker, slower, goal in benchmark.pairs:
        ratios = [b / a for a, b in zip(seconds[quicker], seconds[slower], strict=True)]
        rows.append(
            {
                "benchmark": name,
                "title": benchmark.title,
                "what": quicker,
                "against": slower,
                "seconds": statistics.median(seconds[quicker]),
                "seconds_against": statistics.median(seconds[slower]),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "goal": goal,
                "repetitions": repetitions,
            }
        )
    return rows


def _table(title: str, rows: Sequence[dict[str, object]]) -> Table:
    table = Table(title=title, caption="times in seconds: medians; quicker by: median (min to max) of the turns")
    for column in ("what", "against", "time", "time against", "quicker by", "goal"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["what"]),
            str(row["against"]),
            f"{row['seconds']:.3g}",
            f"{row['seconds_against']:.3g}",
            f"{row['ratio']:.2f}× ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
            str(row["goal"]),
        )
    return table


def _ignore(result: object) -> None:
    """A contender returns nothing."""
