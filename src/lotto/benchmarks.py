"""Speed as ratios within one run: contenders take turns, and the ratio is taken pair by pair.

The contenders a user would otherwise have: the *usual* loop (a `Dataset` of PIL images with per-image
transforms behind a `DataLoader`, float32, NCHW, masks multiplied in) and a *tight* loop written by hand over
tensors in memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lotto import files, masks, recipes
from lotto.data import Arrays
from lotto.data.catalog import CIFAR10, MNIST, Published
from lotto.engine import available_cores
from lotto.engine.memory import keep_freed_memory
from lotto.engine.threads import limited_threads
from lotto.errors import UsageError, unknown
from lotto.job import Job
from lotto.masks import Mask
from lotto.pruning import prune
from lotto.recipe import Recipe
from lotto.training import train
from lotto.training.network import flushed_denormals

Contender = Callable[[], None]


@dataclass(frozen=True)
class Benchmark:
    """What is measured: contenders by name, of which the first is compared with each of the others."""

    title: str
    contenders: dict[str, Contender]
    goals: dict[str, str]


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
        {"usual loop": "≥ 8", "tight loop": "≥ 0.87 (lotto takes ≤ 1.15× its time)", "lotto, bfloat16": "–"},
    )


def resnet(steps: int = 24) -> Benchmark:
    """Steps of ResNet-20 on CIFAR-10 with augmentation, at half density."""
    recipe = recipes.resnet20_cifar10_fast(steps=f"{steps}it", evaluations=0, device="cpu")
    # The steps are what an epoch consists of; the evaluation, alike for both, is kept small.
    x, y = _arrays(recipe).x, _arrays(recipe).y
    small = Arrays(x["train"], y["train"], x["test"][:128], y["test"][:128], mean=CIFAR10.mean, std=CIFAR10.std)
    recipe = recipe.replace(data=small)
    mask = _half(recipe)
    return Benchmark(
        f"ResNet-20/CIFAR-10, {steps} steps of batch {recipe.batch_size}, all cores",
        {
            "lotto": lambda: _ignore(train(Job(recipe, mask=mask))),
            "usual loop": _usual(recipe, mask, CIFAR10),
        },
        {"usual loop": "≥ 2.2"},
    )


BENCHMARKS: dict[str, Callable[[], Benchmark]] = {"lenet": lenet, "resnet": resnet}


def run_benchmarks(names: Sequence[str], repetitions: int, console: Console, out: Path | None = None) -> pd.DataFrame:
    """Run benchmarks and print their ratios.

    Args:
        names: keys of `BENCHMARKS`; empty for all.
        repetitions: how often each contender runs; they take turns, after one uncounted turn.
        console: where the tables go.
        out: a CSV file for the rows.

    Returns:
        One row per comparison: benchmark, against, seconds of both (medians), ratio (median, min, max), goal.

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
        with limited_threads(available_cores()), console.status(f"measuring {name}"):
            rows += measure(name, BENCHMARKS[name](), repetitions)
        console.print(_table(rows[-1]["title"], [r for r in rows if r["benchmark"] == name]))
    frame = pd.DataFrame(rows)
    if out is not None:
        files.write_text(out, frame.to_csv(index=False))
    return frame


def measure(name: str, benchmark: Benchmark, repetitions: int) -> list[dict[str, object]]:
    """Let the contenders take turns and compare the first with each of the others, turn by turn.

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
                    seconds[contender].append(time.perf_counter() - began)
    first, *others = benchmark.contenders
    rows: list[dict[str, object]] = []
    for other in others:
        ratios = [b / a for a, b in zip(seconds[first], seconds[other], strict=True)]
        rows.append(
            {
                "benchmark": name,
                "title": benchmark.title,
                "against": other,
                "lotto_seconds": statistics.median(seconds[first]),
                "other_seconds": statistics.median(seconds[other]),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "goal": benchmark.goals[other],
                "repetitions": repetitions,
            }
        )
    return rows


def _table(title: object, rows: Sequence[dict[str, object]]) -> Table:
    table = Table(title=str(title), caption="times: medians; speed-up: median (min to max) of the turns")
    for column in ("against", "lotto, s", "other, s", "lotto is faster by", "goal"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["against"]),
            f"{row['lotto_seconds']:.2f}",
            f"{row['other_seconds']:.2f}",
            f"{row['ratio']:.2f}× ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
            str(row["goal"]),
        )
    return table


def _ignore(result: object) -> None:
    """A contender returns nothing."""
