"""Cases that two processes train together, and how the first one writes down what came of each.

python tests/training/divided.py FOLDER        (started twice, as `torchrun` does)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import small_recipe
from lotto import Job
from lotto.core.errors import LottoError
from lotto.core.ranks import joined
from lotto.data import Augment, Batch, DataSource
from lotto.pruning import masks
from lotto.recipe.totals import Ratio
from lotto.training.evaluation import tally
from lotto.training.job import State
from lotto.training.loop import train
from lotto.training.network import Network


class Normed(nn.Module):
    """Two convolutions with BatchNorm, one of which is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None)
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.one(x)))
        x = F.relu(self.norm(self.two(x)))
        return self.head(self.other(x).flatten(1))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 6))

    def forward(self, x):
        return self.body(x)


class Centred(nn.Module):
    """What it gives for an example depends on the others of its batch, by code that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Ragged(DataSource):
    """Batches of other sizes at every step, in which only some targets count: in some slices none at all."""

    fingerprint, classes = "ragged", 6

    def __init__(self, part: float) -> None:
        self.part = part

    def size(self, split="train"):
        return {"train": 60, "test": 25}.get(split, 0)

    def batch(self, seed, count, part):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 12, generator=generator)
        y = torch.randint(0, 6, (count,), generator=generator)
        counts = torch.rand(count, generator=generator) < part
        return Batch(x, y.masked_fill(~counts, -100))

    def train_batches(self, seed, start, stop, batch_size):
        return (self.batch(1000 * seed + step, batch_size - step % 4, self.part) for step in range(start, stop))

    def eval_batches(self, split, batch_size):
        yield self.batch(-1, self.size(split), 1.0)


def ratio(outputs, targets):
    counted = targets != -100
    return F.cross_entropy(outputs[counted], targets[counted], reduction="sum"), counted.sum()


class Later(Dropping):
    """Drops out from its fourth batch on."""

    def forward(self, x):
        self.body[3].p = 0.3 * (int(self.body[1].num_batches_tracked) > 3)
        return self.body(x) if self.body[3].p else self.body[4](self.body[:3](x))


def weighted(outputs, targets):
    """Examples count as much as is drawn."""
    weights = torch.rand(len(targets), dtype=outputs.dtype)
    return (F.cross_entropy(outputs, targets, reduction="none") * weights).sum(), weights.sum()


def squared(outputs, targets):
    """A mean over examples that nobody has been told is one."""
    return (outputs.softmax(1) - F.one_hot(targets, 6)).square().sum(1).mean()


def images(**changes: Any) -> lotto.Recipe:
    """Noisy pictures, eight by eight, on a small network with BatchNorm."""
    generator = np.random.default_rng(3)
    y = generator.integers(0, 10, 160)
    x = (generator.normal(size=(10, 1, 8, 8))[y] + generator.normal(size=(160, 1, 8, 8))).astype(np.float32)
    made = lotto.Recipe(
        Normed, lotto.data.Arrays(x[:120], y[:120], x[120:], y[120:]), lotto.SGD(0.05, momentum=0.9, weight_decay=1e-3), lotto.Linear(), batch_size=22,
        steps="12it", precision="float64", evaluations=2, arithmetic="dense",
        name="normed",
    )  # fmt: skip
    return made.replace(**changes)


def recipes(folder: Path) -> dict[str, lotto.Recipe]:
    """Trainings, by name."""
    small = small_recipe(precision="float64", steps="30it", clip_norm=0.5)
    ragged = lotto.Recipe(
        "mlp-16", Ragged(0.15), lotto.SGD(0.1), batch_size=12, steps="12it", precision="float64", evaluations=2,
        name="ragged",
    )  # fmt: skip
    return {
        "mlp": small,
        "uneven": small.replace(batch_size=21),
        "float32": small.replace(precision="float32"),
        "adam": small.replace(optimizer=lotto.AdamW(3e-3), ema=0.9, accumulate=3, batch_size=7),
        "best": small.replace(validation=40, weights="best", metrics={"f1": "f1", "top": "top-5"}, clip_norm=None),
        "own loss": small.replace(loss=squared, error="misclassification"),
        "ragged": ragged,
        "ratio": ragged.replace(data=Ragged(0.4), loss=Ratio(ratio), optimizer=lotto.RMSprop(1e-3)),
        "synchronised": images(),
        "synchronised float32": images(precision="float32"),
        "synchronised accumulate": images(batch_size=11, accumulate=2),
        "resnet": images(model="resnet-8", steps="4it"),
        "resnet bfloat16": images(model="resnet-8", steps="4it", precision="bfloat16"),
        "two groups": images(batch_groups=2),
        "four groups": images(batch_groups=4),
        "groups accumulate": images(batch_groups=2, batch_size=11, accumulate=2),
        "dropout in groups": small.replace(model=Dropping, init="module", batch_groups=4),
        "folder": lotto.Recipe(
            "conv-2", lotto.data.ImageFolder(folder / "images", size=8, random_crop=True), lotto.SGD(0.1),
            batch_size=7, steps="4it", precision="float64", augment=Augment(1, flip=True), evaluations=1, name="folder",
        ),
    }  # fmt: skip


def refused() -> dict[str, lotto.Recipe]:
    """Recipes that two processes do not train together."""
    small = small_recipe(steps="5it")
    return {
        "dropout": small.replace(model=Dropping, init="module"),
        "dropout later": small.replace(model=Later, init="module"),
        "drawing loss": small.replace(loss=Ratio(weighted), error="misclassification"),
        "centred": small.replace(model=Centred, init="module"),
        "odd groups": small.replace(batch_groups=3),
        "small": small.replace(batch_size=1),
    }


def job_of(name: str, recipe: lotto.Recipe) -> Job:
    """The training of a case: most of them with a mask."""
    mask = None if name == "best" else masks.random_like(half(recipe), 7)
    return Job(recipe, 1, 2, mask=mask, keep=(3,))


def half(recipe: lotto.Recipe) -> masks.Mask:
    return lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), 0.5)


def write_images(folder: Path) -> None:
    """A folder of small images of two classes."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for label in ("a", "b"):
            place = folder / "images" / split / label
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(place / f"{i}.png")


def said(computed: Callable[[], object]) -> str:
    """What is refused, in its sentence."""
    try:
        computed()
    except LottoError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    ranks = joined()
    torch.set_num_threads(1)
    about: dict[str, Any] = {}
    for name, recipe in recipes(folder).items():
        run = train(job_of(name, recipe), ranks=ranks)
        about[name] = {
            "history": run.history,
            "arithmetic": run.arithmetic,
            "mistakes": run.mistakes and run.mistakes.plain(),
        }
        if not ranks.rank:
            state = run.state(3)
            tensors = {f"w/{n}": t for n, t in run.weights.items()} | {f"3/{n}": t for n, t in state.weights.items()}
            save_file(tensors | {f"o/{n}": t for n, t in state.optimizer.items()}, folder / f"{name}.safetensors")
    about["refused"] = {name: said(lambda r=r: train(Job(r), ranks=ranks)) for name, r in refused().items()}
    small = small_recipe(steps="5it")
    mask = masks.random_like(half(small), 1 + ranks.rank)
    about["refused"]["mask"] = said(lambda: train(Job(small, mask=mask), ranks=ranks))
    start = State(small.initial(ranks.rank))
    about["refused"]["weights"] = said(lambda: train(Job(small, start=start), ranks=ranks))
    many = recipes(folder)["best"].replace(precision="float32", eval_batch_size=13)
    network = Network(many, many.initial(0))
    alone = tally(many, network, "test", keep_mistakes=True, more=True)
    network.ranks = ranks
    shared = tally(many, network, "test", keep_mistakes=True, more=True)
    about["alone"], about["shared"] = (t.metrics().entries("test") for t in (alone, shared))
    about["same mistakes"] = alone.mistakes == shared.mistakes
    about["opened"] = opened(folder, ranks)
    (folder / f"about-{ranks.rank}.json").write_text(json.dumps(about))


def opened(folder: Path, ranks: Any) -> int:
    """How many images this process reads for two steps and an evaluation."""
    from PIL import Image

    count, plain = 0, Image.open

    def counting(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        return plain(*given, **named)

    recipe = recipes(folder)["folder"].replace(steps="2it")
    Image.open = counting
    try:
        train(Job(recipe), ranks=ranks)
    finally:
        Image.open = plain
    return count


if __name__ == "__main__":
    main(Path(sys.argv[1]))
